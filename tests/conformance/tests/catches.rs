//! Every case can fail: for each there is a fault that it catches, and without a fault it passes over the same wrapper.

mod faulty;

use std::any::Any;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use postrider_conformance::cases::{self, Case};
use postrider_conformance::run;

use faulty::{Fault, Faulty};

macro_rules! case {
    ($group:ident::$case:ident) => {
        (stringify!($case), |run| Box::pin(cases::$group::$case(run)))
    };
}

/// Faults, and the cases that must catch each.
macro_rules! catches {
    ($($fault:ident: $($group:ident::$case:ident),+;)*) => {
        vec![$($((Fault::$fault, case!($group::$case))),+),*]
    };
}

fn expected() -> Vec<(Fault, Case)> {
    catches! {
        DropsSome: delivery::fifty_publishers_at_once, publishing::five_thousand_in_one_batch, lifecycle::broker_restart;
        Doubles: delivery::hundred_arrive_intact, groups::two_groups_each_see_all;
        MixesTopics: delivery::twenty_topics_do_not_mix;
        LossyPayload: delivery::hundred_arrive_intact, content::odd_contents_arrive_intact;
        CutsPayload: content::the_largest_payload_passes;
        FewHeaders: content::two_hundred_headers;
        ObeysControlHeaders: content::broker_control_headers_divert_nothing;
        RefusesWholeBatch: content::too_large_is_refused_alone;
        AnswersMixedUp: publishing::answers_match_their_messages;
        PretendsReceived: publishing::nobody_receives;
        HasBackDoor: inbox::an_inbox_has_no_back_door;

        Early: inbox::a_retry_is_never_early_and_hardly_late, inbox::a_topic_message_for_later_is_never_early,
            inbox::a_retry_blocks_nothing;
        Late: inbox::a_retry_is_never_early_and_hardly_late;
        FirstInFirstOut: inbox::retries_come_in_due_order;
        ForgetsWaiting: inbox::retries_survive_all_clients;
        WritesAtClose: inbox::retries_survive_all_clients;
        BlocksWhileWaiting: inbox::a_retry_blocks_nothing;

        MergesGroups: groups::two_groups_each_see_all;
        EveryoneGetsAll: groups::instances_of_a_group_share;
        DeclaresAtOpen: groups::a_declared_group_misses_nothing, plan::planning_again_changes_nothing;
        StartsAtEarliest: groups::a_new_group_starts_with_its_declaration;
        StartsAtNew: groups::earliest_reads_history;
        CountsNothing: groups::redeliveries_are_counted;
        Unordered: order::order_by_key_across_a_handover, order::released_keeps_its_place;
        SharesBroadcast: broadcast::every_instance_gets_a_copy, broadcast::a_copy_ends_with_its_instance;

        Sleepy: delivery::an_idle_subscription_wakes;
        GivesTooMany: flow::in_flight_is_a_bound, flow::asking_for_none_brings_news_only;
        Hoards: flow::what_one_may_not_take_a_peer_gets;
        IgnoresPause: flow::paused_brings_nothing;
        CancelLoses: flow::cancelled_receives_lose_nothing;
        TrustsHeaders: inbox::a_spoofed_attempt_is_not_trusted;
        ForgetsReplays: dead_letters::replays_are_counted, inbox::a_retry_returns_to_its_group_only;

        AcksBeforeEmit: inbox::a_copy_that_fails_leaves_the_original;
        LeaksInbox: inbox::a_retry_returns_to_its_group_only, inbox::a_retry_at_once;
        LosesRelease: settling::released_comes_again, settling::released_thirty_times_is_not_lost,
            order::released_keeps_its_place;
        LimitsReleases: settling::released_thirty_times_is_not_lost;
        ForgetsAcks: settling::acknowledged_is_final, settling::calls_side_by_side;
        AcksAllBefore: settling::out_of_order_acknowledgements;
        FirstCopyOnly: inbox::several_copies_before_one_acknowledgement;
        NoHeadroom: content::the_largest_message_can_be_given_up;
        NamesSlots: settling::settling_twice_touches_nothing;
        DoneWhenStale: settling::a_stale_token_touches_nothing, lifecycle::close_is_final_and_idempotent;
        GivesHeldAway: settling::a_held_delivery_stays_ours;
        AcksAtClose: settling::what_a_closed_instance_held_goes_to_a_peer, settling::a_stale_token_touches_nothing,
            lifecycle::subscribing_again_and_again_loses_nothing;
        KeepsForEver: settling::what_a_lost_instance_held_goes_to_a_peer,
            settling::what_a_dropped_subscription_held_goes_to_a_peer;

        LossyLetters: dead_letters::dead_letters_keep_everything;
        BrowsingTakes: dead_letters::browsing_disturbs_nobody;
        SamePageAgain: dead_letters::browsing_goes_page_by_page;
        ReplaysToAll: dead_letters::replay_goes_to_its_group_only;
        ReplaysAgain: dead_letters::replay_is_idempotent;
        PurgesAll: dead_letters::purged_is_gone;
        MixesLetters: dead_letters::groups_share_a_dead_letter_topic;

        AcceptsNames: plan::illegal_names_are_refused;
        OneProblemOnly: plan::every_problem_is_told;
        VerifyDeclares: plan::verify_makes_nothing;
        PlanResets: plan::planning_again_changes_nothing;
        ShortNames: plan::longest_names_pass;
        WrongDepths: status::depths_are_told;
        DeclaresAtOpen: status::a_backlog_is_told;
        NeverCloses: lifecycle::close_is_final_and_idempotent, lifecycle::close_wakes_whoever_waits;
    }
}

