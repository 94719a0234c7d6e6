use super::*;

fn from(variables: &[(&str, &str)]) -> Config {
    let mut config = Config::default();
    let owned = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    config.read_variables(owned).unwrap();
    config
}

const RESERVE: Settings = Settings {
    name: "reserve_stock",
    topic: "t",
    ..Settings::DEFAULT
};

#[test]
fn the_environment_overrides_a_listener() {
    let config = from(&[
        ("POSTRIDER__RESERVE_STOCK__CONCURRENCY", "16"),
        ("POSTRIDER__RESERVE_STOCK__RETRY_BACKOFF", "1s..1m"),
        ("POSTRIDER__RESERVE_STOCK__RETRY_MAX_AGE", "1h"),
        ("POSTRIDER__RESERVE_STOCK__BREAKER_FAILURES", "10"),
        ("POSTRIDER__RESERVE_STOCK__DEDUP_WINDOW", "24h"),
        ("POSTRIDER__RESERVE_STOCK__GROUP", "other"),
        ("POSTRIDER__APP__DEDUP_URL", "redis://marks"),
        ("POSTRIDER__RESERVE_STOCK__RATE", "500/s"),
        ("POSTRIDER__BROKER__AUDIT__URL", "memory://audit"),
    ]);
    let mut problems = config.unknown(&["reserve_stock"]);
    let resolved = config.resolve(&RESERVE, &mut problems);
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(resolved.settings.concurrency, 16);
    let retry = resolved.settings.retry;
    assert_eq!(retry.backoff.cap, Duration::from_secs(60));
    assert_eq!(retry.max_age, Some(Duration::from_secs(3600)));
    assert_eq!(resolved.settings.breaker, Some(Breaker::DEFAULT));
    let window = Duration::from_secs(24 * 3600);
    assert_eq!(resolved.settings.dedup, Some(Dedup { window, key: None }));
    assert_eq!(config.dedup_url().as_deref(), Some("redis://marks"));
    let by_field = Settings {
        dedup: Some(Dedup {
            window: Duration::from_secs(1),
            key: Some("id"),
        }),
        ..RESERVE
    };
    let resolved = config.resolve(&by_field, &mut problems);
    let key = Some("id");
    assert_eq!(
        resolved.settings.dedup,
        Some(Dedup { window, key }),
        "the window alone"
    );
    assert_eq!(
        resolved.settings.rate,
        Some(Rate {
            count: 500,
            per: Duration::from_secs(1)
        })
    );
    assert_eq!(resolved.group.as_deref(), Some("other"));
    assert_eq!(
        config.brokers().collect::<Vec<_>>(),
        [("audit", "memory://audit")]
    );
}

#[test]
fn backoffs() {
    let (base, cap) = (Duration::from_secs(1), Duration::from_secs(30));
    for (text, expected) in [
        ("1s..30s", Backoff::new(base, cap)),
        ("exponential 1s..30s", Backoff::new(base, cap)),
        ("linear 1s..30s", Backoff::linear(base, cap)),
        ("linear  1s .. 30s", Backoff::linear(base, cap)),
        ("30s", Backoff::new(cap, cap)),
        ("fixed 30s", Backoff::new(cap, cap)),
    ] {
        assert_eq!(backoff(text), Some(expected), "{text}");
    }
    for wrong in [
        "",
        "fixed 1s..30s",
        "linear 1s",
        "linear",
        "cubic 1s..2s",
        "2s..1s",
        "linear 2s..1s",
    ] {
        assert_eq!(backoff(wrong), None, "{wrong}");
    }
}

