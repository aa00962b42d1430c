//! Handles events, and tells each step.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use polybus::{BoxError, Bus, Context, Event, RawEvent, State, Transaction};
use tokio::time::sleep;

use crate::Failure;
use crate::children::end_with_parent;
use crate::journal::{Journal, Step};
use crate::task::{CrashPoint, Mutant, Task};

/// How long the work on an event takes.
const WORK: Duration = Duration::from_millis(2);

/// The pause between two attempts to begin.
const PAUSE: Duration = Duration::from_millis(200);

/// How many events pass a crash point before the process ends there: some are in every state then.
const CRASH_AT: u32 = 50;

/// What the handlers share.
#[derive(Clone)]
struct Worker {
    journal: Arc<Journal>,
    crash: Arc<Crash>,
    /// Where a mutant publishes, beside the transaction.
    beside: Option<Bus>,
}

/// Ends the process at a point of its work.
#[derive(Debug)]
pub(crate) struct Crash {
    point: Option<CrashPoint>,
    passed: AtomicU32,
}

impl Crash {
    pub(crate) fn new(point: Option<CrashPoint>) -> Self {
        Self {
            point,
            passed: AtomicU32::new(0),
        }
    }

    pub(crate) fn pass(&self, point: CrashPoint) {
        if self.point != Some(point) {
            return;
        }
        // Dead letters are rare.
        let at = if point == CrashPoint::DeadLetter {
            1
        } else {
            CRASH_AT
        };
        if self.passed.fetch_add(1, Ordering::AcqRel) + 1 >= at {
            std::process::abort();
        }
    }
}

/// Tells the end of a handler, also of one that is given up.
struct Ending<'a>(&'a Journal, &'a str);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let id = self.1.to_owned();
        self.0.note(Step::End { id });
    }
}

/// Handles until it is asked to end.
pub(crate) async fn run(task: Task) -> Result<(), Failure> {
    end_with_parent();
    let worker = Worker {
        journal: Arc::new(Journal::open(&task.directory, &task.journal("consumer"))?),
        crash: Arc::new(Crash::new(task.crash)),
        beside: None,
    };
    // Heard from the first moment on: unheard, the signal would end the process in disorder.
    let mut shutdown = pin!(polybus::shutdown_signal());
    let bus = tokio::select! {
        biased;
        () = &mut shutdown => return Ok(()),
        bus = connect(&task, &worker) => bus,
    };
    worker.journal.note(Step::Ready);
    bus.run_until(shutdown).await?;
    worker.journal.note(Step::Done);
    Ok(())
}

/// Tries until the server is there.
async fn connect(task: &Task, worker: &Worker) -> Bus {
    loop {
        match begin(task, worker).await {
            Ok(bus) => return bus,
            Err(error) => eprintln!("consumer {}: {error}", task.slot),
        }
        sleep(PAUSE).await;
    }
}

async fn begin(task: &Task, worker: &Worker) -> polybus::Result<Bus> {
    let bus = task.bus().await?;
    let mut worker = worker.clone();
    if task.mutant == Some(Mutant::CopyOutside) {
        worker.beside = Some(bus.clone());
    }
    let subscription = bus.subscribe("torture").state(worker);
    match task.copies {
        None => subscription.on_any(handle),
        // Not what comes of them.
        Some(_) => subscription.on_pattern("torture.*", copy),
    }
    .start()
    .await?;
    Ok(bus)
}

/// Handles an event, and publishes a copy of it in one step with its acknowledgement.
async fn copy(
    raw: RawEvent,
    context: Context,
    state: State<Worker>,
    tx: Transaction,
) -> Result<(), BoxError> {
    let event = raw.0.clone();
    let beside = state.0.beside.clone();
    handle(raw, context, state).await?;
    let copy = Event::builder("copy.event")
        .source("torture")
        .id(event.id());
    let copy = copy
        .key(event.key().unwrap_or_default())
        .data(event.id().to_owned());
    match beside {
        None => tx.publish(copy.build()?).await?,
        Some(bus) => drop(bus.publish(copy.build()?).await?),
    }
    Ok(())
}

async fn handle(
    RawEvent(event): RawEvent,
    context: Context,
    State(worker): State<Worker>,
) -> Result<(), BoxError> {
    let id = event.id();
    worker.journal.note(Step::Start {
        id: id.to_owned(),
        attempt: context.attempt(),
    });
    let _ending = Ending(&worker.journal, id);
    worker.crash.pass(CrashPoint::BeforeEffect);
    sleep(WORK).await;
    match id.split_once('!').map(|(_, poison)| poison) {
        Some("error") => return Err("as the event says".into()),
        Some("panic") => panic!("as the event says"),
        Some("hang") => std::future::pending().await,
        Some("abort") => {
            worker.journal.note(Step::Abort { id: id.to_owned() });
            std::process::abort();
        }
        _ => {}
    }
    worker.journal.note(Step::Effect { id: id.to_owned() });
    worker.crash.pass(CrashPoint::AfterEffect);
    Ok(())
}