#[test]
fn every_case_can_fail() {
    let expected = expected();
    let covered: BTreeSet<_> = expected.iter().map(|(_, (case, _))| *case).collect();
    let names = cases::ALL.iter().map(|(name, _)| name);
    let uncovered: Vec<_> = names.filter(|name| !covered.contains(*name)).collect();
    assert!(
        uncovered.is_empty(),
        "no fault shows that these can fail: {uncovered:?}"
    );
    let outcomes = run_all(expected, 32);
    let missed: Vec<_> = outcomes
        .iter()
        .filter(|(_, _, failure)| failure.is_none())
        .map(|(fault, case, _)| format!("{case} does not catch {fault:?}"))
        .collect();
    for (fault, case, failure) in &outcomes {
        println!(
            "{fault:?}: {case}: {}",
            failure.as_deref().unwrap_or("NOT CAUGHT")
        );
    }
    assert!(missed.is_empty(), "{}", missed.join("; "));
}

#[test]
fn without_a_fault_every_case_passes() {
    let outcomes = run_all(cases::ALL.iter().map(|case| (Fault::None, *case)).collect(), 16);
    let failed: Vec<_> = outcomes
        .into_iter()
        .filter_map(|(_, case, failure)| failure.map(|failure| format!("{case}: {failure}")))
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("; "));
}

/// Runs each case, some at a time: they mostly wait. Answers how each failed.
fn run_all(all: Vec<(Fault, Case)>, at_once: usize) -> Vec<(Fault, &'static str, Option<String>)> {
    let mut outcomes = Vec::new();
    for some in all.chunks(at_once) {
        let begun: Vec<_> = some
            .iter()
            .map(|&(fault, (case, body))| {
                let attempt = move || catch_unwind(AssertUnwindSafe(|| run(Faulty::new(fault), case, body)));
                (fault, case, thread::spawn(attempt))
            })
            .collect();
        for (fault, case, running) in begun {
            let outcome = running.join().expect("what panics inside is caught");
            outcomes.push((fault, case, outcome.err().map(|failure| text(&*failure))));
        }
    }
    outcomes
}

fn text(failure: &(dyn Any + Send)) -> String {
    let text = failure.downcast_ref::<String>().cloned();
    text.or_else(|| failure.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_else(|| "a failure without a text".to_owned())
}