#[test]
fn every_mistake_is_reported_with_its_place() {
    let config = from(&[
        ("POSTRIDER__RESERVE_STOCK__CONCURENCY", "16"),
        ("POSTRIDER__RESERVE_STOCK__TIMEOUT", "soon"),
        ("POSTRIDER__RESERVE_STOCK__DEDUP_WINDOW", "0s"),
        ("POSTRIDER__RESERVE__TIMEOUT", "1s"),
        ("POSTRIDER__BROKER__URL", "kafka://k"),
        ("POSTRIDER_RESERVE_STOCK_CONCURRENCY", "16"),
        ("POSTRIDER_APP__NAME", "shop"),
        ("POSTRIDER_BROKER_AUDIT_URL", "kafka://k"),
        ("POSTRIDER_SERVICE_PORT", "80"),
    ]);
    let mut problems = config.unknown(&["reserve_stock"]);
    config.resolve(&RESERVE, &mut problems);
    let text = problems.join("\n");
    for part in [
        "POSTRIDER__RESERVE_STOCK__CONCURENCY: `concurency` is unknown; known keys: breaker_failures, breaker_pause, concurrency",
        "POSTRIDER__RESERVE_STOCK__TIMEOUT is \"soon\"; allowed is a duration",
        "POSTRIDER__RESERVE_STOCK__DEDUP_WINDOW is \"0s\"; allowed is a duration above zero",
        "POSTRIDER__RESERVE__TIMEOUT: there is no listener `reserve`; listeners: reserve_stock",
        "POSTRIDER__BROKER__URL: the main broker is the one in BROKER_URL",
        "POSTRIDER_RESERVE_STOCK_CONCURRENCY is not read: write POSTRIDER__RESERVE_STOCK__CONCURRENCY",
        "POSTRIDER_APP__NAME is not read: write POSTRIDER__APP__NAME",
        "POSTRIDER_BROKER_AUDIT_URL is not read: write POSTRIDER__BROKER__AUDIT__URL",
    ] {
        assert!(text.contains(part), "{text}");
    }
    // As Kubernetes names what it tells of a service.
    assert!(!text.contains("SERVICE_PORT"), "{text}");
    let wrong = [("POSTRIDER__CONCURRENCY".to_owned(), "1".to_owned())];
    assert!(Config::default().read_variables(wrong.into_iter()).is_err());
}

