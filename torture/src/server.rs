//! The server of a run, the proxy in front of it, and what is read of it past the bus.

use std::collections::HashMap;
use std::time::Duration;

use polybus_test_support::{KafkaServer, RedisServer, TcpProxy};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::journal::Step;
use crate::task::Kind;

/// How long a question to the server may take.
const ASK: Duration = Duration::from_secs(10);

/// How many entries of a stream are read at once.
const PAGE: usize = 5_000;

/// A server, and the proxy through which all processes reach it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) proxy: TcpProxy,
    backend: Backend,
    partitions: Option<u32>,
    down: Option<Down>,
}

/// How a server is broken.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Down {
    Killed,
    Stopped,
    Paused,
    Starved,
}

#[derive(Debug)]
enum Backend {
    Kafka(KafkaServer),
    Redis(RedisServer),
}

/// A record of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The id of the event, `None` for what is no event.
    pub(crate) id: Option<String>,
    /// What it holds, if it is no event.
    pub(crate) value: String,
    /// Partition and offset; on Redis the two numbers of the entry's id.
    pub(crate) position: (u64, u64),
    /// Which of the topic's streams (Redis).
    #[serde(default)]
    pub(crate) stream: u32,
    /// When it was stored, in milliseconds since 1970.
    pub(crate) time: u64,
}

impl Server {
    pub(crate) async fn start(kind: Kind, partitions: Option<u32>) -> Result<Self, Failure> {
        let proxy = TcpProxy::start().await?;
        let backend = match kind {
            Kind::Kafka => Backend::Kafka(KafkaServer::start_behind(&proxy).await?),
            Kind::Redis => {
                let server = RedisServer::start().await?;
                proxy.set_server(server.url());
                Backend::Redis(server)
            }
        };
        Ok(Self {
            proxy,
            backend,
            partitions,
            down: None,
        })
    }

    /// Where it is past the proxy, as `host:port`.
    pub(crate) fn direct(&self) -> String {
        match &self.backend {
            Backend::Kafka(server) => server.brokers().to_owned(),
            Backend::Redis(server) => server.url().trim_start_matches("redis://").to_owned(),
        }
    }

    pub(crate) async fn create_topic(&self, topic: &str) -> Result<(), Failure> {
        if let Backend::Kafka(server) = &self.backend {
            server.create_topic(topic, self.on_kafka()).await?;
        }
        Ok(())
    }

    fn on_kafka(&self) -> u32 {
        self.partitions.unwrap_or(4)
    }

    /// The streams of a topic (Redis).
    fn streams(&self, topic: &str) -> Vec<String> {
        match self.partitions {
            None => vec![topic.to_owned()],
            Some(partitions) => (0..partitions).map(|it| stream_name(topic, it)).collect(),
        }
    }

    /// Breaks the server until it is [restored](Self::restore).
    pub(crate) async fn take_down(&mut self, down: Down) -> Result<(), Failure> {
        self.down = Some(down);
        match (&self.backend, down) {
            (Backend::Kafka(server), Down::Killed) => server.kill().await?,
            (Backend::Redis(server), Down::Killed) => server.kill().await?,
            (Backend::Kafka(server), Down::Stopped) => server.stop().await?,
            (Backend::Redis(server), Down::Stopped) => server.stop().await?,
            (Backend::Kafka(server), Down::Paused) => server.pause().await?,
            (Backend::Redis(server), Down::Paused) => server.pause().await?,
            (_, Down::Starved) => self.starve(true).await?,
        }
        Ok(())
    }

    /// Lets the server serve again, if it was broken.
    pub(crate) async fn restore(&mut self) -> Result<(), Failure> {
        match (&self.backend, self.down.take()) {
            (_, None) => {}
            (_, Some(Down::Starved)) => self.starve(false).await?,
            (Backend::Kafka(server), Some(Down::Paused)) => server.resume().await?,
            (Backend::Redis(server), Some(Down::Paused)) => server.resume().await?,
            (Backend::Kafka(server), Some(_)) => server.restart().await?,
            (Backend::Redis(server), Some(_)) => server.restart().await?,
        }
        Ok(())
    }

    /// Lets the server have no memory left for events, or as much as it wants (Redis).
    async fn starve(&self, starve: bool) -> Result<(), Failure> {
        let memory = if starve { "1mb" } else { "0" };
        if let Backend::Redis(server) = &self.backend {
            let mut connection = connect(server).await?;
            redis::cmd("CONFIG")
                .arg(&["SET", "maxmemory", memory])
                .exec_async(&mut connection)
                .await?;
        }
        Ok(())
    }

