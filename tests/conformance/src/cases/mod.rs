//! The cases, a file for each part of the contract.

pub mod delivery;

/// Every case: the one list.
#[doc(hidden)]
#[macro_export]
macro_rules! every_case {
    ($harness:expr) => {
        $crate::cases_of! { $harness; delivery:
            hundred_arrive_intact
            two_groups_each_see_all
        }
    };
}
