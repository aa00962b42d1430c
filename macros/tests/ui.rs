//! What the compiler says to a wrong `#[derive(Event)]`. After a wanted change of a text:
//! `TRYBUILD=overwrite cargo test -p polybus-macros --test ui`, then read the difference.

#[test]
fn errors_teach() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
