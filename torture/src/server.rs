//! The server of a run, the proxy in front of it, and what is read of it past the bus.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use polybus_test_support::{KafkaServer, RedisOptions, RedisSentinels, RedisServer, TcpProxy};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::journal::Step;
use crate::options::Options;
use crate::task::{Durability, Kind};

/// How long a question to the server may take.
const ASK: Duration = Duration::from_secs(10);

/// How long a transaction may stay open: its own timeout, and the pause between two looks of a broker.
const DECIDED_WITHIN: Duration = Duration::from_secs(60);

/// What is not decided yet is read too.
const UNCOMMITTED: &str = "read_uncommitted";

/// How many entries of a stream are read at once.
const PAGE: usize = 5_000;

/// A server, of one node or several, and the proxy in front of each through which all processes reach
/// it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) proxies: Vec<TcpProxy>,
    backend: Backend,
    /// Keeps which events were handled, where they are to be handled once.
    store: Option<RedisServer>,
    idempotency: bool,
    partitions: Option<u32>,
    /// How it is broken, and which node.
    down: Option<(Down, usize)>,
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
    Kafka(Vec<KafkaServer>),
    Redis(RedisServer),
    Sentinels(RedisSentinels),
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
    pub(crate) async fn start(options: &Options) -> Result<Self, Failure> {
        let mut store = None;
        let (backend, proxies) = match options.kind {
            Kind::Kafka => {
                if options.idempotency {
                    store = Some(RedisServer::start().await?);
                }
                let nodes = start_kafka(options.brokers).await?;
                let (nodes, proxies) = nodes.into_iter().unzip();
                (Backend::Kafka(nodes), proxies)
            }
            Kind::Redis if options.sentinels => (
                Backend::Sentinels(RedisSentinels::start().await?),
                Vec::new(),
            ),
            Kind::Redis => {
                let server = start_redis(options.durability).await?;
                let proxy = TcpProxy::in_front_of(server.url()).await?;
                (Backend::Redis(server), vec![proxy])
            }
        };
        Ok(Self {
            proxies,
            backend,
            store,
            idempotency: options.idempotency,
            partitions: options.partitions,
            down: None,
        })
    }

    /// How many nodes it has.
    pub(crate) fn nodes(&self) -> usize {
        self.proxies.len().max(1)
    }

    /// Where processes reach it: `host:port`, or the URLs of sentinels, by commas.
    pub(crate) fn address(&self) -> String {
        if let Backend::Sentinels(servers) = &self.backend {
            return servers.urls().join(",");
        }
        let addresses = self.proxies.iter().map(|it| it.address().to_string());
        addresses.collect::<Vec<_>>().join(",")
    }

    /// Where it is kept which events were handled, if they are to be handled once.
    pub(crate) fn store(&self) -> Option<String> {
        let store = match &self.store {
            Some(store) => store.url().to_owned(),
            None => format!("redis://{}", self.address()),
        };
        self.idempotency.then_some(store)
    }

    /// Lets the server forget everything (Redis).
    pub(crate) async fn wipe(&self) -> Result<(), Failure> {
        if let Some(server) = self.redis().await? {
            let mut connection = connect(server).await?;
            redis::cmd("FLUSHALL").exec_async(&mut connection).await?;
        }
        Ok(())
    }

    /// Where it is past the proxies: `host:port`, by commas.
    pub(crate) fn direct(&self) -> String {
        match &self.backend {
            Backend::Kafka(nodes) => {
                let brokers = nodes.iter().map(KafkaServer::brokers);
                brokers.collect::<Vec<_>>().join(",")
            }
            Backend::Redis(server) => server.url().trim_start_matches("redis://").to_owned(),
            // Of two, whichever is the primary: nobody asks.
            Backend::Sentinels(_) => String::new(),
        }
    }

    /// The Redis that takes writes, if it is Redis.
    async fn redis(&self) -> Result<Option<&RedisServer>, Failure> {
        match &self.backend {
            Backend::Kafka(_) => Ok(None),
            Backend::Redis(server) => Ok(Some(server)),
            Backend::Sentinels(servers) => primary(servers).await.map(Some),
        }
    }

    pub(crate) async fn create_topic(&self, topic: &str) -> Result<(), Failure> {
        if let Backend::Kafka(nodes) = &self.backend {
            nodes[0].create_topic(topic, self.on_kafka()).await?;
        }
        Ok(())
    }

    fn on_kafka(&self) -> u32 {
        self.partitions.unwrap_or(4)
    }

    /// The streams of the topic (Redis).
    fn streams(&self, topic: &str) -> Vec<String> {
        match self.partitions {
            None => vec![topic.to_owned()],
            Some(partitions) => (0..partitions).map(|it| stream_name(topic, it)).collect(),
        }
    }

    /// Breaks a node until it is [restored](Self::restore); of two Redis, the one that takes writes.
    pub(crate) async fn take_down(&mut self, down: Down, node: usize) -> Result<(), Failure> {
        let node = match &self.backend {
            Backend::Sentinels(servers) => {
                usize::from(!std::ptr::eq(primary(servers).await?, servers.primary()))
            }
            _ => node,
        };
        self.down = Some((down, node));
        match down {
            Down::Killed => self.node(node).kill().await,
            Down::Stopped => self.node(node).stop().await,
            Down::Paused => self.node(node).pause().await,
            Down::Starved => self.starve(true).await,
        }
    }

    /// Lets the node serve again, if one was broken.
    pub(crate) async fn restore(&mut self) -> Result<(), Failure> {
        match self.down.take() {
            None => Ok(()),
            Some((Down::Starved, _)) => self.starve(false).await,
            Some((Down::Paused, node)) => self.node(node).resume().await,
            Some((Down::Killed | Down::Stopped, node)) => self.node(node).restart().await,
        }
    }

    fn node(&self, node: usize) -> Node<'_> {
        match &self.backend {
            Backend::Kafka(nodes) => Node::Kafka(&nodes[node]),
            Backend::Redis(server) => Node::Redis(server),
            Backend::Sentinels(servers) if node == 0 => Node::Redis(servers.primary()),
            Backend::Sentinels(servers) => Node::Redis(servers.replica()),
        }
    }

    /// Lets the server have no memory left for events, or as much as it wants (Redis).
    async fn starve(&self, starve: bool) -> Result<(), Failure> {
        let memory = if starve { "1mb" } else { "0" };
        if let Some(server) = self.redis().await? {
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
        if let Some(server) = self.redis().await? {
            let mut connection = connect(server).await?;
            let stream = self.streams(topic).swap_remove(0);
            let entry = [stream.as_str(), "*", "ce", "{", "data", value];
            redis::cmd("XADD")
                .arg(&entry)
                .exec_async(&mut connection)
                .await?;
            return Ok(());
        }
        let (brokers, topic, value) = (self.direct(), topic.to_owned(), value.to_owned());
        blocking(move || write_bare(&brokers, &topic, &value)).await
    }

    /// What the group is done with.
    pub(crate) async fn settled(&self, topic: &str, group: &str) -> Result<Vec<Step>, Failure> {
        if let Some(server) = self.redis().await? {
            return acknowledged(server, &self.streams(topic), group).await;
        }
        let (brokers, topic, group) = (self.direct(), topic.to_owned(), group.to_owned());
        let partitions = self.on_kafka();
        let committed = blocking(move || committed(&brokers, &topic, &group, partitions));
        Ok(vec![committed.await?])
    }

    /// Every record of the topic, those of a partition in order.
    pub(crate) async fn read(&self, topic: &str) -> Result<Vec<Record>, Failure> {
        self.read_all(topic, &self.streams(topic)).await
    }

    /// Every record of a topic that is not partitioned on Redis; none of one that does not exist.
    pub(crate) async fn read_beside(&self, topic: &str) -> Result<Vec<Record>, Failure> {
        self.read_all(topic, &[topic.to_owned()]).await
    }

    async fn read_all(&self, topic: &str, streams: &[String]) -> Result<Vec<Record>, Failure> {
        if let Some(server) = self.redis().await? {
            let mut records = Vec::new();
            for (stream, name) in (0..).zip(streams) {
                records.extend(read_stream(server, stream, name).await?);
            }
            return Ok(records);
        }
        let (brokers, topic) = (self.direct(), topic.to_owned());
        blocking(move || read_topic(&brokers, &topic)).await
    }
}

