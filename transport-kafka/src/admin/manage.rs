//! Topics as the brokers keep them: their names, settings and partitions.

use std::collections::BTreeMap;
use std::time::Duration;

use polybus_core::topic::{Cleanup, Limit, TopicCompression, TopicSetting, TopicSettings};
use polybus_core::transport::TopicSpec;
use polybus_core::{ErrorKind, Result, Text};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigResource, ConfigSource, NewPartitions, NewTopic,
    ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{FromClientConfig, RDKafkaLogLevel};
use rdkafka::error::RDKafkaErrorCode;
use tokio::time::{sleep, timeout_at};

use super::KafkaAdmin;
use crate::asking::{OffThread, PAUSE};
use crate::client;

/// What Kafka has of a topic's settings.
pub(super) const SETTINGS: &[TopicSetting] = &[
    TopicSetting::Partitions,
    TopicSetting::Replication,
    TopicSetting::Retention,
    TopicSetting::RetentionBytes,
    TopicSetting::Cleanup,
    TopicSetting::Compression,
    TopicSetting::MaxMessageSize,
    TopicSetting::Property(Text::new_static("")),
];

/// What the names of topics begin with that brokers keep for themselves.
const INTERNAL: &str = "__";

const RETENTION: &str = "retention.ms";
const RETENTION_BYTES: &str = "retention.bytes";
const CLEANUP: &str = "cleanup.policy";
const COMPRESSION: &str = "compression.type";
const MESSAGE_SIZE: &str = "max.message.bytes";

const ALTER: &str = "alter topics";

type Client = OffThread<AdminClient<DefaultClientContext>>;

impl KafkaAdmin {
    pub(super) fn managing(&self, operation: &'static str) -> Result<(Client, AdminOptions)> {
        let mut settings = client::asking(&self.config, &self.client_id);
        settings.set_log_level(RDKafkaLogLevel::Emerg);
        let client = AdminClient::from_config(&settings)
            .map_err(|error| self.origin.client(operation, error))?;
        let within = self.config.operation_deadline;
        let options = AdminOptions::new()
            .request_timeout(Some(within))
            .operation_timeout(Some(within));
        Ok((OffThread::new(client), options))
    }

