//! The suite tests itself: the memory transport passes it, and with a flaw built in it fails
//! the cases that are there for that flaw. Which ones fail for which flaw is printed.
//!
//! A flaw's name as an argument runs that one alone: `cargo test -p polybus-conformance --test
//! suite_catches -- LosesOnCancel`.

mod admin;
mod flawed;
mod flaws;
mod store;

use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use polybus_conformance::{
    BoxError, Harness, Report, Tuning, Unsupported, Verdict, run, run_tests,
};
use polybus_core::transport::Outgoing;
use polybus_core::{Event, Topic};
use polybus_memory::{MemoryConfig, MemoryTransport};

use flawed::FlawedTransport;
use flaws::{CAUGHT_BY, Caught, Flaw};

tokio::task_local! {
    static FLAW: Flaw;
}

/// What a topic holds in these tests.
const TOPIC_BYTES: usize = 16 * 1024 * 1024;

struct FlawedHarness {
    broker: FlawedTransport,
    flaw: Flaw,
}

impl Harness for FlawedHarness {
    type Transport = FlawedTransport;

    async fn start() -> Result<Self, BoxError> {
        let config = MemoryConfig::default().max_bytes(TOPIC_BYTES as u64);
        let flaw = FLAW.get();
        let broker = FlawedTransport::new(MemoryTransport::with_config(&config)?, flaw);
        Ok(Self { broker, flaw })
    }

    async fn connect(&self) -> Result<FlawedTransport, BoxError> {
        Ok(self.broker.clone())
    }

    fn rejected(&self, topic: &Topic) -> Result<Outgoing, Unsupported> {
        let larger_than_a_topic = Event::builder("conformance.too.large")
            .source("polybus-memory")
            .data(vec![0; TOPIC_BYTES + 1])
            .build()
            .map_err(|error| Unsupported::because(error.to_string()))?;
        Ok(Outgoing::new(topic.clone(), larger_than_a_topic))
    }

    fn tuning(&self) -> Tuning {
        let quick = Tuning::default()
            .volume(400)
            .idle(Duration::from_millis(100))
            .takeover_after(Duration::from_millis(50))
            .parallel(16);
        match self.flaw {
            // Nothing is to be lost: there is no hurry to find that out.
            Flaw::None => quick,
            // In memory what does not come at once does not come at all.
            _ => quick
                .patience(Duration::from_secs(1))
                .deadline(Duration::from_secs(4)),
        }
    }
}

type Table = Arc<Mutex<Vec<(Flaw, Vec<&'static str>)>>>;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(4);
    let runtime = Arc::new(tokio::runtime::Runtime::new().expect("a runtime can be made"));
    let table = Table::default();
    let mut trials = vec![trial(&runtime, &table, Flaw::None, passes_all)];
    for caught in CAUGHT_BY {
        let check = |report: &Report| fails_as_told(report, caught);
        trials.push(trial(&runtime, &table, caught.0, check));
    }
    trials.push(Trial::test("missing_server_fails", missing_server_fails));
    let conclusion = libtest_mimic::run(&arguments, trials);
    let mut table = table.lock().expect("no holder of the lock panics");
    table.sort_by_key(|(flaw, _)| *flaw as usize);
    for (flaw, failed) in table.iter() {
        println!(
            "{:<24} {:>2} cases fail: {}",
            format!("{flaw:?}"),
            failed.len(),
            failed.join(", ")
        );
    }
    conclusion.exit_code()
}

fn trial<C>(runtime: &Arc<tokio::runtime::Runtime>, table: &Table, flaw: Flaw, check: C) -> Trial
where
    C: Fn(&Report) -> Result<(), Failed> + Send + 'static,
{
    let (runtime, table) = (runtime.clone(), table.clone());
    Trial::test(format!("{flaw:?}"), move || {
        let running = FLAW.scope(flaw, run::<FlawedHarness>(""));
        let report = runtime.block_on(running)?;
        let failed = report.failed().map(|failed| failed.case.name()).collect();
        table
            .lock()
            .expect("no holder of the lock panics")
            .push((flaw, failed));
        check(&report)
    })
}

fn passes_all(report: &Report) -> Result<(), Failed> {
    let failed = report.failed().count();
    let enough = report.passed().count() >= 24;
    (failed == 0 && enough)
        .then_some(())
        .ok_or_else(|| report.to_string().into())
}

fn fails_as_told(report: &Report, (_, caught_by, word): &Caught) -> Result<(), Failed> {
    let told = |name: &&&str| {
        report.failed().any(|failed| {
            let why = matches!(&failed.verdict, Verdict::Failed(why) if why.contains(word));
            failed.case.name() == **name && why
        })
    };
    let missed: Vec<_> = caught_by.iter().filter(|name| !told(name)).collect();
    missed
        .is_empty()
        .then_some(())
        .ok_or_else(|| format!("not noticed with `{word}` by {missed:?}\n{report}").into())
}

struct NoServer;

impl Harness for NoServer {
    type Transport = MemoryTransport;

    async fn start() -> Result<Self, BoxError> {
        Err("no server was found; install one".into())
    }

    async fn connect(&self) -> Result<MemoryTransport, BoxError> {
        Ok(MemoryTransport::new())
    }
}

/// Neither an empty pass nor ignored cases.
fn missing_server_fails() -> Result<(), Failed> {
    let code = format!("{:?}", run_tests::<NoServer>());
    let failure = format!("{:?}", ExitCode::from(101));
    (code == failure)
        .then_some(())
        .ok_or_else(|| format!("without a server the suite ended with {code}").into())
}
