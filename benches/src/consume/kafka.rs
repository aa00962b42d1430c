//! Consuming from Kafka.

use polybus::{Batch, BoxError, Event, State};
use polybus_test_support::unique_name;
use serde::{Deserialize, Serialize};

use crate::Bench;
use crate::local::{close, routed};
use crate::measure::Sample;
use crate::raw::kafka::{BATCH, Batches, Records};
use crate::raw::{kafka_batches, kafka_consumer};
use crate::report::Row;
use crate::servers::{Kafka, KafkaTopic};
use crate::shape::{Shape, TYPE};
use crate::tally::{Tally, count};

/// The payload as a type.
#[derive(Debug, Event, Serialize, Deserialize)]
#[event(type = "bench.measured")]
pub struct Measured {
    text: String,
}

impl Measured {
    /// What a reader has of it.
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }
}

fn events(payload: usize) -> usize {
    if payload > 500 { 300_000 } else { 600_000 }
}

/// Handlers by key, against a poll loop.
pub async fn by_key(case: &str, bench: &mut Bench) -> Result<(), BoxError> {
    for_each_shape(case, bench, Way::ByKey).await
}

/// Batch handlers, against the batch call of the C client.
pub async fn in_batches(case: &str, bench: &mut Bench) -> Result<(), BoxError> {
    for_each_shape(case, bench, Way::Batches).await
}

/// Handlers of records that are a payload and a key, against a poll loop.
pub async fn payload_only(case: &str, bench: &mut Bench) -> Result<(), BoxError> {
    for_each_shape(case, bench, Way::Plain).await
}

#[derive(Debug, Clone, Copy)]
enum Way {
    ByKey,
    Batches,
    Plain,
}

impl Way {
    /// What the records carry beside payload and key.
    fn records(self) -> Records {
        match self {
            Self::ByKey | Self::Batches => Records::Headers,
            Self::Plain => Records::Plain,
        }
    }

    /// What the route says of them. Without attributes their type is that of their route.
    fn route(self, topic: &str) -> String {
        let format = match self {
            Self::ByKey | Self::Batches => "",
            Self::Plain => "format = \"plain\"\n",
        };
        format!(
            "[[routes]]\npattern = \"{TYPE}\"\ntransport = \"one\"\ntopic = \"{topic}\"\n{format}"
        )
    }
}

async fn for_each_shape(case: &str, bench: &mut Bench, way: Way) -> Result<(), BoxError> {
    for payload in bench.payloads() {
        for partitions in bench.partitions() {
            let kafka = bench.servers.kafka().await?;
            let events = bench.events(events(payload));
            let topic = kafka.topic(partitions).await?;
            let raw = Batches::new(&kafka.brokers, BATCH)?;
            let shape = Shape::new(payload);
            raw.publish(&topic.name, &shape, way.records(), events, partitions)?;
            topic.gained(case, events).await?;
            let rounds = bench
                .interleave(
                    async || polybus(&kafka, &topic, events, way).await,
                    async || raw_side(&kafka, &topic, events, way).await,
                )
                .await?;
            bench.add(Row::new(case, payload, partitions, "events/s", &rounds));
            topic.delete().await?;
        }
    }
    Ok(())
}

async fn count_batch(State(tally): State<Tally>, batch: Batch<Measured>) {
    let bytes: usize = batch.iter().map(|entry| entry.payload.text_bytes()).sum();
    if bytes > 0 {
        tally.count(batch.len() as u64);
    }
}

/// Reads the topic from its beginning in a group of its own.
async fn polybus(
    kafka: &Kafka,
    topic: &KafkaTopic,
    events: usize,
    way: Way,
) -> Result<Sample, BoxError> {
    let transport = format!("kind = \"kafka\"\nbrokers = [\"{}\"]", kafka.brokers);
    let bus = routed(&transport, &way.route(&topic.name)).await?;
    let (tally, group) = (Tally::default(), unique_name("group"));
    tally.expect(events);
    let subscription = bus
        .subscribe("count")
        .group(group.clone())
        .state(tally.clone());
    let subscription = match way {
        Way::ByKey | Way::Plain => subscription.on_any(count),
        Way::Batches => subscription.on_batch(count_batch).batch(500, "5ms"),
    };
    let _subscription = subscription.start().await?;
    tally.reached().await?;
    let stretch = tally.since_first()?.stop();
    close(&bus).await?;
    Ok(stretch.throughput(events, topic.committed(&group, events).await?))
}

async fn raw_side(
    kafka: &Kafka,
    topic: &KafkaTopic,
    events: usize,
    way: Way,
) -> Result<Sample, BoxError> {
    let (brokers, name, group) = (
        kafka.brokers.clone(),
        topic.name.clone(),
        unique_name("group"),
    );
    let (joined, partitions) = (group.clone(), topic.partitions());
    let reading = move || match way {
        Way::ByKey | Way::Plain => kafka_consumer::poll(&brokers, &name, &joined, events),
        Way::Batches => kafka_batches::batches(&brokers, &name, &joined, partitions, events),
    };
    let stretch = tokio::task::spawn_blocking(reading).await??;
    Ok(stretch.throughput(events, topic.committed(&group, events).await?))
}