#[test]
fn sizes_are_read_as_the_attribute_reads_them() {
    let read = |text: &str| {
        let config = from(&[("POSTRIDER__RESERVE_STOCK__MAX_SIZE", text)]);
        let mut problems = Vec::new();
        let size = config.resolve(&RESERVE, &mut problems).settings.max_size;
        (size, problems.len())
    };
    assert_eq!(read("64KiB"), (Some(65_536), 0));
    assert_eq!(read("1 MB"), (Some(1_000_000), 0));
    assert_eq!(read("512"), (Some(512), 0));
    for none in ["0", "0KiB", "KiB", "-1", "1.5MB", "64kib", "99999999999GiB"] {
        assert_eq!(read(none), (None, 1), "{none}");
    }
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_text_is_refused_and_not_shown() {
    use std::os::unix::ffi::OsStringExt;
    let read = |name: &str| {
        let value = OsString::from_vec(b"amqp://secret\xff".to_vec());
        Config::default().read_variables([(name.into(), value)].into_iter())
    };
    let told = read("POSTRIDER__APP__URL").unwrap_err().to_string();
    assert_eq!(told, "the value of POSTRIDER__APP__URL is not UTF-8");
    assert!(read("PATH").is_ok(), "what is not ours may be anything");
}

const WORDS: [&str; 32] = [
    "1",
    "0",
    "9",
    "18446744073709551616",
    "s",
    "ms",
    "m",
    "h",
    "y",
    "us",
    " ",
    "..",
    ".",
    "/",
    "/s",
    "/m",
    "linear ",
    "fixed ",
    "exponential ",
    "true",
    "false",
    "declare",
    "verify",
    "-",
    "+",
    "\u{e4}",
    "\0",
    "\n",
    "e9",
    "200ms",
    "30s",
    "5",
];

fn of_words(words: &[u8]) -> String {
    words
        .iter()
        .map(|&word| WORDS[usize::from(word) % WORDS.len()])
        .collect()
}

/// Whatever a value is: it is taken, or told to be wrong, and what is taken is within its bounds.
#[test]
fn any_value_is_taken_or_told() {
    bolero::check!()
        .with_type::<Vec<(u8, Vec<u8>)>>()
        .for_each(|values| {
            let mut config = Config::default();
            for (key, words) in values {
                let key = LISTENER_KEYS[usize::from(*key) % LISTENER_KEYS.len()].to_ascii_uppercase();
                let name = format!("POSTRIDER__RESERVE_STOCK__{key}");
                config
                    .read_variables([(name, of_words(words))].into_iter())
                    .unwrap();
            }
            let mut problems = config.unknown(&["reserve_stock"]);
            let Resolved { settings, .. } = config.resolve(&RESERVE, &mut problems);
            assert!(settings.concurrency > 0 && settings.retry.attempts > 0 && settings.prefetch != Some(0));
            let backoff = settings.retry.backoff;
            assert!(!backoff.base.is_zero() && backoff.base <= backoff.cap);
            assert!(backoff.wait(3) <= backoff.cap);
            assert!(
                settings.timeout != Some(Duration::ZERO) && settings.retry.max_age != Some(Duration::ZERO)
            );
            assert!(
                settings
                    .rate
                    .is_none_or(|rate| rate.count > 0 && !rate.per.is_zero())
            );
            for (key, entry) in config.sections.get("reserve_stock").into_iter().flatten() {
                let told = problems.iter().any(|problem| problem.starts_with(&entry.place));
                let changed = match key.as_str() {
                    "concurrency" => entry.value.trim().parse() == Ok(settings.concurrency),
                    "max_size" => settings.max_size.is_some(),
                    "enabled" => entry.value.trim().parse() == Ok(settings.enabled),
                    "timeout" => settings.timeout.is_some(),
                    "rate" => settings.rate.is_some(),
                    "retry_backoff" => super::backoff(entry.value.trim()) == Some(backoff),
                    _ => continue,
                };
                assert_eq!(told, !changed, "{key} {:?} {problems:?}", entry.value);
            }
        });
}

/// Whatever the names of variables are: each is refused, unknown, or known.
#[test]
fn any_variable_is_known_or_told() {
    bolero::check!()
        .with_type::<Vec<(String, String)>>()
        .for_each(|variables| {
            for (name, value) in variables {
                let mut config = Config::default();
                let name = format!("{PREFIX}{name}");
                if config
                    .read_variables([(name.clone(), value.clone())].into_iter())
                    .is_ok()
                {
                    let told = config
                        .unknown(&["reserve_stock"])
                        .iter()
                        .any(|told| told.starts_with(&name));
                    let known = config.sections.keys().all(|section| {
                        section == "app" || section == "reserve_stock" || section.starts_with("broker.")
                    });
                    assert!(told || known, "{name:?}");
                }
            }
        });
}

#[test]
fn any_file_is_read_or_refused() {
    const WORDS: [&str; 20] = [
        "[app]\n",
        "[broker]\n",
        "[broker.audit]\n",
        "[reserve_stock]\n",
        "[[x]]\n",
        "[Reserve_Stock]\n",
        "url",
        "name",
        "concurrency",
        "=",
        "\"a\"",
        "1",
        "1.5",
        "true",
        "[1]",
        "{a=1}",
        "1979-05-27",
        "\n",
        "\u{feff}",
        "'",
    ];
    bolero::check!()
        .with_type::<(Vec<u8>, String)>()
        .for_each(|(words, other)| {
            let text: String = words
                .iter()
                .map(|&word| WORDS[usize::from(word) % WORDS.len()])
                .collect();
            for text in [&text, other] {
                let mut config = Config::default();
                if let Err(error) = config.read_text(text, &"postrider.toml") {
                    assert_eq!(error.kind(), ErrorKind::Config);
                    continue;
                }
                let Ok(table) = text.parse::<toml::Table>() else {
                    panic!("{text:?}")
                };
                let mut problems = config.unknown(&["reserve_stock"]);
                config.resolve(&RESERVE, &mut problems);
                // A section without a key says nothing.
                let filled = table
                    .values()
                    .any(|section| section.as_table().is_some_and(|keys| !keys.is_empty()));
                let empty = table.get("broker").is_some();
                assert!(empty || filled != config.sections.is_empty(), "{text:?}");
            }
        });
}

#[test]
fn a_mistake_in_the_file_is_told_without_what_is_written_there() {
    let text = "[broker.audit]\nurl = \"amqp://u:s3cret@h\n";
    let error = Config::default()
        .read_text(text, &"the file")
        .unwrap_err()
        .to_string();
    assert!(error.contains("the file is not TOML, line 2"), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
}
