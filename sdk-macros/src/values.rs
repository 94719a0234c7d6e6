//! Values written as text: durations, waits, rates, sizes, names.

use std::time::Duration;

use proc_macro2::Span;
use syn::LitStr;

use crate::problems::Problems;

/// `"200ms"`, `"10s"`, `"2m"`; not zero.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let Ok(duration) = humantime::parse_duration(text.trim()) else {
        return Err(format!("{text:?} is no duration"));
    };
    // Nothing that a listener waits for takes months, and `5M` is meant to be five minutes.
    if text.contains('M') {
        return Err(format!(
            "`M` of the duration {text:?} is a month; a minute is `m`"
        ));
    }
    if duration.is_zero() {
        return Err(format!("the duration {text:?} is zero"));
    }
    Ok(duration)
}

/// The shortest and the longest wait, and how they grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    pub(crate) base: Duration,
    pub(crate) cap: Duration,
    pub(crate) is_linear: bool,
}

/// `"200ms..30s"`: the shortest and the longest wait, exponential; `"linear 1s..30s"`; `"5s"`: a fixed one. The words
/// `exponential` and `fixed` may be written too.
pub(crate) fn backoff(text: &str) -> Result<Backoff, String> {
    let (word, waits) = match text.trim().split_once(' ') {
        Some((word @ ("linear" | "exponential" | "fixed"), waits)) => (word, waits),
        _ => ("", text),
    };
    let (base, cap) = match (word, waits.split_once("..")) {
        ("fixed", Some(_)) => return Err(format!("{text:?} is a range, and a fixed wait is one")),
        ("linear" | "exponential", None) => {
            return Err(format!("{text:?} is one wait, and grows to no other"));
        }
        (_, None) => (duration(waits)?, duration(waits)?),
        (_, Some((base, cap))) => (duration(base)?, duration(cap)?),
    };
    if base > cap {
        return Err(format!("the first wait of {text:?} is longer than the last"));
    }
    Ok(Backoff {
        base,
        cap,
        is_linear: word == "linear",
    })
}

/// `"500/s"`, also `/m` and `/h`: how many in which time.
pub(crate) fn rate(text: &str) -> Result<(u32, Duration), String> {
    let wrong = || format!("{text:?} is no rate");
    let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
    let per = match unit.trim() {
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        _ => return Err(wrong()),
    };
    match count.trim().parse() {
        Ok(0) => Err(format!("the rate {text:?} is zero")),
        Ok(count) => Ok((count, per)),
        Err(_) => Err(wrong()),
    }
}

/// `"64KiB"`, `"1MB"`, `"512"`: a number of bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size");
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    let count: u64 = count.parse().map_err(|_| wrong())?;
    match count.checked_mul(unit) {
        Some(0) => Err(format!("the size {text:?} is zero")),
        Some(size) => Ok(size),
        None => Err(wrong()),
    }
}

/// Which internal names are allowed where a topic is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reserved {
    /// Dead letters may be read from and given up to.
    DeadLetters,
    /// None.
    None,
}

/// Reports what is wrong with a topic's name, inside the literal where the compiler lets us point there. The rules are
/// those of `postrider_contract::names::check_topic`.
pub(crate) fn check_topic(
    literal: &LitStr,
    key: &str,
    reserved: Reserved,
    problems: &mut Problems,
) -> Option<()> {
    let topic = literal.value();
    let help = "write words of `A-Z a-z 0-9 _ -` joined by single dots, such as \"order.created\"";
    if topic.is_empty() {
        problems.span(literal.span(), format!("the `{key}` is empty"), help);
        return None;
    }
    if let Some((at, wrong)) = illegal(&topic, |c| matches!(c, '.' | '_' | '-')) {
        let what = format!("{wrong:?} is not allowed in a `{key}`");
        problems.span(inside(literal, at, wrong.len_utf8()), what, help);
        return None;
    }
    let empty_part = match topic.find("..") {
        Some(dots) => Some((dots, 2)),
        None if topic.starts_with('.') => Some((0, 1)),
        None if topic.ends_with('.') => Some((topic.len() - 1, 1)),
        None => None,
    };
    if let Some((at, length)) = empty_part {
        problems.span(
            inside(literal, at, length),
            format!("the `{key}` {topic:?} has an empty part"),
            help,
        );
        return None;
    }
    if topic.len() > 200 {
        let what = format!("the `{key}` has {} bytes, at most 200 are allowed", topic.len());
        problems.span(literal.span(), what, "write a shorter one");
        return None;
    }
    if topic.starts_with("amq.") {
        let what = format!("the `{key}` begins with `amq.`, as RabbitMQ's own names do");
        problems.span(inside(literal, 0, 4), what, "write another beginning");
        return None;
    }
    for suffix in [".retry", ".inbox", ".dlq"] {
        if topic.ends_with(suffix) && (suffix != ".dlq" || reserved == Reserved::None) {
            let at = topic.len() - suffix.len();
            let what = format!("the `{key}` ends in `{suffix}`, which is reserved for internal topics");
            problems.span(inside(literal, at, suffix.len()), what, "write another ending");
            return None;
        }
    }
    Some(())
}

