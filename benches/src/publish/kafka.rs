//! Publishing on Kafka.

use polybus::BoxError;

use super::{Percentiles, latencies, publish_all, publish_from_tasks};
use crate::Bench;
use crate::local::{bus, close};
use crate::measure::{Rounds, Stopwatch};
use crate::raw::kafka::{Awaited, BATCH, Batches, Records};
use crate::report::Row;
use crate::servers::Kafka;
use crate::shape::Shape;

/// How many events a round publishes, by bytes: about a second's worth.
fn events(payload: usize) -> usize {
    if payload > 500 { 200_000 } else { 500_000 }
}

fn transport(kafka: &Kafka, records: Records) -> String {
    let format = match records {
        Records::Headers => "",
        Records::Plain => "format = \"plain\"",
    };
    format!(
        "kind = \"kafka\"\nbrokers = [\"{}\"]\n{format}",
        kafka.brokers
    )
}

/// `publish_all` against batches of the raw client with one shared countdown each.
pub async fn batch(case: &str, bench: &mut Bench, records: Records) -> Result<(), BoxError> {
    for payload in bench.payloads() {
        for partitions in bench.partitions() {
            let rounds = batch_of(case, bench, records, payload, partitions).await?;
            bench.add(Row::new(case, payload, partitions, "events/s", &rounds));
        }
    }
    Ok(())
}

async fn batch_of(
    case: &str,
    bench: &Bench,
    records: Records,
    payload: usize,
    partitions: usize,
) -> Result<Rounds, BoxError> {
    let kafka = bench.servers.kafka().await?;
    let (events, shape) = (bench.events(events(payload)), Shape::new(payload));
    let topics = [
        kafka.topic(partitions).await?,
        kafka.topic(partitions).await?,
    ];
    let bus = bus(&transport(&kafka, records), &topics[0].name, "").await?;
    let raw = Batches::new(&kafka.brokers, BATCH)?;
    let rounds = bench
        .interleave(
            async || {
                let watch = Stopwatch::start();
                publish_all(&bus, &shape, events).await?;
                let stretch = watch.stop();
                Ok(stretch.throughput(events, topics[0].gained(case, events).await?))
            },
            async || {
                let watch = Stopwatch::start();
                raw.publish(&topics[1].name, &shape, records, events, partitions)?;
                let stretch = watch.stop();
                Ok(stretch.throughput(events, topics[1].gained(case, events).await?))
            },
        )
        .await?;
    close(&bus).await?;
    for topic in topics {
        topic.delete().await?;
    }
    Ok(rounds)
}

/// Awaited `publish` of many tasks against a task for each on the client's own future.
pub async fn callers(case: &str, bench: &mut Bench, tasks: usize) -> Result<(), BoxError> {
    for payload in bench.payloads() {
        for partitions in bench.partitions() {
            let kafka = bench.servers.kafka().await?;
            let (events, shape) = (bench.events(events(payload) / 2), Shape::new(payload));
            let topics = [
                kafka.topic(partitions).await?,
                kafka.topic(partitions).await?,
            ];
            let bus = bus(&transport(&kafka, Records::Headers), &topics[0].name, "").await?;
            let raw = Awaited::new(&kafka.brokers)?;
            let rounds = bench
                .interleave(
                    async || {
                        let watch = Stopwatch::start();
                        publish_from_tasks(&bus, &shape, tasks, events).await?;
                        let stretch = watch.stop();
                        Ok(stretch.throughput(events, topics[0].gained(case, events).await?))
                    },
                    async || {
                        let watch = Stopwatch::start();
                        raw.publish_from_tasks(&topics[1].name, &shape, tasks, events)
                            .await?;
                        let stretch = watch.stop();
                        Ok(stretch.throughput(events, topics[1].gained(case, events).await?))
                    },
                )
                .await?;
            bench.add(Row::new(case, payload, partitions, "events/s", &rounds));
            close(&bus).await?;
            for topic in topics {
                topic.delete().await?;
            }
        }
    }
    Ok(())
}

/// One event after the other, each awaited, with nothing else going on.
pub async fn lone(case: &str, bench: &mut Bench) -> Result<(), BoxError> {
    let kafka = bench.servers.kafka().await?;
    let (events, shape) = (bench.events(5_000), Shape::new(200));
    let topics = [kafka.topic(1).await?, kafka.topic(1).await?];
    let bus = bus(&transport(&kafka, Records::Headers), &topics[0].name, "").await?;
    let raw = Awaited::new(&kafka.brokers)?;
    let percentiles = Percentiles::default();
    let rounds = bench
        .interleave(
            async || {
                let watch = Stopwatch::start();
                let taken = latencies(&bus, &shape, events).await?;
                let stretch = watch.stop();
                let found = topics[0].gained(case, events).await?;
                Ok(percentiles.note(0, taken, stretch, found))
            },
            async || {
                let watch = Stopwatch::start();
                let taken = raw.latencies(&topics[1].name, &shape, events).await?;
                let stretch = watch.stop();
                let found = topics[1].gained(case, events).await?;
                Ok(percentiles.note(1, taken, stretch, found))
            },
        )
        .await?;
    percentiles.report(case, bench, 1, &rounds);
    close(&bus).await?;
    for topic in topics {
        topic.delete().await?;
    }
    Ok(())
}