    /// Writes a record that is no event.
    pub(crate) async fn write_malformed(&self, topic: &str, value: &str) -> Result<(), Failure> {
        match &self.backend {
            Backend::Redis(server) => {
                let mut connection = connect(server).await?;
                redis::cmd("XADD")
                    .arg(&[
                        self.streams(topic)[0].as_str(),
                        "*",
                        "ce",
                        "{",
                        "data",
                        value,
                    ])
                    .exec_async(&mut connection)
                    .await?;
            }
            Backend::Kafka(server) => {
                let (brokers, topic, value) = (
                    server.brokers().to_owned(),
                    topic.to_owned(),
                    value.to_owned(),
                );
                blocking(move || write_bare(&brokers, &topic, &value)).await?;
            }
        }
        Ok(())
    }

    /// What the group is done with.
    pub(crate) async fn settled(&self, topic: &str, group: &str) -> Result<Vec<Step>, Failure> {
        match &self.backend {
            Backend::Redis(server) => acknowledged(server, &self.streams(topic), group).await,
            Backend::Kafka(server) => {
                let (brokers, topic, group) = (
                    server.brokers().to_owned(),
                    topic.to_owned(),
                    group.to_owned(),
                );
                let partitions = self.on_kafka();
                let committed =
                    blocking(move || committed(&brokers, &topic, &group, partitions)).await?;
                Ok(vec![committed])
            }
        }
    }

    /// Every record of the topic, those of a partition in order.
    pub(crate) async fn read(&self, topic: &str) -> Result<Vec<Record>, Failure> {
        self.read_all(topic, &self.streams(topic)).await
    }

    /// Every dead letter of the topic; none if there is no such topic.
    pub(crate) async fn read_dead(&self, topic: &str) -> Result<Vec<Record>, Failure> {
        let topic = format!("{topic}.dlq");
        self.read_all(&topic, std::slice::from_ref(&topic)).await
    }

    async fn read_all(&self, topic: &str, streams: &[String]) -> Result<Vec<Record>, Failure> {
        match &self.backend {
            Backend::Redis(server) => {
                let mut records = Vec::new();
                for (stream, name) in (0..).zip(streams) {
                    records.extend(read_stream(server, stream, name).await?);
                }
                Ok(records)
            }
            Backend::Kafka(server) => {
                let (brokers, topic) = (server.brokers().to_owned(), topic.to_owned());
                blocking(move || read_topic(&brokers, &topic)).await
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await?
}

async fn connect(server: &RedisServer) -> Result<redis::aio::MultiplexedConnection, Failure> {
    let client = redis::Client::open(server.url())?;
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(ASK));
    Ok(client
        .get_multiplexed_async_connection_with_config(&config)
        .await?)
}

/// The name of a partition of a topic (Redis).
pub(crate) fn stream_name(topic: &str, partition: u32) -> String {
    format!("{{{topic}:{partition}}}")
}

async fn acknowledged(
    server: &RedisServer,
    streams: &[String],
    group: &str,
) -> Result<Vec<Step>, Failure> {
    let mut connection = connect(server).await?;
    let (mut steps, mut total) = (Vec::new(), 0);
    for (stream, topic) in (0..).zip(streams) {
        let step = acknowledged_of(&mut connection, stream, topic, group).await?;
        if let Step::Acknowledged { lag, .. } = &step {
            total += lag;
        }
        steps.push(step);
    }
    for step in &mut steps {
        if let Step::Acknowledged { lag, .. } = step {
            *lag = total;
        }
    }
    Ok(steps)
}

async fn acknowledged_of(
    connection: &mut redis::aio::MultiplexedConnection,
    stream: u32,
    topic: &str,
    group: &str,
) -> Result<Step, Failure> {
    let groups: Vec<HashMap<String, redis::Value>> = redis::cmd("XINFO")
        .arg(&["GROUPS", topic])
        .query_async(connection)
        .await?;
    let text = |it: &redis::Value| redis::from_redis_value_ref::<String>(it);
    let group_info = groups
        .iter()
        .find(|it| {
            it.get("name")
                .is_some_and(|name| text(name).is_ok_and(|it| it == group))
        })
        .ok_or("there is no group yet")?;
    let last = text(&group_info["last-delivered-id"])?;
    let waiting: Option<u64> = redis::from_redis_value_ref(&group_info["lag"])?;
    // After the position: what is delivered between the two is not taken for acknowledged.
    let pending: Vec<(String, String, u64, u64)> = redis::cmd("XPENDING")
        .arg(&[topic, group, "-", "+", "1000000"])
        .query_async(connection)
        .await?;
    let lag = waiting.ok_or("the server does not know the lag")? + pending.len() as u64;
    let pending = pending.into_iter().map(|(id, ..)| id).collect();
    Ok(Step::Acknowledged {
        stream,
        last,
        pending,
        lag,
    })
}

fn asking(brokers: &str, group: &str) -> Result<BaseConsumer, Failure> {
    let consumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "false")
        .create()?;
    Ok(consumer)
}

fn committed(brokers: &str, topic: &str, group: &str, partitions: u32) -> Result<Step, Failure> {
    let consumer = asking(brokers, group)?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions.cast_signed() {
        list.add_partition(topic, partition);
    }
    let committed = consumer.committed_offsets(list, ASK)?;
    let (mut offsets, mut lag) = (Vec::new(), 0);
    for element in committed.elements() {
        let partition = element.partition();
        let (_, end) = consumer.fetch_watermarks(topic, partition, ASK)?;
        let done = match element.offset() {
            Offset::Offset(offset) => offset,
            _ => 0,
        };
        offsets.push((partition, done));
        lag += u64::try_from(end - done).unwrap_or(0);
    }
    Ok(Step::Committed { offsets, lag })
}

fn write_bare(brokers: &str, topic: &str, value: &str) -> Result<(), Failure> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("message.timeout.ms", "5000")
        .create()?;
    let record = BaseRecord::<(), str>::to(topic).payload(value);
    producer.send(record).map_err(|(error, _)| error)?;
    producer.flush(ASK)?;
    Ok(())
}

