//! Publishing on Redis Streams.

use polybus::BoxError;
use polybus_test_support::unique_name;

use super::{Percentiles, latencies, publish_all, publish_from_tasks};
use crate::Bench;
use crate::local::{bus, close};
use crate::measure::Stopwatch;
use crate::raw::redis::{self, PIPELINE, connect};
use crate::report::Row;
use crate::servers::Redis;
use crate::shape::Shape;

fn events(payload: usize) -> usize {
    if payload > 500 { 200_000 } else { 400_000 }
}

fn transport(redis: &Redis) -> String {
    format!("kind = \"redis-streams\"\nurl = \"{}\"", redis.url)
}

/// `publish_all` against pipelines of the raw client.
pub async fn batch(case: &str, bench: &mut Bench) -> Result<(), BoxError> {
    for payload in bench.payloads() {
        let redis = bench.servers.redis().await?;
        let (events, shape) = (bench.events(events(payload)), Shape::new(payload));
        let streams = [unique_name("bench"), unique_name("bench")];
        let bus = bus(&transport(&redis), &streams[0], "").await?;
        let raw = connect(&redis.url).await?;
        let rounds = bench
            .interleave(
                async || {
                    let watch = Stopwatch::start();
                    publish_all(&bus, &shape, events).await?;
                    let stretch = watch.stop();
                    Ok(stretch.throughput(events, redis.take(case, &streams[0], events).await?))
                },
                async || {
                    let watch = Stopwatch::start();
                    redis::publish_pipelines(&raw, &streams[1], &shape, events, PIPELINE).await?;
                    let stretch = watch.stop();
                    Ok(stretch.throughput(events, redis.take(case, &streams[1], events).await?))
                },
            )
            .await?;
        bench.add(Row::new(case, payload, 1, "events/s", &rounds));
        close(&bus).await?;
    }
    Ok(())
}

/// Awaited `publish` of many tasks against as many on one shared connection.
pub async fn callers(case: &str, bench: &mut Bench, tasks: usize) -> Result<(), BoxError> {
    for payload in bench.payloads() {
        let redis = bench.servers.redis().await?;
        let (events, shape) = (bench.events(events(payload) / 2), Shape::new(payload));
        let streams = [unique_name("bench"), unique_name("bench")];
        let bus = bus(&transport(&redis), &streams[0], "").await?;
        let raw = connect(&redis.url).await?;
        let rounds = bench
            .interleave(
                async || {
                    let watch = Stopwatch::start();
                    publish_from_tasks(&bus, &shape, tasks, events).await?;
                    let stretch = watch.stop();
                    Ok(stretch.throughput(events, redis.take(case, &streams[0], events).await?))
                },
                async || {
                    let watch = Stopwatch::start();
                    redis::publish_from_tasks(&raw, &streams[1], &shape, tasks, events).await?;
                    let stretch = watch.stop();
                    Ok(stretch.throughput(events, redis.take(case, &streams[1], events).await?))
                },
            )
            .await?;
        bench.add(Row::new(case, payload, 1, "events/s", &rounds));
        close(&bus).await?;
    }
    Ok(())
}

/// One event after the other, each awaited, with nothing else going on.
pub async fn lone(case: &str, bench: &mut Bench) -> Result<(), BoxError> {
    let redis = bench.servers.redis().await?;
    let (events, shape) = (bench.events(10_000), Shape::new(200));
    let streams = [unique_name("bench"), unique_name("bench")];
    let bus = bus(&transport(&redis), &streams[0], "").await?;
    let raw = connect(&redis.url).await?;
    let percentiles = Percentiles::default();
    let rounds = bench
        .interleave(
            async || {
                let watch = Stopwatch::start();
                let taken = latencies(&bus, &shape, events).await?;
                let stretch = watch.stop();
                let found = redis.take(case, &streams[0], events).await?;
                Ok(percentiles.note(0, taken, stretch, found))
            },
            async || {
                let watch = Stopwatch::start();
                let taken = redis::latencies(&raw, &streams[1], &shape, events).await?;
                let stretch = watch.stop();
                let found = redis.take(case, &streams[1], events).await?;
                Ok(percentiles.note(1, taken, stretch, found))
            },
        )
        .await?;
    percentiles.report(case, bench, 1, &rounds);
    close(&bus).await
}
