//! Throughput over the size of batches, and latency over the load.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use polybus::{BoxError, Bus};
use polybus_test_support::unique_name;
use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::publish_all;
use crate::Bench;
use crate::local::{bus, close};
use crate::measure::{Latencies, Stopwatch, summary};
use crate::plot::{Chart, Line};
use crate::raw::kafka::{Awaited, Batches, Records};
use crate::raw::redis::{add, connect, publish_pipelines};
use crate::shape::Shape;

const SIZES: [usize; 7] = [1, 5, 20, 100, 300, 1000, 3000];

/// Events a second.
const LOADS: [usize; 5] = [300, 1_000, 3_000, 10_000, 30_000];

const PAYLOAD: usize = 200;

/// So that small batches end as well: a batch of one is a round trip for each event.
fn events(bench: &Bench, size: usize) -> usize {
    bench.events((size * 3_000).clamp(20_000, 300_000))
}

/// Plots throughput over batch size into `throughput-over-batch-size.svg`.
pub async fn batch_sizes(bench: &mut Bench) -> Result<(), BoxError> {
    let mut lines = Vec::new();
    lines.extend(kafka_sizes(bench).await?);
    lines.extend(redis_sizes(bench).await?);
    let chart = Chart {
        title: "publish_all, 200 B, one partition",
        x: "events in a batch",
        y: "events/s",
        lines,
    };
    chart.write(&bench.out.join("throughput-over-batch-size.svg"))
}

