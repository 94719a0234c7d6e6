//! Rounds of chaos with the driver as a process of its own, so that an interrupt finds it and it cleans up.
//!
//! `POSTRIDER_CHAOS=30m` goes on with random faults for that long. What the driver prints is not captured: a line a round.

use std::process::Command;

/// Plays rounds; fails if one of them does.
fn chaos(arguments: &[&str]) {
    let status = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(arguments)
        .status()
        .unwrap();
    assert!(status.success(), "chaos {}: {status}", arguments.join(" "));
}

/// What every broker is put through each time; the rest comes by chance in a soak.
fn short(broker: &str) {
    chaos(&[
        "--broker",
        broker,
        "--fault",
        "consumer-kill,broker-kill,partition",
    ]);
}

/// The round is good if the checker finds what the bug loses.
fn caught(bug: &str, fault: &str) {
    chaos(&["--broker", "redis", "--fault", fault, "--planted", bug]);
}

mod kafka {
    #[test]
    fn rounds_of_chaos() {
        super::short("kafka");
    }
}

mod rabbitmq {
    #[test]
    fn rounds_of_chaos() {
        super::short("rabbitmq");
    }
}

mod redis {
    #[test]
    fn rounds_of_chaos() {
        super::short("redis");
    }

    #[test]
    fn rounds_of_chaos_with_pubsub() {
        super::short("redis-pubsub");
    }

    #[test]
    fn rounds_of_chaos_catch_an_ack_before_the_handler() {
        super::caught("ack-before-handler", "consumer-kill");
    }

    #[test]
    fn rounds_of_chaos_catch_an_ack_before_the_copy() {
        super::caught("ack-before-copy", "dead-letters-refused");
    }

    #[test]
    fn rounds_of_chaos_catch_auto_commit() {
        super::caught("auto-commit", "consumer-kill");
    }
}

mod soak {
    /// On the brokers of `POSTRIDER_TEST_BROKERS`, or on all.
    #[test]
    fn rounds_of_chaos() {
        let Ok(long) = std::env::var("POSTRIDER_CHAOS") else {
            println!("POSTRIDER_CHAOS is not set: no soak");
            return;
        };
        let brokers = std::env::var("POSTRIDER_TEST_BROKERS").unwrap_or_default();
        let mut known: Vec<&str> = ["kafka", "rabbitmq", "redis"]
            .into_iter()
            .filter(|&broker| brokers.is_empty() || brokers.split(',').any(|asked| asked == broker))
            .collect();
        if known.contains(&"redis") {
            known.push("redis-pubsub");
        }
        super::chaos(&["--broker", &known.join(","), "--for", &long]);
    }
}
