//! What was probably meant by an unknown option.

/// What people who come from elsewhere write.
const ELSEWHERE: [(&str, &str); 18] = [
    ("channel", "topic"),
    ("queue", "topic"),
    ("subject", "topic"),
    ("stream", "topic"),
    ("consumer_group", "group"),
    ("queue_group", "group"),
    ("workers", "concurrency"),
    ("dlq", "dead_letter"),
    ("circuit_breaker", "breaker"),
    ("deduplication", "dedup"),
    ("deduplicate", "dedup"),
    ("idempotent", "dedup"),
    ("reply", "publish"),
    ("output", "publish"),
    ("max_attempts", "attempts"),
    ("delay", "backoff"),
    ("interval", "wait"),
    ("ttl", "window"),
];

/// What stands inside of another option, under our word or another's: that option, and how it is written there.
const INSIDE: [(&str, &str, &str); 15] = [
    ("attempts", "retry", "retry(attempts = 5)"),
    ("max_attempts", "retry", "retry(attempts = 5)"),
    ("retries", "retry", "retry(attempts = 5)"),
    ("max_retries", "retry", "retry(attempts = 5)"),
    ("backoff", "retry", "retry(backoff = \"200ms..30s\")"),
    ("delay", "retry", "retry(backoff = \"200ms..30s\")"),
    ("max_age", "retry", "retry(max_age = \"24h\")"),
    ("size", "batch", "batch(size = 100)"),
    ("batch_size", "batch", "batch(size = 100)"),
    ("wait", "batch", "batch(size = 100, wait = \"50ms\")"),
    ("linger", "batch", "batch(size = 100, wait = \"50ms\")"),
    ("failures", "breaker", "breaker(failures = 10, pause = \"30s\")"),
    ("pause", "breaker", "breaker(failures = 10, pause = \"30s\")"),
    ("window", "dedup", "dedup(window = \"24h\")"),
    ("ttl", "dedup", "dedup(window = \"24h\")"),
];

/// How it is written where it stands inside of one of these keys, and that key.
pub(crate) fn inside<'a>(name: &str, keys: &[&'a str]) -> Option<(&'a str, &'static str)> {
    let lower = name.to_ascii_lowercase();
    let (_, outer, example) = INSIDE.iter().find(|(theirs, ..)| *theirs == lower)?;
    let key = keys.iter().find(|key| *key == outer)?;
    Some((key, example))
}

/// The key that is most like this, if any is.
pub(crate) fn nearest<'a>(name: &str, keys: &[&'a str]) -> Option<&'a str> {
    let lower = name.to_ascii_lowercase();
    let elsewhere = ELSEWHERE
        .iter()
        .find(|(theirs, _)| *theirs == lower)
        .map(|(_, ours)| *ours);
    if let Some(key) = keys.iter().find(|key| Some(**key) == elsewhere) {
        return Some(key);
    }
    let near = keys.iter().map(|key| (distance(&lower, key), *key)).min()?;
    (near.0 <= near.1.len().div_ceil(3)).then_some(near.1)
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, right) in b.chars().enumerate() {
            let changed = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.chars().count()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_the_nearest() {
        let keys = ["topic", "group", "concurrency", "dead_letter", "retry"];
        assert_eq!(nearest("topik", &keys), Some("topic"));
        assert_eq!(nearest("Topic", &keys), Some("topic"));
        assert_eq!(nearest("concurency", &keys), Some("concurrency"));
        assert_eq!(nearest("deadletter", &keys), Some("dead_letter"));
        assert_eq!(nearest("dlq", &keys), Some("dead_letter"));
        assert_eq!(nearest("workers", &keys), Some("concurrency"));
        assert_eq!(nearest("colour", &keys), None);
        assert_eq!(nearest("dlq", &["topic"]), None);
        assert_eq!(inside("retries", &keys), Some(("retry", "retry(attempts = 5)")));
        assert_eq!(inside("retries", &["topic"]), None);
        assert_eq!(inside("topic", &keys), None);
    }

    #[test]
    fn measures_distance() {
        assert_eq!(distance("", ""), 0);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("topic", "topci"), 2);
    }
}