/// A node of a server.
enum Node<'a> {
    Kafka(&'a KafkaServer),
    Redis(&'a RedisServer),
}

impl Node<'_> {
    async fn kill(&self) -> Result<(), Failure> {
        match self {
            Self::Kafka(server) => Ok(server.kill().await?),
            Self::Redis(server) => Ok(server.kill().await?),
        }
    }

    async fn stop(&self) -> Result<(), Failure> {
        match self {
            Self::Kafka(server) => Ok(server.stop().await?),
            Self::Redis(server) => Ok(server.stop().await?),
        }
    }

    async fn pause(&self) -> Result<(), Failure> {
        match self {
            Self::Kafka(server) => Ok(server.pause().await?),
            Self::Redis(server) => Ok(server.pause().await?),
        }
    }

    async fn resume(&self) -> Result<(), Failure> {
        match self {
            Self::Kafka(server) => Ok(server.resume().await?),
            Self::Redis(server) => Ok(server.resume().await?),
        }
    }

    async fn restart(&self) -> Result<(), Failure> {
        match self {
            Self::Kafka(server) => Ok(server.restart().await?),
            Self::Redis(server) => Ok(server.restart().await?),
        }
    }
}

/// The one of two that the sentinels say takes writes.
async fn primary(servers: &RedisSentinels) -> Result<&RedisServer, Failure> {
    let mut last = Failure::from("there is no sentinel");
    for url in servers.urls() {
        match primary_by(&url).await {
            Ok(port) => {
                let is = |it: &&RedisServer| it.url().ends_with(&format!(":{port}"));
                let found = [servers.primary(), servers.replica()].into_iter().find(is);
                return found.ok_or_else(|| "the sentinels tell of a stranger".into());
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn primary_by(sentinel: &str) -> Result<u16, Failure> {
    let mut connection = connect_to(sentinel).await?;
    let (_, port): (String, u16) = redis::cmd("SENTINEL")
        .arg(&["get-master-addr-by-name", RedisSentinels::MASTER])
        .query_async(&mut connection)
        .await?;
    Ok(port)
}

async fn start_kafka(nodes: usize) -> Result<Vec<(KafkaServer, TcpProxy)>, Failure> {
    if nodes > 1 {
        return Ok(KafkaServer::start_cluster().await?);
    }
    let proxy = TcpProxy::start().await?;
    Ok(vec![(KafkaServer::start_behind(&proxy).await?, proxy)])
}

async fn start_redis(durability: Durability) -> Result<RedisServer, Failure> {
    let options = RedisOptions::new();
    let options = match durability {
        Durability::Always => options,
        Durability::Everysec => options.line("appendfsync everysec"),
        Durability::None => options.line("appendonly no"),
    };
    Ok(options.start().await?)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await?
}

async fn connect(server: &RedisServer) -> Result<redis::aio::MultiplexedConnection, Failure> {
    connect_to(server.url()).await
}

async fn connect_to(url: &str) -> Result<redis::aio::MultiplexedConnection, Failure> {
    let client = redis::Client::open(url)?;
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
    // What the server says is the lag is wrong after a restart.
    let unread: Vec<redis::Value> = redis::cmd("XRANGE")
        .arg(&[topic, &format!("({last}"), "+", "COUNT", "1000"])
        .query_async(connection)
        .await?;
    // After the position: what is delivered between the two is not taken for acknowledged.
    let pending: Vec<(String, String, u64, u64)> = redis::cmd("XPENDING")
        .arg(&[topic, group, "-", "+", "1000000"])
        .query_async(connection)
        .await?;
    let lag = (unread.len() + pending.len()) as u64;
    let pending = pending.into_iter().map(|(id, ..)| id).collect();
    Ok(Step::Acknowledged {
        stream,
        last,
        pending,
        lag,
    })
}

fn asking(brokers: &str, group: &str, isolation: &str) -> Result<BaseConsumer, Failure> {
    let consumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", isolation)
        .create()?;
    Ok(consumer)
}

fn committed(brokers: &str, topic: &str, group: &str, partitions: u32) -> Result<Step, Failure> {
    let consumer = asking(brokers, group, UNCOMMITTED)?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions.cast_signed() {
        list.add_partition(topic, partition);
    }
    let committed = consumer.committed_offsets(list, ASK)?;
    let (mut offsets, mut lag) = (Vec::new(), 0);
    for element in committed.elements() {
        // A broker that is just back may not know yet.
        element.error()?;
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

/// What is stored for good, once all is decided.
fn read_topic(brokers: &str, topic: &str) -> Result<Vec<Record>, Failure> {
    let consumer = asking(brokers, "judge", "read_committed")?;
    let metadata = consumer.fetch_metadata(Some(topic), ASK)?;
    let partitions = metadata
        .topics()
        .first()
        .map_or(0, |it| it.partitions().len());
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions)? {
        until_decided(brokers, topic, partition)?;
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let (mut records, mut left) = (Vec::new(), partitions);
    while left > 0 {
        let message = match consumer.poll(ASK) {
            None => return Err("the log can't be read to its end".into()),
            Some(Err(KafkaError::PartitionEOF(_))) => {
                left -= 1;
                continue;
            }
            Some(message) => message?,
        };
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
    }
    Ok(records)
}

/// Waits until no transaction is open: what a killed process left is given up by the broker in time.
fn until_decided(brokers: &str, topic: &str, partition: i32) -> Result<(), Failure> {
    let end = |isolation| -> Result<i64, Failure> {
        let (_, end) =
            asking(brokers, "judge", isolation)?.fetch_watermarks(topic, partition, ASK)?;
        Ok(end)
    };
    let late = Instant::now() + DECIDED_WITHIN;
    while end("read_committed")? < end(UNCOMMITTED)? {
        if Instant::now() > late {
            return Err("a transaction is never decided".into());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
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
