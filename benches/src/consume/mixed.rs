//! Handlers that take their time, over keys on one partition: how near the runtime comes to the
//! least time there is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use polybus::{BoxError, RawEvent, State, Text};

use crate::Bench;
use crate::local::{accepted, bus, close};
use crate::measure::{Rounds, Sample, Stopwatch, check};
use crate::report::Row;
use crate::shape::Shape;
use crate::tally::Tally;

const EVENTS: usize = 10_000;
const KEYS: usize = 100;
const CONCURRENCY: usize = 100;

/// The time that handlers took, by key, as they measured it.
#[derive(Clone, Default)]
struct Work {
    tally: Tally,
    by_key: Arc<Mutex<HashMap<Text, Duration>>>,
}

impl Work {
    fn add(&self, key: &str, taken: Duration) {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        *by_key.entry(key.into()).or_default() += taken;
        drop(by_key);
        self.tally.count(1);
    }

    /// The longer of all work shared out evenly, and the work of one key.
    fn ideal(&self) -> f64 {
        let by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let all: Duration = by_key.values().sum();
        let longest = by_key.values().max().copied().unwrap_or_default();
        all.div_f64(CONCURRENCY as f64).max(longest).as_secs_f64()
    }
}

async fn work(State(work): State<Work>, RawEvent(event): RawEvent) {
    let begin = Instant::now();
    tokio::time::sleep(Duration::from_micros(fastrand::u64(0..=5_000))).await;
    work.add(event.key().unwrap_or_default(), begin.elapsed());
}

/// Events of 0 to 5 ms. The raw side is the ideal for the time that the handlers took in truth.
pub async fn against_the_ideal(case: &str, bench: &mut Bench) -> Result<(), BoxError> {
    let events = bench.events(EVENTS);
    let shape = Shape::with_keys(200, KEYS);
    let settings =
        format!("[subscriptions.work]\nconcurrency = {CONCURRENCY}\nmax_in_flight = {EVENTS}\n");
    let mut rounds = Rounds::default();
    for _ in 0..bench.rounds {
        let (bus, state) = (
            bus("kind = \"memory\"", "events", &settings).await?,
            Work::default(),
        );
        let published = bus.publish_all((0..events).map(|number| shape.event(number)));
        accepted(&published.await)?;
        state.tally.expect(events);
        let subscription = bus.subscribe("work").state(state.clone()).on_any(work);
        let watch = Stopwatch::start();
        let _subscription = subscription.start().await?;
        state.tally.reached().await?;
        let stretch = watch.stop();
        let verified = check(case, state.tally.handled(), events)?;
        let sample = stretch.valued(stretch.seconds(), events, verified);
        rounds.raw.push(Sample {
            value: state.ideal(),
            ..sample
        });
        rounds.polybus.push(sample);
        close(&bus).await?;
    }
    bench.add(Row::new(case, 200, 1, "s", &rounds));
    Ok(())
}