    /// The names of all topics but those of the brokers themselves.
    pub(super) async fn names(&self) -> Result<Vec<Text>> {
        let names = self.ask("list topics", |own, within| {
            own.asking.topics(within).map_err(|error| (None, error))
        });
        let names = names.await?.into_iter();
        let mut names: Vec<Text> = names
            .filter(|name| !name.starts_with(INTERNAL))
            .map(Text::from)
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The settings of topics that exist, in the order asked. Empty for one whose settings this
    /// client may not see.
    pub(super) async fn settings(&self, topics: &[&str]) -> Result<Vec<TopicSettings>> {
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        let (client, options) = self.managing("describe")?;
        let asked = self.configs(&client, &options, "describe", topics);
        let deadline = tokio::time::Instant::now() + self.config.operation_deadline;
        let told = timeout_at(deadline, asked).await;
        let told = told.unwrap_or_else(|_| Err(self.late("describe")))?;
        Ok(told.iter().map(read).collect())
    }

    async fn configs(
        &self,
        client: &Client,
        options: &AdminOptions,
        operation: &'static str,
        topics: &[&str],
    ) -> Result<Vec<ConfigResource>> {
        let asked: Vec<_> = topics
            .iter()
            .map(|it| ResourceSpecifier::Topic(it))
            .collect();
        let told = client.describe_configs(&asked, options).await;
        let told = told.map_err(|error| self.origin.client(operation, error))?;
        if told.len() != topics.len() {
            let why = "the brokers did not tell the settings of every topic";
            return Err(self.origin.error(operation, ErrorKind::Transport, why));
        }
        let told = told.into_iter().zip(topics);
        told.map(|(told, topic)| {
            told.map_err(|code| self.origin.code(operation, code).with_topic(*topic))
        })
        .collect()
    }

    /// Changes one topic, which has to exist.
    pub(super) async fn change(&self, topic: &TopicSpec) -> Result<()> {
        let found = self.shape(&topic.name).await?;
        let Some((partitions, _)) = found else {
            let why = "the topic does not exist";
            let error = self.origin.error(ALTER, ErrorKind::TopicNotFound, why);
            return Err(error.with_topic(topic.name.clone()));
        };
        let wanted = topic.partitions.unwrap_or(partitions);
        if wanted < partitions {
            let why = format!("it has {partitions} partitions, and {wanted} are wanted");
            let error = self.origin.error(ALTER, ErrorKind::Refused, why);
            return Err(error
                .with_topic(topic.name.clone())
                .with_note("partitions can't be taken away: route to a new topic instead"));
        }
        let (client, options) = self.managing(ALTER)?;
        self.set(&client, &options, topic).await?;
        if wanted > partitions {
            self.add_partitions(&client, &options, &topic.name, wanted)
                .await?;
        }
        Ok(())
    }

    /// The numbers of a topic's partitions and of their replicas.
    pub(super) async fn shape(&self, topic: &str) -> Result<Option<(u32, u16)>> {
        let topic = topic.to_owned();
        self.ask("describe", move |own, within| {
            let shape = own.asking.shape(&topic, within);
            shape.map_err(|error| (Some(topic), error))
        })
        .await
    }

    /// Sets what is specified. The brokers take all settings of a topic at once, so those that it has
    /// of its own go along.
    async fn set(&self, client: &Client, options: &AdminOptions, topic: &TopicSpec) -> Result<()> {
        let wanted = written(&topic.settings);
        if wanted.is_empty() {
            return Ok(());
        }
        let name = topic.name.as_str();
        let found = self.configs(client, options, ALTER, &[name]).await?;
        let mut all = own(&found[0]);
        if wanted
            .iter()
            .all(|(key, value)| all.get(key) == Some(value))
        {
            return Ok(());
        }
        all.extend(wanted.clone());
        let change = all.iter().fold(
            AlterConfig::new(ResourceSpecifier::Topic(name)),
            |change, (key, value)| change.set(key, value),
        );
        let changed = client.alter_configs(&[change], options).await;
        for result in changed.map_err(|error| self.origin.client(ALTER, error))? {
            result.map_err(|(_, code)| self.origin.code(ALTER, code).with_topic(name))?;
        }
        // Every broker hears of it, each a moment later.
        loop {
            let found = self.configs(client, options, ALTER, &[name]).await?;
            let now = own(&found[0]);
            if wanted
                .iter()
                .all(|(key, value)| now.get(key) == Some(value))
            {
                return Ok(());
            }
            sleep(PAUSE).await;
        }
    }

    async fn add_partitions(
        &self,
        client: &Client,
        options: &AdminOptions,
        topic: &str,
        count: u32,
    ) -> Result<()> {
        let new = NewPartitions::new(topic, count as usize);
        let added = client.create_partitions(&[new], options).await;
        for result in added.map_err(|error| self.origin.client(ALTER, error))? {
            match result {
                Ok(_) => {}
                // Somebody else has added them meanwhile.
                Err((_, RDKafkaErrorCode::InvalidPartitions))
                    if self
                        .shape(topic)
                        .await?
                        .is_some_and(|(now, _)| now >= count) => {}
                Err((_, code)) => return Err(self.origin.code(ALTER, code).with_topic(topic)),
            }
        }
        while self.shape(topic).await?.is_none_or(|(now, _)| now < count) {
            sleep(PAUSE).await;
        }
        Ok(())
    }
}

/// A topic in the client's words.
pub(super) fn new_topic<'a>(
    topic: &'a TopicSpec,
    settings: &'a BTreeMap<String, String>,
) -> NewTopic<'a> {
    // -1 is the broker's default, for both.
    let partitions = topic.partitions.map_or(-1, saturating);
    let replication = topic.replication.map_or(-1, i32::from);
    let replication = TopicReplication::Fixed(replication);
    let new = NewTopic::new(&topic.name, partitions, replication);
    let settings = settings.iter();
    settings.fold(new, |new, (key, value)| new.set(key, value))
}