async fn kafka_sizes(bench: &Bench) -> Result<[Line; 2], BoxError> {
    let kafka = bench.servers.kafka().await?;
    let (topic, shape) = (kafka.topic(1).await?, Shape::new(PAYLOAD));
    let transport = format!("kind = \"kafka\"\nbrokers = [\"{}\"]", kafka.brokers);
    let (mut ours, mut raw) = (line("polybus on Kafka"), line("rdkafka"));
    for size in SIZES {
        let events = events(bench, size);
        let bus = bus(&transport, &topic.name, &batch(size)).await?;
        let client = Batches::new(&kafka.brokers, size)?;
        let (mut polybus, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds(bench) {
            let watch = Stopwatch::start();
            publish_all(&bus, &shape, events).await?;
            polybus.push(watch.stop().throughput(events, 0).value);
            let watch = Stopwatch::start();
            client.publish(&topic.name, &shape, Records::Headers, events, 1)?;
            theirs.push(watch.stop().throughput(events, 0).value);
        }
        topic
            .gained("batch-sizes", 2 * rounds(bench) * events)
            .await?;
        close(&bus).await?;
        ours.points.push((size as f64, summary(polybus).median));
        raw.points.push((size as f64, summary(theirs).median));
    }
    topic.delete().await?;
    Ok([ours, raw])
}

async fn redis_sizes(bench: &Bench) -> Result<[Line; 2], BoxError> {
    let redis = bench.servers.redis().await?;
    let (stream, shape) = (unique_name("bench"), Shape::new(PAYLOAD));
    let transport = format!("kind = \"redis-streams\"\nurl = \"{}\"", redis.url);
    let client = connect(&redis.url).await?;
    let (mut ours, mut raw) = (line("polybus on Redis"), line("redis-rs"));
    for size in SIZES {
        let events = events(bench, size);
        let bus = bus(&transport, &stream, &batch(size)).await?;
        let (mut polybus, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds(bench) {
            let watch = Stopwatch::start();
            publish_all(&bus, &shape, events).await?;
            polybus.push(watch.stop().throughput(events, 0).value);
            let watch = Stopwatch::start();
            publish_pipelines(&client, &stream, &shape, events, size).await?;
            theirs.push(watch.stop().throughput(events, 0).value);
        }
        redis
            .take("batch-sizes", &stream, 2 * rounds(bench) * events)
            .await?;
        close(&bus).await?;
        ours.points.push((size as f64, summary(polybus).median));
        raw.points.push((size as f64, summary(theirs).median));
    }
    Ok([ours, raw])
}

/// Plots the latency of awaited events over the load into `latency-over-load.svg`.
pub async fn load(bench: &mut Bench) -> Result<(), BoxError> {
    let kafka = bench.servers.kafka().await?;
    let redis = bench.servers.redis().await?;
    let topic = kafka.topic(1).await?;
    let stream = unique_name("bench");
    let on_kafka = format!("kind = \"kafka\"\nbrokers = [\"{}\"]", kafka.brokers);
    let on_redis = format!("kind = \"redis-streams\"\nurl = \"{}\"", redis.url);
    let buses = [
        bus(&on_kafka, &topic.name, "").await?,
        bus(&on_redis, &stream, "").await?,
    ];
    let (producer, connection) = (Awaited::new(&kafka.brokers)?, connect(&redis.url).await?);
    let shape = Shape::new(PAYLOAD);
    let sides = [
        "polybus on Kafka",
        "rdkafka",
        "polybus on Redis",
        "redis-rs",
    ];
    let mut lines: Vec<_> = sides
        .iter()
        .flat_map(|side| ["p50", "p99"].map(|tail| line(&format!("{side}, {tail}"))))
        .collect();
    let publishers: [Publish; 4] = [
        publish_on(&buses[0], &shape),
        publish_by_rdkafka(&producer, &topic.name, &shape),
        publish_on(&buses[1], &shape),
        publish_by_redis(&connection, &stream, &shape),
    ];
    for load in LOADS {
        let count = bench.events(load * 2);
        for (pair, publish) in lines.chunks_exact_mut(2).zip(&publishers) {
            let mut taken = offered(load, count, publish).await?;
            for (line, of_a_thousand) in pair.iter_mut().zip([500, 990]) {
                line.points.push((load as f64, taken.within(of_a_thousand)));
            }
        }
    }
    for bus in &buses {
        close(bus).await?;
    }
    topic.delete().await?;
    let chart = Chart {
        title: "awaited publish, 200 B, one partition",
        x: "events/s offered",
        y: "microseconds",
        lines,
    };
    chart.write(&bench.out.join("latency-over-load.svg"))
}

/// Publishes the event of a number.
type Publish = Box<dyn Fn(usize) -> BoxFuture<'static, Result<(), BoxError>>>;

fn publish_on(bus: &Bus, shape: &Shape) -> Publish {
    let (bus, shape) = (bus.clone(), shape.clone());
    Box::new(move |number| {
        let (bus, event) = (bus.clone(), shape.event(number));
        Box::pin(async move {
            bus.publish(event).await?;
            Ok(())
        })
    })
}

fn publish_by_rdkafka(producer: &Awaited, topic: &str, shape: &Shape) -> Publish {
    let (producer, topic, shape) = (producer.clone(), Arc::<str>::from(topic), shape.clone());
    Box::new(move |number| {
        let (producer, topic, shape) = (producer.clone(), Arc::clone(&topic), shape.clone());
        Box::pin(async move {
            let time = &mut String::new();
            producer.publish(&topic, &shape, number, time).await
        })
    })
}

fn publish_by_redis(connection: &MultiplexedConnection, stream: &str, shape: &Shape) -> Publish {
    let (connection, stream) = (connection.clone(), Arc::<str>::from(stream));
    let shape = shape.clone();
    Box::new(move |number| {
        let (connection, stream, shape) = (connection.clone(), Arc::clone(&stream), shape.clone());
        Box::pin(async move { add(&connection, &stream, &shape, number).await })
    })
}

/// Publishes at a rate, whether or not earlier events have their outcome, and takes the time of each.
async fn offered(load: usize, count: usize, publish: &Publish) -> Result<Latencies, BoxError> {
    let each_tick = load.div_ceil(1000);
    let mut ticks = interval(Duration::from_secs_f64(each_tick as f64 / load as f64));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let latencies = Arc::new(Mutex::new(Latencies::default()));
    let mut tasks = JoinSet::new();
    for first in (0..count).step_by(each_tick) {
        ticks.tick().await;
        for number in first..count.min(first + each_tick) {
            let (publishing, latencies) = (publish(number), Arc::clone(&latencies));
            tasks.spawn(async move {
                let begin = Instant::now();
                publishing.await?;
                let mut latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner);
                latencies.push(begin.elapsed());
                Ok::<_, BoxError>(())
            });
        }
        while let Some(ended) = tasks.try_join_next() {
            ended??;
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let mut latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *latencies))
}

fn batch(size: usize) -> String {
    format!("batch = {{ max_events = {size} }}")
}

fn rounds(bench: &Bench) -> usize {
    if bench.quick { 1 } else { 3 }
}

fn line(name: &str) -> Line {
    Line {
        name: name.to_owned(),
        points: Vec::new(),
    }
}
