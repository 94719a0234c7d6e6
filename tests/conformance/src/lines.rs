//! The failure contract, line by line, and the cases that hold each line.

/// A line of the contract, and the names of the cases that show whether it holds.
pub type Line = (&'static str, &'static [&'static str]);

/// Every line. Every case belongs to one.
pub const LINES: &[Line] = &[
    (
        "a confirmed message reaches its groups, content and headers intact",
        &[
            "hundred_arrive_intact",
            "twenty_topics_do_not_mix",
            "fifty_publishers_at_once",
            "an_idle_subscription_wakes",
            "odd_contents_arrive_intact",
            "two_hundred_headers",
            "broker_control_headers_divert_nothing",
            "the_largest_payload_passes",
        ],
    ),
    (
        "every message of a batch has its own answer; what is too large is refused alone",
        &[
            "nobody_receives",
            "answers_match_their_messages",
            "five_thousand_in_one_batch",
            "too_large_is_refused_alone",
        ],
    ),
    (
        "each group sees every message, its instances share them",
        &["two_groups_each_see_all", "instances_of_a_group_share"],
    ),
    (
        "a group that was declared misses nothing while no instance runs",
        &[
            "a_declared_group_misses_nothing",
            "a_new_group_starts_with_its_declaration",
            "planning_again_changes_nothing",
            "subscribing_again_and_again_loses_nothing",
        ],
    ),
    (
        "a new group may start with retained history",
        &["earliest_reads_history"],
    ),
    (
        "acknowledged is final, in any order; what is not comes again",
        &[
            "acknowledged_is_final",
            "out_of_order_acknowledgements",
            "calls_side_by_side",
            "a_held_delivery_stays_ours",
            "what_a_closed_instance_held_goes_to_a_peer",
            "what_a_lost_instance_held_goes_to_a_peer",
            "what_a_dropped_subscription_held_goes_to_a_peer",
        ],
    ),
    (
        "released comes again, the attempt not used up; redeliveries are counted",
        &[
            "released_comes_again",
            "released_thirty_times_is_not_lost",
            "redeliveries_are_counted",
        ],
    ),
    (
        "a late or second acknowledgement touches nothing",
        &["a_stale_token_touches_nothing", "settling_twice_touches_nothing"],
    ),
    (
        "a retry goes to its group only, never early, and blocks nothing",
        &[
            "a_retry_returns_to_its_group_only",
            "a_retry_is_never_early_and_hardly_late",
            "a_retry_at_once",
            "a_retry_blocks_nothing",
            "retries_come_in_due_order",
            "a_topic_message_for_later_is_never_early",
        ],
    ),
    ("a retry survives every client", &["retries_survive_all_clients"]),
    (
        "attempts cannot be spoofed by a producer",
        &["a_spoofed_attempt_is_not_trusted", "an_inbox_has_no_back_door"],
    ),
    (
        "copies are confirmed before the original is acknowledged",
        &[
            "several_copies_before_one_acknowledgement",
            "a_copy_that_fails_leaves_the_original",
        ],
    ),
    (
        "dead letters keep everything, however large",
        &[
            "dead_letters_keep_everything",
            "the_largest_message_can_be_given_up",
            "groups_share_a_dead_letter_topic",
        ],
    ),
    (
        "looking at dead letters disturbs nobody",
        &["browsing_disturbs_nobody", "browsing_goes_page_by_page"],
    ),
    (
        "a replay goes to the group that gave up, once; purged is gone",
        &[
            "replay_goes_to_its_group_only",
            "replay_is_idempotent",
            "replays_are_counted",
            "purged_is_gone",
        ],
    ),
    (
        "no more in flight than asked for; paused brings nothing",
        &[
            "in_flight_is_a_bound",
            "asking_for_none_brings_news_only",
            "paused_brings_nothing",
            "cancelled_receives_lose_nothing",
        ],
    ),
    (
        "what one instance may not take, a peer gets",
        &["what_one_may_not_take_a_peer_gets"],
    ),
    (
        "`ordered`: the order of each key, across a handover and a release",
        &["order_by_key_across_a_handover", "released_keeps_its_place"],
    ),
    (
        "`broadcast`: a copy for every instance, gone with it",
        &["every_instance_gets_a_copy", "a_copy_ends_with_its_instance"],
    ),
    (
        "every mismatch is listed before anything starts; `verify` makes nothing",
        &[
            "illegal_names_are_refused",
            "every_problem_is_told",
            "verify_makes_nothing",
            "longest_names_pass",
        ],
    ),
    (
        "backlogs and depths are the broker's own",
        &["a_backlog_is_told", "depths_are_told"],
    ),
    (
        "closing is final, wakes whoever waits, and gives back what was held",
        &["close_is_final_and_idempotent", "close_wakes_whoever_waits"],
    ),
    (
        "nothing confirmed is lost where the broker restarts under load",
        &["broker_restart"],
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::LINES;
    use crate::cases;

    #[test]
    fn every_case_belongs_to_one_line() {
        let listed: Vec<&str> = LINES.iter().flat_map(|(_, cases)| *cases).copied().collect();
        let once: BTreeSet<&str> = listed.iter().copied().collect();
        assert_eq!(once.len(), listed.len(), "a case is in two lines");
        let all: BTreeSet<&str> = cases::ALL.iter().map(|(name, _)| *name).collect();
        assert_eq!(once, all);
    }
}
