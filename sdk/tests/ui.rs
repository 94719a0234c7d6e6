//! What the macros accept, and what they and rustc say about everything else.
//!
//! The `.stderr` files are rustc's words as of 1.95; after a change of compiler or text, write them again with
//! `TRYBUILD=overwrite cargo test -p postrider --test ui` and read the difference.

#[test]
fn what_the_macros_say() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/listener/pass/*.rs");
    cases.compile_fail("tests/listener/fail/*.rs");
}
