//! From publish to handler, at a rate that leaves everybody idle.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use polybus::{BoxError, Bus, Event, RawEvent, State, Text};
use polybus_test_support::unique_name;
use rdkafka::consumer::Consumer;
use rdkafka::message::Message;
use tokio::time::{MissedTickBehavior, interval};

use crate::Bench;
use crate::local::{bus, close};
use crate::measure::{Latencies, Sample, Stopwatch, check};
use crate::publish::Percentiles;
use crate::raw::kafka::Awaited;
use crate::raw::kafka_consumer::{PATIENCE, consumer, next};
use crate::raw::redis::{add, connect};
use crate::raw::redis_consumer::Member;
use crate::shape::{CONTENT_TYPE, Shape, TYPE};
use crate::tally::Tally;

const EVENTS: usize = 3_000;

/// Published before them and not timed: by then everybody is connected and has begun to read.
const FIRST: usize = 100;

/// Events a second.
const RATE: u32 = 1_000;

/// When each event was published and when it was handled. An event says its number in its payload.
#[derive(Clone)]
struct Times {
    tally: Tally,
    begun: Arc<Mutex<Vec<Option<Instant>>>>,
    taken: Arc<Mutex<Latencies>>,
}

impl Times {
    fn new(events: usize) -> Self {
        Self {
            tally: Tally::default(),
            begun: Arc::new(Mutex::new(vec![None; events])),
            taken: Arc::default(),
        }
    }

    fn begin(&self, number: usize) {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun[number] = Some(Instant::now());
    }

    fn end(&self, payload: &[u8]) {
        let now = Instant::now();
        let number = payload.get(..8).and_then(|bytes| bytes.try_into().ok());
        let number = usize::from_be_bytes(number.unwrap_or([0xff; 8]));
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(begun) = begun.get(number).copied().flatten() {
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            if number >= FIRST {
                taken.push(now - begun);
            }
            drop(taken);
            self.tally.count(1);
        }
    }

