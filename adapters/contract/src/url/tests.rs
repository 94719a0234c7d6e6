use super::*;

fn parse(text: &str) -> BrokerUrl {
    text.parse().unwrap()
}

#[test]
fn parts() {
    let url = parse("AMQPS://us%40er:p%3Aw%2F@h1:1,[::1]:2,h3/%2Fprod?a=1&b=x%20y");
    assert_eq!(url.scheme, "amqps");
    assert_eq!(url.user.as_deref(), Some("us@er"));
    assert_eq!(url.password.as_ref().map(Secret::expose), Some("p:w/"));
    let hosts = [
        ("h1".to_owned(), Some(1)),
        ("::1".to_owned(), Some(2)),
        ("h3".to_owned(), None),
    ];
    assert_eq!(url.hosts, hosts);
    assert_eq!(url.path.as_deref(), Some("/prod"));
    let mut options = url.options();
    assert_eq!(
        (options.number("a", 0, 0, 9), options.text("b").as_deref()),
        (1, Some("x y"))
    );
    options.finish().unwrap();
    assert_eq!(parse("memory://").hosts, []);
    assert_eq!(parse("memory://").path, None);
    assert_eq!(parse("amqp://h/").path.as_deref(), Some(""));
}

#[test]
fn secrets_never_show() {
    let url = parse("amqp://user:hunter2@h:1/v?sasl.password=hunter2");
    assert!(!format!("{url} {url:?} {:?}", url.password).contains("hunter2"));
    let error = url.options().finish().unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    for bad in [
        "hunter2",
        "amqp://u:hunter2@h:x/",
        "amqp://u:hunter2#@h",
        "am qp://hunter2",
        "amqp://u:hunter2%ff@h",
        "amqp://u:5/hunter2@h",
        "amqp://u:5?hunter2@h",
        "amqp://[u]hunter2",
    ] {
        let error = bad.parse::<BrokerUrl>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

#[test]
fn options_report_every_mistake() {
    let mut options = parse("x://h?n=0&d=5&u=1&n=3").options();
    options.number("n", 1, 1, 9);
    options.duration("d", Duration::ZERO);
    let text = options.finish().unwrap_err().to_string();
    for part in [
        "`n` is given twice",
        "`d` is not a duration",
        "`u` is unknown",
        "known options: d, n",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_duration_that_is_too_short_is_a_mistake() {
    let mut options = parse("x://h?t=0&h=500ms&l=0").options();
    assert_eq!(options.timeout("t", Duration::MAX), Duration::MAX);
    options.duration_from("h", Duration::ZERO, Duration::from_secs(1));
    assert_eq!(options.duration("l", Duration::MAX), Duration::ZERO);
    let text = options.finish().unwrap_err().to_string();
    for part in [
        "`t` is not a duration",
        "at least 1ms",
        "`h` is not a duration",
        "at least 1s",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

/// What URLs are made of, and what they are not.
const WORDS: [&str; 32] = [
    "://", ":", "/", "@", ",", "?", "&", "=", "#", "[", "]", "%", "%2F", "%40", "%00", "%ff", "::1", "0",
    "7", "65535", "65536", "+", "-", ".", "a", "Host", "x y", "\u{e4}", "\n", "\0", "true", "option",
];

fn of_words(indices: &[u8]) -> String {
    indices
        .iter()
        .map(|&index| WORDS[usize::from(index) % WORDS.len()])
        .collect()
}

/// Nothing is passed over: what was understood, written again, is the same URL.
#[test]
fn what_is_understood_is_all_that_was_written() {
    bolero::check!().with_type::<Vec<u8>>().for_each(|indices| {
        let text = format!("x://{}", of_words(indices));
        let Ok(url) = text.parse::<BrokerUrl>() else {
            return;
        };
        let written = written(&url);
        assert_eq!(parse(&written), url, "{text:?} {written:?}");
        // A flag is written as `=true`.
        let letters = |text: &str| {
            let text = percent_decode_str(text).decode_utf8_lossy();
            text.chars()
                .filter(|&c| c.is_alphabetic() && !"true".contains(c))
                .count()
        };
        assert_eq!(letters(&written), letters(&text), "{text:?} {written:?}");
    });
}

fn written(url: &BrokerUrl) -> String {
    let encoded = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let part = |part: Option<&str>| encoded(part.unwrap_or_default());
    let password = part(url.password.as_ref().map(Secret::expose));
    let host = |(host, port): &(String, Option<u16>)| match port {
        Some(port) => format!("[{}]:{port}", encoded(host)),
        None => format!("[{}]", encoded(host)),
    };
    let hosts: Vec<String> = url.hosts.iter().map(host).collect();
    let path = url
        .path
        .as_ref()
        .map_or(String::new(), |path| format!("/{}", encoded(path)));
    let option = |(name, value): &(String, String)| format!("{}={}", encoded(name), encoded(value));
    let query: Vec<String> = url.query.iter().map(option).collect();
    format!(
        "{}://{}:{password}@{}{path}?{}",
        url.scheme,
        part(url.user.as_deref()),
        hosts.join(","),
        query.join("&")
    )
}

#[test]
fn passwords_round_trip() {
    bolero::check!().with_type::<String>().for_each(|password| {
        let encoded = percent_encoding::utf8_percent_encode(password, percent_encoding::NON_ALPHANUMERIC);
        let url = parse(&format!("x://u:{encoded}@h"));
        assert_eq!(url.password.as_ref().map_or("", Secret::expose), password);
    });
}

/// A password that somebody forgot to encode is refused or understood, and shown in no case.
#[test]
fn a_password_as_it_is_never_shows() {
    bolero::check!().with_type::<Vec<u8>>().for_each(|indices| {
        let password = format!("5{}hunter2", of_words(indices));
        let shown = match format!("x://user:{password}@h:1/v").parse::<BrokerUrl>() {
            Ok(url) => format!("{url} {url:?} {:?}", url.options().finish()),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(!shown.contains("hunter2"), "{password:?}: {shown}");
    });
}

#[test]
fn options_take_only_what_they_say() {
    bolero::check!().with_type::<Vec<u8>>().for_each(|indices| {
        let Ok(url) = format!("x://?{}", of_words(indices)).parse::<BrokerUrl>() else {
            return;
        };
        let mut options = url.options();
        let number = options.number("a", 3, 2, 8);
        let flag = options.flag("option", false);
        assert!((2..=8).contains(&number));
        if options.finish().is_ok() {
            // Every part of the query is one of these two, and was read.
            assert!(url.query.len() <= 2 && (number == 3 || url.query.iter().any(|(name, _)| name == "a")));
            assert!(!flag || url.query.iter().any(|(_, value)| value == "true"));
        }
    });
}
