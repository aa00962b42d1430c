//! rdkafka by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use polybus::BoxError;
use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, FutureProducer, FutureRecord, Producer, ProducerContext,
    ThreadedProducer,
};
use uuid::Uuid;

use crate::measure::Latencies;
use crate::shape::{CONTENT_TYPE, SOURCE, Shape, TYPE, write_time};

/// How many records share a countdown.
pub const BATCH: usize = 500;

/// So many batches may be out, ..
const MOST_OPEN: usize = 20;

/// .. but no more bytes for each partition: a deeper queue is slower.
const OPEN_BYTES: usize = 2 << 20;

/// What a record carries beside payload and key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Records {
    /// The attributes of a CloudEvent, each in its header.
    Headers,
    /// Nothing.
    Plain,
}

/// The settings of polybus: idempotent, acknowledged by all, no linger.
fn settings(brokers: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "0");
    client
}

/// Publishes batches, with one shared countdown for each.
pub struct Batches {
    producer: ThreadedProducer<Countdowns>,
    answered: Receiver<usize>,
    batch: usize,
}

struct Countdowns {
    left: [AtomicUsize; MOST_OPEN],
    failed: AtomicUsize,
    done: Sender<usize>,
}

impl ClientContext for Countdowns {}

impl ProducerContext for Countdowns {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, batch: usize) {
        if result.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        if self.left[batch].fetch_sub(1, Ordering::AcqRel) == 1 {
            // Nobody waits any more if the run has failed.
            let _ = self.done.send(batch);
        }
    }
}

impl Batches {
    /// A producer that sends batches of a size.
    pub fn new(brokers: &str, batch: usize) -> Result<Self, BoxError> {
        let (done, answered) = channel();
        let countdowns = Countdowns {
            left: std::array::from_fn(|_| AtomicUsize::new(0)),
            failed: AtomicUsize::new(0),
            done,
        };
        Ok(Self {
            producer: settings(brokers).create_with_context(countdowns)?,
            answered,
            batch,
        })
    }

    /// Publishes events and waits until all are accepted. Blocks.
    pub fn publish(
        &self,
        topic: &str,
        shape: &Shape,
        records: Records,
        events: usize,
        partitions: usize,
    ) -> Result<(), BoxError> {
        let bytes = self.batch * shape.payload.len();
        let open = (OPEN_BYTES * partitions / bytes).clamp(2, MOST_OPEN);
        let mut free: Vec<usize> = (0..open).collect();
        let mut time = String::new();
        for first in (0..events).step_by(self.batch) {
            let batch = match free.pop() {
                Some(batch) => batch,
                None => self.answered.recv()?,
            };
            let numbers = first..events.min(first + self.batch);
            let countdown = &self.producer.context().left[batch];
            countdown.store(numbers.len(), Ordering::Release);
            for number in numbers {
                let record = BaseRecord::with_opaque_to(topic, batch)
                    .key(shape.key(number).as_str())
                    .payload(&shape.payload[..]);
                let record = match records {
                    Records::Headers => record.headers(attributes(&mut time)),
                    Records::Plain => record,
                };
                self.producer.send(record).map_err(|(error, _)| error)?;
            }
        }
        while free.len() < open {
            free.push(self.answered.recv()?);
        }
        match self.producer.context().failed.load(Ordering::Relaxed) {
            0 => Ok(()),
            failed => Err(format!("{failed} records were not accepted").into()),
        }
    }
}

/// The headers of an event, made as a program without polybus has to make them.
fn attributes(time: &mut String) -> OwnedHeaders {
    let mut id = Uuid::encode_buffer();
    let id = Uuid::now_v7().hyphenated().encode_lower(&mut id);
    write_time(time);
    let header = |key, value| Header {
        key,
        value: Some(value),
    };
    OwnedHeaders::new_with_capacity(6)
        .insert(header("ce_specversion", "1.0"))
        .insert(header("ce_id", id))
        .insert(header("ce_source", SOURCE))
        .insert(header("ce_type", TYPE))
        .insert(header("content-type", CONTENT_TYPE))
        .insert(header("ce_time", time))
}

/// Publishes one event after the other, each awaited.
#[derive(Clone)]
pub struct Awaited {
    producer: FutureProducer,
}

impl Awaited {
    pub fn new(brokers: &str) -> Result<Self, BoxError> {
        let producer = settings(brokers).create()?;
        Ok(Self { producer })
    }

    pub async fn publish(
        &self,
        topic: &str,
        shape: &Shape,
        number: usize,
        time: &mut String,
    ) -> Result<(), BoxError> {
        let record = FutureRecord::to(topic)
            .key(shape.key(number).as_str())
            .payload(&shape.payload[..])
            .headers(attributes(time));
        let sent = self.producer.send(record, Duration::from_secs(30)).await;
        sent.map_err(|(error, _)| error)?;
        Ok(())
    }

    /// Publishes from so many tasks, each of which waits for its event before the next.
    pub async fn publish_from_tasks(
        &self,
        topic: &str,
        shape: &Shape,
        tasks: usize,
        events: usize,
    ) -> Result<(), BoxError> {
        let topic: Arc<str> = topic.into();
        let tasks = (0..tasks).map(|task| {
            let (this, topic, shape) = (self.clone(), Arc::clone(&topic), shape.clone());
            tokio::spawn(async move {
                let mut time = String::new();
                for number in (task..events).step_by(tasks) {
                    this.publish(&topic, &shape, number, &mut time).await?;
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
    pub async fn latencies(
        &self,
        topic: &str,
        shape: &Shape,
        events: usize,
    ) -> Result<Latencies, BoxError> {
        let mut latencies = Latencies::default();
        let mut time = String::new();
        for number in 0..events {
            let begin = Instant::now();
            self.publish(topic, shape, number, &mut time).await?;
            latencies.push(begin.elapsed());
        }
        Ok(latencies)
    }
}