    fn take(&self) -> Latencies {
        std::mem::take(&mut self.taken.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn payload(number: usize) -> Vec<u8> {
    let mut payload = vec![b'x'; 200];
    payload[..8].copy_from_slice(&number.to_be_bytes());
    payload
}

async fn handle(State(times): State<Times>, RawEvent(event): RawEvent) {
    times.end(event.data().map_or(&[], |data| data));
}

/// Calls `publish` with each number, at the rate.
async fn paced(
    times: &Times,
    events: usize,
    mut publish: impl AsyncFnMut(usize) -> Result<(), BoxError>,
) -> Result<(), BoxError> {
    let mut ticks = interval(Duration::from_secs(1) / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0..events {
        ticks.tick().await;
        times.begin(number);
        publish(number).await?;
    }
    Ok(())
}

/// A round of polybus: a group of its own, which has joined when it has handled a first event.
async fn polybus(bus: &Bus, events: usize) -> Result<(Latencies, Sample), BoxError> {
    let times = Times::new(events);
    let subscription = bus.subscribe("handle").group(unique_name("group"));
    let subscription = subscription.from(polybus::Start::Now).state(times.clone());
    let _subscription = subscription.on_any(handle).start().await?;
    times.tally.expect(events);
    let watch = Stopwatch::start();
    paced(&times, events, async |number| {
        let event = Event::builder(Text::new_static(TYPE))
            .key(Text::from(format!("k{number}")))
            .content_type(Text::new_static(CONTENT_TYPE))
            .data(payload(number));
        bus.publish(event).await?;
        Ok(())
    })
    .await?;
    times.tally.reached().await?;
    finish("polybus", &times, &watch, events)
}

fn finish(
    side: &str,
    times: &Times,
    watch: &Stopwatch,
    events: usize,
) -> Result<(Latencies, Sample), BoxError> {
    let stretch = watch.stop();
    let verified = check(side, times.tally.handled(), events)?;
    Ok((times.take(), stretch.valued(0.0, events, verified)))
}

/// Over Kafka. The raw side polls on a thread of its own.
pub async fn kafka(case: &str, bench: &mut Bench) -> Result<(), BoxError> {
    let kafka = bench.servers.kafka().await?;
    let events = FIRST + bench.events(EVENTS);
    let topics = [kafka.topic(1).await?, kafka.topic(1).await?];
    let transport = format!("kind = \"kafka\"\nbrokers = [\"{}\"]", kafka.brokers);
    let raw = Awaited::new(&kafka.brokers)?;
    let shape = Shape::new(200);
    let percentiles = Percentiles::default();
    let rounds = bench
        .interleave(
            async || {
                let bus = bus(&transport, &topics[0].name, "").await?;
                let (taken, sample) = polybus(&bus, events).await?;
                close(&bus).await?;
                topics[0].gained(case, events).await?;
                Ok(percentiles.note_all(0, taken, sample))
            },
            async || {
                let times = Times::new(events);
                let reading = kafka_reader(&kafka.brokers, &topics[1].name, &times, events)?;
                times.tally.expect(events);
                let (mut time, watch) = (String::new(), Stopwatch::start());
                paced(&times, events, async |number| {
                    let shape = shape.carrying(payload(number));
                    raw.publish(&topics[1].name, &shape, number, &mut time)
                        .await
                })
                .await?;
                reading.await??;
                let (taken, sample) = finish("raw", &times, &watch, events)?;
                topics[1].gained(case, events).await?;
                Ok(percentiles.note_all(1, taken, sample))
            },
        )
        .await?;
    percentiles.report(case, bench, 1, &rounds);
    for topic in topics {
        topic.delete().await?;
    }
    Ok(())
}

/// Polls until so many records have come. Returns once the partition is assigned.
fn kafka_reader(
    brokers: &str,
    topic: &str,
    times: &Times,
    events: usize,
) -> Result<tokio::task::JoinHandle<Result<(), BoxError>>, BoxError> {
    let consumer = consumer(brokers, &unique_name("group"))?;
    let mut assigned = rdkafka::TopicPartitionList::new();
    let (_, end) = consumer.fetch_watermarks(topic, 0, PATIENCE)?;
    assigned.add_partition_offset(topic, 0, rdkafka::Offset::Offset(end))?;
    consumer.assign(&assigned)?;
    let times = times.clone();
    Ok(tokio::task::spawn_blocking(move || {
        for _ in 0..events {
            let record = next(&consumer)?;
            times.end(record.payload().unwrap_or_default());
        }
        Ok(())
    }))
}

/// Over Redis Streams. The raw side reads on a connection of its own.
pub async fn redis(case: &str, bench: &mut Bench) -> Result<(), BoxError> {
    let redis = bench.servers.redis().await?;
    let events = FIRST + bench.events(EVENTS);
    let transport = format!("kind = \"redis-streams\"\nurl = \"{}\"", redis.url);
    let raw = connect(&redis.url).await?;
    let shape = Shape::new(200);
    let percentiles = Percentiles::default();
    let rounds = bench
        .interleave(
            async || {
                let stream = unique_name("bench");
                let bus = bus(&transport, &stream, "").await?;
                let (taken, sample) = polybus(&bus, events).await?;
                close(&bus).await?;
                redis.take(case, &stream, events).await?;
                Ok(percentiles.note_all(0, taken, sample))
            },
            async || {
                let stream = unique_name("bench");
                let times = Times::new(events);
                let reading = redis_reader(&redis.url, &stream, &times, events).await?;
                times.tally.expect(events);
                let watch = Stopwatch::start();
                paced(&times, events, async |number| {
                    add(&raw, &stream, &shape.carrying(payload(number)), number).await
                })
                .await?;
                reading.await??;
                let (taken, sample) = finish("raw", &times, &watch, events)?;
                redis.take(case, &stream, events).await?;
                Ok(percentiles.note_all(1, taken, sample))
            },
        )
        .await?;
    percentiles.report(case, bench, 1, &rounds);
    Ok(())
}

async fn redis_reader(
    url: &str,
    stream: &str,
    times: &Times,
    events: usize,
) -> Result<tokio::task::JoinHandle<Result<(), BoxError>>, BoxError> {
    let mut member = Member::join(url, stream, "raw").await?;
    let times = times.clone();
    Ok(tokio::spawn(async move {
        let mut found = 0;
        while found < events {
            let entries = member.read().await?;
            for (_, fields) in &entries {
                if let Some(redis::Value::BulkString(data)) = fields.get(3) {
                    times.end(data);
                }
            }
            found += entries.len();
            member.acknowledge(entries.iter().map(|(id, _)| id)).await?;
        }
        Ok(())
    }))
}
