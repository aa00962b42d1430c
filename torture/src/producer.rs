//! Publishes, and tells what it was told of each event.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use polybus::{Bus, Effect};
use tokio::time::{Instant, interval_at, sleep};

use crate::Failure;
use crate::children::end_with_parent;
use crate::journal::{Journal, Step, Told};
use crate::task::Task;

/// One in so many events is poison: a prime number, so that each key has some. A hang keeps the events of
/// its key waiting for seconds; more of them would be more than the consumers can bear.
const POISON_EVERY: usize = 601;

/// The pause after an event that was not accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Publishes until it is asked to end.
pub(crate) async fn run(task: Task) -> Result<(), Failure> {
    end_with_parent();
    let journal = Arc::new(Journal::open(&task.directory, &task.journal("producer"))?);
    // Heard from the first moment on: unheard, the signal would end the process in disorder.
    let mut shutdown = pin!(polybus::shutdown_signal());
    let bus = tokio::select! {
        biased;
        () = &mut shutdown => return Ok(()),
        bus = connect(&task) => bus,
    };
    journal.note(Step::Ready);
    let pace = Duration::from_secs_f64(task.keys as f64 / task.rate);
    let keys = (0..task.keys).map(|key| publish(&bus, &task, key, pace, &journal));
    tokio::select! {
        _ = join_all(keys) => {}
        () = &mut shutdown => {}
    }
    // What was on its way when the tasks were dropped has an intent and no outcome: it is unknown.
    let report = bus.close("10s").await?;
    if let Err(error) = report.into_result() {
        eprintln!("producer: {error}");
    }
    journal.note(Step::Done);
    Ok(())
}

/// Tries until the server is there.
async fn connect(task: &Task) -> Bus {
    loop {
        match task.bus().await {
            Ok(bus) => return bus,
            Err(error) => eprintln!("producer: {error}"),
        }
        sleep(PAUSE).await;
    }
}

/// Publishes the events of one key, one after the other.
async fn publish(bus: &Bus, task: &Task, key: usize, pace: Duration, journal: &Journal) {
    let begin = Instant::now() + pace.mul_f64(key as f64 / task.keys as f64);
    let mut ticks = interval_at(begin, pace);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for number in 0.. {
        ticks.tick().await;
        let poison = match (task.poison, (number * task.keys + key) % POISON_EVERY) {
            _ if task.deadly && key == 0 && number == 0 => "!abort",
            (true, 0) => ["!error", "!panic", "!hang"][number % 3],
            _ => "",
        };
        let id = format!("k{key}/{}-{number}{poison}", task.life);
        journal.note(Step::Intent { id: id.clone() });
        let event = bus.event("torture.event").id(id.clone());
        let event = event.key(format!("k{key}")).data("text/plain", id.clone());
        let (outcome, error) = match event.publish().await {
            Ok(_) => (Told::Accepted, None),
            Err(error) if error.effect() == Effect::NotApplied => (Told::Rejected, Some(error)),
            Err(error) => (Told::Unknown, Some(error)),
        };
        journal.note(Step::Outcome {
            id,
            outcome,
            error: error.as_ref().map(ToString::to_string),
        });
        if error.is_some() {
            sleep(PAUSE).await;
        }
    }
}
