//! The cases of publishing.

mod kafka;
pub mod memory;
mod plots;
mod redis;
mod routes;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use polybus::{BoxError, Bus};

use crate::Bench;
use crate::local::accepted;
use crate::measure::{Latencies, Rounds, Sample, Stretch};
use crate::raw::kafka::Records;
use crate::report::Row;
use crate::shape::Shape;

/// The names of all cases.
pub const CASES: &[&str] = &[
    "kafka-batch-headers",
    "kafka-batch-plain",
    "kafka-callers-1024",
    "kafka-lone",
    "redis-batch",
    "redis-callers-256",
    "redis-lone",
    "memory",
    "memory-10m",
    "routes-4",
    "routes-4000",
    "routes-4000-all",
    "plot-batch-sizes",
    "plot-load",
];

pub async fn run(case: &str, bench: &mut Bench) -> Result<(), BoxError> {
    match case {
        "kafka-batch-headers" => kafka::batch(case, bench, Records::Headers).await,
        "kafka-batch-plain" => kafka::batch(case, bench, Records::Plain).await,
        "kafka-callers-1024" => kafka::callers(case, bench, 1024).await,
        "kafka-lone" => kafka::lone(case, bench).await,
        "redis-batch" => redis::batch(case, bench).await,
        "redis-callers-256" => redis::callers(case, bench, 256).await,
        "redis-lone" => redis::lone(case, bench).await,
        "memory" => memory::to_handler(case, bench, 1_000_000).await,
        "memory-10m" => memory::ten_million(case, bench).await,
        "routes-4" => routes::cost(case, bench, 4, 4).await,
        "routes-4000" => routes::cost(case, bench, 4000, 4).await,
        "routes-4000-all" => routes::cost(case, bench, 4000, 4000).await,
        "plot-batch-sizes" => plots::batch_sizes(bench).await,
        "plot-load" => plots::load(bench).await,
        _ => Err(format!("there is no case `{case}`").into()),
    }
}

/// How many events a call of `publish_all` is given: its outcomes take memory.
const CALL: usize = 100_000;

/// Publishes events in as few calls as may be.
async fn publish_all(bus: &Bus, shape: &Shape, events: usize) -> Result<(), BoxError> {
    for first in (0..events).step_by(CALL) {
        let numbers = first..events.min(first + CALL);
        let events = numbers.map(|number| shape.event(number));
        accepted(&bus.publish_all(events).await)?;
    }
    Ok(())
}

/// Publishes from so many tasks, each of which waits for its event before the next.
async fn publish_from_tasks(
    bus: &Bus,
    shape: &Shape,
    tasks: usize,
    events: usize,
) -> Result<(), BoxError> {
    let shape = Arc::new(shape.clone());
    let tasks = (0..tasks).map(|task| {
        let (bus, shape) = (bus.clone(), Arc::clone(&shape));
        tokio::spawn(async move {
            for number in (task..events).step_by(tasks) {
                bus.publish(shape.event(number)).await?;
            }
            Ok::<_, BoxError>(())
        })
    });
    for ended in futures::future::join_all(tasks).await {
        ended??;
    }
    Ok(())
}

/// Publishes one by one and takes the time of each.
async fn latencies(bus: &Bus, shape: &Shape, events: usize) -> Result<Latencies, BoxError> {
    let mut latencies = Latencies::default();
    for number in 0..events {
        let begin = Instant::now();
        bus.publish(shape.event(number)).await?;
        latencies.push(begin.elapsed());
    }
    Ok(latencies)
}

/// The latencies of all rounds: those of polybus, and those of the raw side.
#[derive(Debug, Default)]
pub struct Percentiles([RefCell<Latencies>; 2]);

impl Percentiles {
    /// Notes a round. Its value is the median.
    fn note(&self, side: usize, round: Latencies, stretch: Stretch, verified: u64) -> Sample {
        let sample = stretch.valued(0.0, round.len(), verified);
        self.note_all(side, round, sample)
    }

    /// Notes a round whose CPU and count are known. Its value becomes the median.
    pub fn note_all(&self, side: usize, mut round: Latencies, sample: Sample) -> Sample {
        let value = round.within(500);
        self.0[side].borrow_mut().extend(round);
        Sample { value, ..sample }
    }

    /// Reports the median of the rounds' medians, and the tails over all rounds.
    pub fn report(&self, case: &str, bench: &mut Bench, partitions: usize, rounds: &Rounds) {
        bench.add(Row::new(case, 200, partitions, "us p50", rounds));
        for (tail, unit, of_a_thousand) in [("p99", "us p99", 990), ("p99.9", "us p99.9", 999)] {
            let side = |side: usize, samples: &[Sample]| {
                let value = self.0[side].borrow_mut().within(of_a_thousand);
                samples.iter().map(|it| Sample { value, ..*it }).collect()
            };
            let rounds = Rounds {
                polybus: side(0, &rounds.polybus),
                raw: side(1, &rounds.raw),
            };
            bench.add(Row::new(
                format!("{case}-{tail}"),
                200,
                partitions,
                unit,
                &rounds,
            ));
        }
    }
}
