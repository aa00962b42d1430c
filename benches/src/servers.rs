//! The servers, started when a case first needs them, and what is asked of them beside what is
//! measured.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use polybus::BoxError;
use polybus_test_support::{KafkaServer, RedisOptions, RedisServer, unique_name};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::TopicPartitionList;
use redis::aio::MultiplexedConnection;
use redis::streams::StreamInfoGroupsReply;
use tokio::sync::OnceCell;

use crate::measure::check;
use crate::raw::redis::connect;

/// How long a question to a broker may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The servers of a run.
#[derive(Debug, Default)]
pub struct Servers {
    kafka: OnceCell<KafkaServer>,
    redis: OnceCell<RedisServer>,
}

impl Servers {
    /// The brokers.
    pub async fn kafka(&self) -> Result<Kafka, BoxError> {
        let server = self.kafka.get_or_try_init(KafkaServer::start).await?;
        Ok(Kafka {
            brokers: server.brokers().to_owned(),
        })
    }

    /// A Redis that keeps nothing on disk.
    pub async fn redis(&self) -> Result<Redis, BoxError> {
        let server = self.redis.get_or_try_init(|| RedisOptions::new().start());
        let url = server.await?.url().to_owned();
        let mut connection = connect(&url).await?;
        redis::cmd("CONFIG")
            .arg(&["SET", "appendonly", "no", "save", ""])
            .exec_async(&mut connection)
            .await?;
        Ok(Redis { url, connection })
    }
}

/// A Kafka, as an observer sees it.
#[derive(Debug, Clone)]
pub struct Kafka {
    pub brokers: String,
}

/// A topic of this run.
#[derive(Debug)]
pub struct KafkaTopic {
    kafka: Kafka,
    pub name: String,
    partitions: i32,
    seen: AtomicU64,
}

impl Kafka {
    /// Makes a topic of a new name.
    pub async fn topic(&self, partitions: usize) -> Result<KafkaTopic, BoxError> {
        let name = unique_name("bench");
        let admin: AdminClient<_> = self.client().create()?;
        let replication = TopicReplication::Fixed(1);
        let topic = NewTopic::new(&name, i32::try_from(partitions)?, replication);
        let made = admin.create_topics([&topic], &AdminOptions::new()).await?;
        made.into_iter()
            .try_for_each(|made| made.map(drop))
            .map_err(|(topic, code)| format!("{topic} was not made: {code}"))?;
        Ok(KafkaTopic {
            kafka: self.clone(),
            name,
            partitions: i32::try_from(partitions)?,
            seen: AtomicU64::new(0),
        })
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers);
        client
    }
}

impl KafkaTopic {
    /// Fails unless the topic has so many records more than at the last call.
    pub async fn gained(&self, case: &str, expected: usize) -> Result<u64, BoxError> {
        let all = self.records().await?;
        let gained = all - self.seen.swap(all, Ordering::Relaxed);
        check(case, gained, expected)
    }

    /// How many partitions it has.
    pub fn partitions(&self) -> i32 {
        self.partitions
    }

    /// Fails unless a group has committed so many records.
    pub async fn committed(&self, group: &str, expected: usize) -> Result<u64, BoxError> {
        let mut client = self.kafka.client();
        client.set("group.id", group);
        let (name, partitions) = (self.name.clone(), self.partitions);
        let asking = move || -> Result<u64, BoxError> {
            let client: BaseConsumer = client.create()?;
            let mut asked = TopicPartitionList::new();
            asked.add_partition_range(&name, 0, partitions - 1);
            let committed = client.committed_offsets(asked, ANSWER_WITHIN)?;
            let offsets = committed.elements().into_iter().map(|it| it.offset());
            let offsets = offsets.filter_map(|it| u64::try_from(it.to_raw()?).ok());
            Ok(offsets.sum())
        };
        let committed = tokio::task::spawn_blocking(asking).await??;
        check(&format!("committed of {group}"), committed, expected)
    }

    /// Deletes it: a run would fill the disk.
    pub async fn delete(self) -> Result<(), BoxError> {
        let admin: AdminClient<_> = self.kafka.client().create()?;
        admin
            .delete_topics(&[&self.name], &AdminOptions::new())
            .await?;
        Ok(())
    }

    async fn records(&self) -> Result<u64, BoxError> {
        let (client, name, partitions) = (self.kafka.client(), self.name.clone(), self.partitions);
        let counting = move || -> Result<u64, BoxError> {
            let client: BaseConsumer = client.create()?;
            let mut records = 0;
            for partition in 0..partitions {
                let (first, next) = client.fetch_watermarks(&name, partition, ANSWER_WITHIN)?;
                records += u64::try_from(next - first)?;
            }
            Ok(records)
        };
        tokio::task::spawn_blocking(counting).await?
    }
}

/// A Redis, as an observer sees it.
#[derive(Debug, Clone)]
pub struct Redis {
    pub url: String,
    connection: MultiplexedConnection,
}

impl Redis {
    /// Fails unless a stream has so many entries. Deletes it, for the memory that it takes.
    pub async fn take(&self, case: &str, stream: &str, expected: usize) -> Result<u64, BoxError> {
        let mut connection = self.connection.clone();
        let mut length = redis::cmd("XLEN");
        let entries = length.arg(stream).query_async(&mut connection).await?;
        check(case, entries, expected)?;
        redis::cmd("DEL")
            .arg(stream)
            .exec_async(&mut connection)
            .await?;
        Ok(entries)
    }

    /// Fails unless a group has read and acknowledged all of a stream.
    pub async fn acknowledged(
        &self,
        stream: &str,
        group: &str,
        expected: usize,
    ) -> Result<u64, BoxError> {
        let mut connection = self.connection.clone();
        let groups: StreamInfoGroupsReply = redis::cmd("XINFO")
            .arg(&["GROUPS", stream])
            .query_async(&mut connection)
            .await?;
        let found = groups.groups.into_iter().find(|it| it.name == group);
        let found = found.ok_or("the group is gone")?;
        let read = found.entries_read.unwrap_or_default();
        check(group, (read - found.pending) as u64, expected)
    }
}
