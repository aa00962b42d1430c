//! The program of a test file: the suite behind the command line of `cargo test`.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Trial};
use polybus_core::BoxError;
use tokio::runtime::Runtime;

use crate::case::Case;
use crate::cases::cases;
use crate::harness::Harness;
use crate::report::{CaseReport, Report, Verdict};
use crate::runner::{Stage, stop};

/// How long the tasks of transports may take to end after the last case.
const WIND_DOWN: Duration = Duration::from_secs(10);

/// Runs the suite as the program of a test target, with the arguments of `cargo test`. What
/// [`main!`](crate::main!) calls.
pub fn run_tests<H: Harness>() -> ExitCode {
    let arguments = Arguments::from_args();
    if arguments.list {
        return libtest_mimic::run(&arguments, listed()).exit_code();
    }
    match run_with::<H>(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("the conformance suite could not run: {error}");
            ExitCode::from(101)
        }
    }
}

fn run_with<H: Harness>(mut arguments: Arguments) -> Result<ExitCode, BoxError> {
    let runtime = Arc::new(
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .build()?,
    );
    let harness = Arc::new(runtime.block_on(H::start())?);
    let stage = runtime.block_on(Stage::new(harness.clone()));
    let conclusion = stage.as_ref().ok().map(|stage| {
        arguments.test_threads.get_or_insert(stage.parallel());
        let reports = Arc::new(Mutex::new(Vec::new()));
        let conclusion = libtest_mimic::run(&arguments, trials(stage, &runtime, &reports));
        print_summary(&reports);
        conclusion
    });
    let stopped = match stage {
        Ok(stage) => {
            drop(stage);
            runtime.block_on(stop(harness))
        }
        Err(error) => runtime.block_on(stop(harness)).and(Err(error)),
    };
    if let Ok(runtime) = Arc::try_unwrap(runtime) {
        runtime.shutdown_timeout(WIND_DOWN);
    }
    stopped?;
    let conclusion = conclusion.expect("without a stage there was an error above");
    Ok(conclusion.exit_code())
}

/// The cases for `--list`, which needs no server.
fn listed() -> Vec<Trial> {
    let trial = |case: &Case| Trial::test(case.name(), || Ok(()));
    cases().map(trial).collect()
}

fn trials(
    stage: &Stage,
    runtime: &Arc<Runtime>,
    reports: &Arc<Mutex<Vec<CaseReport>>>,
) -> Vec<Trial> {
    let trial = |case: &'static Case| {
        let (stage, runtime, reports) = (stage.clone(), runtime.clone(), reports.clone());
        Trial::ignorable_test(case.name(), move || {
            let report = runtime.block_on(stage.run(case));
            let verdict = report.verdict.clone();
            let mut reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
            reports.push(report);
            match verdict {
                Verdict::Passed => Ok(Completion::Completed),
                Verdict::Ignored(reason) => Ok(Completion::ignored_with(reason)),
                Verdict::Failed(why) => Err(why.into()),
            }
        })
    };
    cases().map(trial).collect()
}

fn print_summary(reports: &Mutex<Vec<CaseReport>>) {
    let mut cases = reports
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    // What failed has been printed with its reason already.
    cases.retain(|case| !matches!(case.verdict, Verdict::Failed(_)));
    let failed = reports.lock().unwrap_or_else(PoisonError::into_inner).len() - cases.len();
    let report = Report { cases };
    for case in report.ignored() {
        if let Verdict::Ignored(reason) = &case.verdict {
            println!("ignored {}: {reason}", case.case.name());
        }
    }
    println!(
        "conformance: {} cases run: {} passed, {failed} failed; {} ignored\n",
        report.passed().count() + failed,
        report.passed().count(),
        report.ignored().count()
    );
}
