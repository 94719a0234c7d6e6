//! The cases, a file for each part of the contract.

pub mod broadcast;
pub mod content;
pub mod dead_letters;
pub mod delivery;
pub mod flow;
pub mod groups;
pub mod inbox;
pub mod lifecycle;
pub mod order;
pub mod plan;
pub mod publishing;
pub mod settling;
pub mod status;

use crate::{CaseFuture, Run};

/// Every case, by the file it is in: the one list. Hands it to a macro of this crate, after that macro's own arguments.
#[doc(hidden)]
#[macro_export]
macro_rules! every_case {
    ($then:ident [$($arguments:tt)*]) => {
        $crate::$then! { [$($arguments)*]
            delivery: [
                hundred_arrive_intact
                twenty_topics_do_not_mix
                fifty_publishers_at_once
                an_idle_subscription_wakes
            ]
            content: [
                odd_contents_arrive_intact
                two_hundred_headers
                broker_control_headers_divert_nothing
                the_largest_payload_passes
                too_large_is_refused_alone
                the_largest_message_can_be_given_up
            ]
            groups: [
                two_groups_each_see_all
                instances_of_a_group_share
                a_declared_group_misses_nothing
                a_new_group_starts_with_its_declaration
                earliest_reads_history
                redeliveries_are_counted
            ]
            settling: [
                acknowledged_is_final
                out_of_order_acknowledgements
                calls_side_by_side
                what_a_closed_instance_held_goes_to_a_peer
                what_a_lost_instance_held_goes_to_a_peer
                what_a_dropped_subscription_held_goes_to_a_peer
                released_comes_again
                released_thirty_times_is_not_lost
                a_stale_token_touches_nothing
                settling_twice_touches_nothing
                a_held_delivery_stays_ours
            ]
            inbox: [
                a_retry_returns_to_its_group_only
                a_retry_is_never_early_and_hardly_late
                a_retry_at_once
                a_retry_blocks_nothing
                retries_come_in_due_order
                retries_survive_all_clients
                a_spoofed_attempt_is_not_trusted
                an_inbox_has_no_back_door
                several_copies_before_one_acknowledgement
                a_copy_that_fails_leaves_the_original
                a_topic_message_for_later_is_never_early
            ]
            dead_letters: [
                dead_letters_keep_everything
                browsing_disturbs_nobody
                browsing_goes_page_by_page
                replay_goes_to_its_group_only
                replay_is_idempotent
                replays_are_counted
                purged_is_gone
                groups_share_a_dead_letter_topic
            ]
            publishing: [
                nobody_receives
                answers_match_their_messages
                five_thousand_in_one_batch
            ]
            flow: [
                in_flight_is_a_bound
                what_one_may_not_take_a_peer_gets
                asking_for_none_brings_news_only
                paused_brings_nothing
                cancelled_receives_lose_nothing
            ]
            order: [
                order_by_key_across_a_handover
                released_keeps_its_place
            ]
            broadcast: [
                every_instance_gets_a_copy
                a_copy_ends_with_its_instance
            ]
            plan: [
                illegal_names_are_refused
                every_problem_is_told
                verify_makes_nothing
                planning_again_changes_nothing
                longest_names_pass
            ]
            status: [
                a_backlog_is_told
                depths_are_told
            ]
            lifecycle: [
                close_is_final_and_idempotent
                close_wakes_whoever_waits
                subscribing_again_and_again_loses_nothing
                broker_restart
            ]
        }
    };
}

/// A test for every case.
#[doc(hidden)]
#[macro_export]
macro_rules! test_cases {
    ([$harness:expr] $($group:ident: [$($case:ident)*])*) => {
        $($crate::some_cases! { $harness; $group: $($case)* })*
    };
}

/// A list of every case.
#[doc(hidden)]
#[macro_export]
macro_rules! list_cases {
    ([] $($group:ident: [$($case:ident)*])*) => {
        &[$($((stringify!($case), |run| Box::pin($crate::cases::$group::$case(run)))),*),*]
    };
}

/// A case: its name, as [`Harness::not_possible`](crate::Harness::not_possible) is asked, and its body, for
/// [`run`](crate::run()).
pub type Case = (&'static str, fn(Run) -> CaseFuture);

/// All cases, for whoever runs them in another way than [`cases!`](crate::cases!).
pub const ALL: &[Case] = every_case! { list_cases [] };
