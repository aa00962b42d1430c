//! The client's settings, as this transport means them, and its log lines.

use std::time::Duration;

use polybus_core::Text;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use crate::config::{GroupProtocol, KafkaConfig};
use crate::writing::Format;
use crate::{access, properties};

/// As large as any broker allows in practice: the broker's own limit decides, and its answer
/// says so.
const LARGEST_RECORD_BYTES: u32 = 128 << 20;

/// How long a topic that the broker does not know yet is waited for. The client's own 30 s
/// would use up the delivery deadline.
pub(crate) const TOPIC_APPEARS_WITHIN: Duration = Duration::from_secs(3);

/// The longest pause between attempts to reach a broker that is gone. The client's own 10 s
/// keep everything waiting that long after the broker is back.
const LONGEST_RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// What the client and brokers take for the length of a transaction, unless they are set otherwise.
const SHORTEST_TRANSACTION: Duration = Duration::from_secs(1);
const LONGEST_TRANSACTION: Duration = Duration::from_secs(15 * 60);

/// How long the client waits for an answer: its own default.
const REQUEST_ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// A client that asks, and neither publishes nor joins a group.
pub(crate) fn asking(config: &KafkaConfig, client_id: &Text) -> ClientConfig {
    finish(grouped(base(config, client_id), config), config)
}

pub(crate) fn publishing(config: &KafkaConfig, client_id: &Text) -> ClientConfig {
    let mut client = base(config, client_id);
    client
        .set(
            "enable.idempotence",
            properties::allow_idempotence(config).to_string(),
        )
        .set("acks", config.acks.name())
        .set("partitioner", config.partitioner.name())
        .set("compression.codec", config.compression.name())
        .set("linger.ms", milliseconds(config.linger))
        .set("message.timeout.ms", milliseconds(config.delivery_deadline))
        .set("message.max.bytes", LARGEST_RECORD_BYTES.to_string())
        .set(
            "topic.metadata.propagation.max.ms",
            milliseconds(TOPIC_APPEARS_WITHIN),
        )
        .set(
            "queue.buffering.max.messages",
            config.publish_queue_events.to_string(),
        )
        .set(
            "queue.buffering.max.kbytes",
            kibibytes(config.publish_queue_bytes),
        );
    finish(client, config)
}

/// A member of a group, which keeps its place by the name of `instance`.
pub(crate) fn member(
    config: &KafkaConfig,
    client_id: &Text,
    group: &str,
    instance: Option<&Text>,
) -> ClientConfig {
    let mut client = reading(config, client_id, group);
    if let Some(instance) = instance
        && properties::find(config, "group.instance.id").is_none()
    {
        client.set("group.instance.id", instance.as_str());
    }
    client
}

/// How a producer that publishes in transactions is made, and how it writes.
#[derive(Debug)]
pub(crate) struct Transactional {
    pub(crate) client: ClientConfig,
    pub(crate) format: Format,
}

/// A producer that publishes in transactions, under an id of its own.
pub(crate) fn transactional(config: &KafkaConfig, client_id: &Text, id: &str) -> Transactional {
    let mut client = publishing(config, client_id);
    // A transaction takes no longer than a delivery may: brokers give up what lasts longer.
    let lasts = config
        .delivery_deadline
        .clamp(SHORTEST_TRANSACTION, LONGEST_TRANSACTION);
    for (name, value) in [
        ("transaction.timeout.ms", lasts),
        ("message.timeout.ms", config.delivery_deadline.min(lasts)),
        // The client wants it shorter than a transaction.
        ("socket.timeout.ms", REQUEST_ANSWERED_WITHIN.min(lasts / 2)),
    ] {
        if properties::find(config, name).is_none() {
            client.set(name, milliseconds(value));
        }
    }
    client.set("enable.idempotence", "true");
    client.set("transactional.id", id);
    Transactional {
        client,
        format: config.format,
    }
}

/// A client that asks for a group's position.
pub(crate) fn reading(config: &KafkaConfig, client_id: &Text, group: &str) -> ClientConfig {
    let mut client = base(config, client_id);
    client
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // Where a group has no position nobody has read: nothing is skipped.
        .set("auto.offset.reset", "earliest")
        // What a transaction stores is seen when it is stored for good, and not if it is not.
        .set("isolation.level", "read_committed")
        // How long the client asks for nothing when `fetch_buffer` is full: less than a reader of 1 GB/s
        // takes to empty it.
        .set("fetch.queue.backoff.ms", "2")
        // How long a broker waits for something new before it answers. The client asks for what had
        // room when it looked, one partition after the other: where that left out the one that has
        // something, it waits as long.
        .set("fetch.wait.max.ms", "100")
        .set("queued.max.messages.kbytes", kibibytes(config.fetch_buffer))
        .set(
            "topic.metadata.refresh.interval.ms",
            milliseconds(config.discovery_interval),
        );
    finish(grouped(client, config), config)
}

/// Keeps the marks of a group as the positions of another one, which it never joins.
pub(crate) fn marking(config: &KafkaConfig, client_id: &Text, group: &str) -> ClientConfig {
    let mut client = reading(config, client_id, &format!("{group}.marks"));
    client.set_log_level(RDKafkaLogLevel::Emerg);
    client
}

/// Whether brokers share out the partitions (KIP-848), not a member.
pub(crate) fn is_broker_side(config: &KafkaConfig) -> bool {
    match properties::find(config, "group.protocol") {
        Some(protocol) => protocol == "consumer",
        None => config.group_protocol == GroupProtocol::Consumer,
    }
}

/// How a consumer is a member. Also for one that never is: the client checks all settings
/// against each other.
fn grouped(mut client: ClientConfig, config: &KafkaConfig) -> ClientConfig {
    if is_broker_side(config) {
        client.set("group.protocol", "consumer");
    } else {
        // The brokers keep these two to themselves otherwise, and the client refuses them.
        client
            .set("session.timeout.ms", milliseconds(config.session_timeout))
            .set("partition.assignment.strategy", "cooperative-sticky");
    }
    client
}

fn base(config: &KafkaConfig, client_id: &Text) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", config.brokers())
        .set("client.id", client_id.as_str())
        .set(
            "reconnect.backoff.max.ms",
            milliseconds(LONGEST_RECONNECT_PAUSE),
        )
        .set_log_level(RDKafkaLogLevel::Info);
    access::apply(&mut client, config);
    client
}

fn finish(mut client: ClientConfig, config: &KafkaConfig) -> ClientConfig {
    properties::apply(&mut client, config);
    if properties::find(config, "debug").is_some() {
        client.set_log_level(RDKafkaLogLevel::Debug);
    }
    client
}

fn milliseconds(duration: Duration) -> String {
    duration.as_millis().to_string()
}

fn kibibytes(bytes: u64) -> String {
    bytes.div_ceil(1024).to_string()
}

/// Log lines of the client, as events of `tracing` with the target `librdkafka`. A broker that
/// is away is its everyday life: nothing is above a warning.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => {
            tracing::warn!(target: "librdkafka", facility, "{line}");
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", facility, "{line}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{line}"),
    }
}

/// An error that the client reports beside the answer to any call.
pub(crate) fn log_error(error: &KafkaError, reason: &str) {
    tracing::warn!(target: "librdkafka", "{error}: {reason}");
}