fn read_topic(brokers: &str, topic: &str) -> Result<Vec<Record>, Failure> {
    let consumer = asking(brokers, "judge")?;
    let metadata = consumer.fetch_metadata(Some(topic), ASK)?;
    let partitions = metadata
        .topics()
        .first()
        .map_or(0, |it| it.partitions().len());
    let (mut list, mut left) = (TopicPartitionList::new(), HashMap::new());
    for partition in 0..i32::try_from(partitions)? {
        let (low, high) = consumer.fetch_watermarks(topic, partition, ASK)?;
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
        if high > low {
            left.insert(partition, high);
        }
    }
    consumer.assign(&list)?;
    let mut records = Vec::new();
    while !left.is_empty() {
        let message = consumer
            .poll(ASK)
            .ok_or("the log can't be read to its end")??;
        let header = |name: &str| {
            let headers = message.headers()?;
            let found = headers.iter().find(|it| it.key == name)?;
            Some(String::from_utf8_lossy(found.value?).into_owned())
        };
        records.push(Record {
            id: header("ce_id"),
            value: String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned(),
            position: (
                u64::try_from(message.partition())?,
                u64::try_from(message.offset())?,
            ),
            stream: 0,
            time: u64::try_from(message.timestamp().to_millis().unwrap_or(0)).unwrap_or(0),
        });
        let end = left.get(&message.partition());
        if end.is_some_and(|end| message.offset() + 1 >= *end) {
            left.remove(&message.partition());
        }
    }
    Ok(records)
}

async fn read_stream(
    server: &RedisServer,
    stream: u32,
    topic: &str,
) -> Result<Vec<Record>, Failure> {
    let mut connection = connect(server).await?;
    let (mut records, mut from) = (Vec::new(), "-".to_owned());
    loop {
        let page: Vec<(String, HashMap<String, String>)> = redis::cmd("XRANGE")
            .arg(&[topic, &from, "+", "COUNT", &PAGE.to_string()])
            .query_async(&mut connection)
            .await?;
        let Some((last, _)) = page.last() else {
            return Ok(records);
        };
        from = format!("({last}");
        for (id, fields) in page {
            let attributes = fields.get("ce").map_or("", String::as_str);
            let attributes: Option<serde_json::Value> = serde_json::from_str(attributes).ok();
            let position = entry_id(&id).ok_or("an entry's id has two numbers")?;
            records.push(Record {
                id: attributes.and_then(|it| Some(it.get("id")?.as_str()?.to_owned())),
                value: fields.get("data").cloned().unwrap_or_default(),
                position,
                stream,
                time: position.0,
            });
        }
    }
}

/// The two numbers of an entry's id.
pub(crate) fn entry_id(id: &str) -> Option<(u64, u64)> {
    let (time, number) = id.split_once('-')?;
    Some((time.parse().ok()?, number.parse().ok()?))
}
