#![doc = include_str!("docs.md")]
#![forbid(unsafe_code)]

mod case;
mod cases;
mod erased;
mod failure;
mod harness;
mod journal;
mod main_function;
mod member;
mod random;
mod report;
mod runner;
mod scene;
mod sender;

pub use case::Case;
pub use cases::cases;
pub use harness::{Fault, Harness, Tuning, Unsupported};
pub use main_function::run_tests;
pub use polybus_core::BoxError;
pub use report::{CaseReport, Report, Verdict};
pub use runner::run;

/// Makes a test file the conformance suite of a transport: `polybus_conformance::main!(MyHarness);`
///
/// The file's target is declared with `harness = false`. See the [crate's docs](crate).
#[macro_export]
macro_rules! main {
    ($harness:ty) => {
        fn main() -> ::std::process::ExitCode {
            $crate::run_tests::<$harness>()
        }
    };
}