/// The settings in the brokers' words.
pub(super) fn written(settings: &TopicSettings) -> BTreeMap<String, String> {
    let bound = |limit: Limit<u128>| match limit {
        Limit::Unlimited => "-1".to_owned(),
        Limit::At(bound) => i64::try_from(bound).unwrap_or(i64::MAX).to_string(),
    };
    let time = settings.retention.map(|limit| match limit {
        Limit::Unlimited => Limit::Unlimited,
        Limit::At(time) => Limit::At(time.as_millis()),
    });
    let bytes = settings.retention_bytes.map(|limit| match limit {
        Limit::Unlimited => Limit::Unlimited,
        Limit::At(bytes) => Limit::At(u128::from(bytes)),
    });
    let cleanup = settings.cleanup.map(|cleanup| match cleanup {
        Cleanup::CompactDelete => "compact,delete",
        cleanup => cleanup.as_str(),
    });
    let compression = settings.compression.map(|compression| match compression {
        TopicCompression::None => "uncompressed",
        compression => compression.as_str(),
    });
    let known = [
        (RETENTION, time.map(bound)),
        (RETENTION_BYTES, bytes.map(bound)),
        (CLEANUP, cleanup.map(str::to_owned)),
        (COMPRESSION, compression.map(str::to_owned)),
        (
            MESSAGE_SIZE,
            settings.max_message_size.map(|size| size.to_string()),
        ),
    ];
    let known = known.into_iter();
    let known = known.filter_map(|(key, value)| Some((key.to_owned(), value?)));
    let properties = settings.properties.iter();
    let properties = properties.map(|(key, value)| (key.to_string(), value.to_string()));
    properties.chain(known).collect()
}

/// What is set for the topic itself.
fn own(told: &ConfigResource) -> BTreeMap<String, String> {
    let own = told.entries.iter();
    let own = own.filter(|entry| entry.source == ConfigSource::DynamicTopic);
    own.filter_map(|entry| Some((entry.name.clone(), entry.value.clone()?)))
        .collect()
}

/// The settings as they are in force.
fn read(told: &ConfigResource) -> TopicSettings {
    let value = |key: &str| told.get(key).and_then(|entry| entry.value.as_deref());
    let number = |key: &str| value(key).and_then(|value| value.parse::<i64>().ok());
    let limit = |number: i64| u64::try_from(number).map_or(Limit::Unlimited, Limit::At);
    let mut settings = TopicSettings::default();
    settings.retention = number(RETENTION).map(|millis| match limit(millis) {
        Limit::At(millis) => Limit::At(Duration::from_millis(millis)),
        Limit::Unlimited => Limit::Unlimited,
    });
    settings.retention_bytes = number(RETENTION_BYTES).map(limit);
    settings.max_message_size = number(MESSAGE_SIZE).and_then(|size| u64::try_from(size).ok());
    settings.cleanup = value(CLEANUP).and_then(|policy| match policy {
        "delete" => Some(Cleanup::Delete),
        "compact" => Some(Cleanup::Compact),
        "compact,delete" | "delete,compact" => Some(Cleanup::CompactDelete),
        _ => None,
    });
    settings.compression = value(COMPRESSION).and_then(|kind| match kind {
        "producer" => Some(TopicCompression::Producer),
        "uncompressed" => Some(TopicCompression::None),
        "gzip" => Some(TopicCompression::Gzip),
        "snappy" => Some(TopicCompression::Snappy),
        "lz4" => Some(TopicCompression::Lz4),
        "zstd" => Some(TopicCompression::Zstd),
        _ => None,
    });
    const KNOWN: [&str; 5] = [
        RETENTION,
        RETENTION_BYTES,
        CLEANUP,
        COMPRESSION,
        MESSAGE_SIZE,
    ];
    let further = own(told).into_iter();
    let further = further.filter(|(key, _)| !KNOWN.contains(&key.as_str()));
    settings.properties = further
        .map(|(key, value)| (key.into(), value.into()))
        .collect();
    settings
}

fn saturating(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
