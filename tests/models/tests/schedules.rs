//! The models under schedules drawn at random, and under ones that are made to find rare ones.
//!
//! `POSTRIDER_SCHEDULES` says how many of each; a failure prints the schedule that led to it.

/// How many schedules of each kind, unless `POSTRIDER_SCHEDULES` says otherwise.
const USUAL: usize = 3_000;

fn check(model: fn()) {
    let schedules = match std::env::var("POSTRIDER_SCHEDULES") {
        Ok(text) => text.parse().expect("POSTRIDER_SCHEDULES is a number"),
        Err(_) => USUAL,
    };
    shuttle::check_random(model, schedules);
    // Few changes of who goes on, at any place: what needs a certain order of a few steps is found sooner.
    shuttle::check_pct(model, schedules, 3);
}

#[test]
fn a_drain_leaves_no_delivery_without_a_verdict() {
    check(postrider_models::drain);
}

#[test]
fn a_revoked_lane_is_given_up_once_when_nothing_of_it_is_unsettled() {
    check(postrider_models::revoke);
}