/// Reports what is wrong with the name of a group or a broker. The rules are those of
/// `postrider_contract::names::check_group`.
pub(crate) fn check_name(literal: &LitStr, key: &str, problems: &mut Problems) -> Option<()> {
    let name = literal.value();
    let help = "write 1 to 100 of `A-Z a-z 0-9 _ -`";
    if name.is_empty() {
        problems.span(literal.span(), format!("the `{key}` is empty"), help);
        return None;
    }
    if let Some((at, wrong)) = illegal(&name, |c| matches!(c, '_' | '-')) {
        let what = format!("{wrong:?} is not allowed in a `{key}`");
        problems.span(inside(literal, at, wrong.len_utf8()), what, help);
        return None;
    }
    if name.len() > 100 {
        let what = format!("the `{key}` has {} bytes, at most 100 are allowed", name.len());
        problems.span(literal.span(), what, "write a shorter one");
        return None;
    }
    if key == "group" && matches!(&*name, "dlq" | "retry" | "inbox") {
        let what = format!("the `{key}` {name:?} is the last word of internal topics");
        problems.span(literal.span(), what, "write another one");
        return None;
    }
    Some(())
}

fn illegal(name: &str, punctuation: impl Fn(char) -> bool) -> Option<(usize, char)> {
    name.char_indices()
        .find(|&(_, c)| !c.is_ascii_alphanumeric() && !punctuation(c))
}

/// The span of a part of a literal; the whole of it where the compiler is a stable one or the literal has escapes.
fn inside(literal: &LitStr, at: usize, length: usize) -> Span {
    let token = literal.token();
    if token.to_string() != format!("\"{}\"", literal.value()) {
        return literal.span();
    }
    token
        .subspan(at + 1..at + 1 + length)
        .unwrap_or_else(|| literal.span())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem_of(check: impl FnOnce(&mut Problems) -> Option<()>) -> Option<String> {
        let mut problems = Problems::default();
        assert_eq!(check(&mut problems).is_some(), problems.is_empty());
        problems.texts().pop()
    }

    fn topic(name: &str) -> Option<String> {
        let literal = LitStr::new(name, Span::call_site());
        problem_of(|problems| check_topic(&literal, "topic", Reserved::DeadLetters, problems))
    }

    #[test]
    fn durations() {
        assert_eq!(duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(
            duration("5M"),
            Err("`M` of the duration \"5M\" is a month; a minute is `m`".to_owned())
        );
        assert_eq!(duration("0s"), Err("the duration \"0s\" is zero".to_owned()));
        for wrong in [
            "",
            "10",
            "ten seconds",
            "10 parsecs",
            "-1s",
            "99999999999999999999s",
        ] {
            assert_eq!(duration(wrong), Err(format!("{wrong:?} is no duration")));
        }
    }

    #[test]
    fn backoffs() {
        let (base, cap) = (Duration::from_millis(200), Duration::from_secs(30));
        let of = |base, cap, is_linear| Ok(Backoff { base, cap, is_linear });
        assert_eq!(backoff("200ms..30s"), of(base, cap, false));
        assert_eq!(backoff("200ms .. 30s"), of(base, cap, false));
        assert_eq!(backoff("exponential 200ms..30s"), of(base, cap, false));
        assert_eq!(backoff("linear 200ms..30s"), of(base, cap, true));
        assert_eq!(backoff("30s"), of(cap, cap, false));
        assert_eq!(backoff("fixed 30s"), of(cap, cap, false));
        assert_eq!(backoff("30s..30s"), of(cap, cap, false));
        assert!(backoff("30s..200ms").is_err());
        for wrong in [
            "",
            "..",
            "1s..",
            "..1s",
            "1s...2s",
            "0s..1s",
            "1s..2s..3s",
            "linear",
            "linear 1s",
            "fixed 1s..2s",
            "cubic 1s..2s",
        ] {
            assert!(backoff(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates() {
        assert_eq!(rate("500/s"), Ok((500, Duration::from_secs(1))));
        assert_eq!(rate("60 / m"), Ok((60, Duration::from_secs(60))));
        assert_eq!(rate("1/h"), Ok((1, Duration::from_secs(3600))));
        assert_eq!(rate("0/s"), Err("the rate \"0/s\" is zero".to_owned()));
        for wrong in ["", "500", "/s", "500/", "500/d", "-1/s", "1.5/s", "5000000000/s"] {
            assert_eq!(rate(wrong), Err(format!("{wrong:?} is no rate")));
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("64 KiB"), Ok(65_536));
        assert_eq!(size("1MB"), Ok(1_000_000));
        assert_eq!(size("512"), Ok(512));
        assert_eq!(size("0KiB"), Err("the size \"0KiB\" is zero".to_owned()));
        for wrong in [
            "",
            "KiB",
            "64kib",
            "64 kilobytes",
            "-1",
            "1.5MiB",
            "99999999999999GiB",
        ] {
            assert_eq!(size(wrong), Err(format!("{wrong:?} is no size")));
        }
    }

    #[test]
    fn topics() {
        for good in [
            "a",
            "order.created",
            "A_b-9.c",
            "order.created.inventory.dlq",
            &"x".repeat(200),
        ] {
            assert_eq!(topic(good), None, "{good}");
        }
        for bad in [
            "", ".", "..", "a..b", ".a", "a.", "a b", "a/b", "a*", "ä", "a\n", "a.retry", "a.inbox", "amq.a",
        ] {
            assert!(topic(bad).is_some(), "{bad}");
        }
        assert!(topic(&"x".repeat(201)).is_some());
        let dead = LitStr::new("a.g.dlq", Span::call_site());
        assert!(problem_of(|problems| check_topic(&dead, "publish", Reserved::None, problems)).is_some());
    }

    #[test]
    fn names() {
        let name = |text: &str| {
            let literal = LitStr::new(text, Span::call_site());
            problem_of(|problems| check_name(&literal, "group", problems))
        };
        assert_eq!(name("inventory-2_b"), None);
        assert_eq!(name(&"x".repeat(100)), None);
        for bad in ["", "a.b", "a b", "ä", "inbox", &"x".repeat(101)] {
            assert!(name(bad).is_some(), "{bad}");
        }
    }
}
