use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use polybus_core::Text;
use polybus_core::config::fields;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::access::{self, SaslMechanism, Secret};
use crate::properties::Property;
use crate::writing::{Acks, Compression, Format, Partitioner};

/// The longest that the client waits for further events.
const LONGEST_LINGER: Duration = Duration::from_secs(900);

/// The settings of a Kafka transport.
///
/// Durations are written as `"500ms"` or `"10s"`, sizes as `"8MiB"` or in bytes. `Debug` hides
/// passwords, and the values of [`properties`](Self::properties), which may be secret.
///
/// ```
/// use polybus_kafka::KafkaConfig;
///
/// let mut config = KafkaConfig::new(["127.0.0.1:9092"]);
/// config.client_id = Some("deal-monitor".into());
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct KafkaConfig {
    /// The brokers to ask first, as `host:port`. At least one; the others are found through it.
    pub brokers: Vec<String>,
    /// The name that the brokers' logs and quotas know this client by. Default: the name of the
    /// service.
    pub client_id: Option<String>,
    /// What this process is known by where it publishes in transactions. At most one running
    /// process may have it, as each shuts out the one before: `"shop-${HOSTNAME}"`, say. A process
    /// that starts again under the same id ends at once what it left open; without that, readers
    /// wait for open transactions until `delivery_deadline` is over. Default: made up, unique.
    pub transactional_id: Option<String>,
    /// Whether connections are encrypted, by TLS 1.2 or 1.3. Then the certificate of a broker must
    /// name the host that stands in `brokers` (and the one that the broker gives itself) and come
    /// from an authority of `ca_file`. Default: false.
    pub tls: bool,
    /// A PEM file of the authorities from which the brokers' certificates may come; no others are
    /// accepted then. Needs `tls`. This file, and the two below, are read when the transport
    /// connects and for each publisher and subscription. Default: the authorities that the
    /// operating system trusts.
    pub ca_file: Option<PathBuf>,
    /// A PEM file with the certificate that is shown to the brokers, and those between it and its
    /// authority. Needs `tls` and `key_file`. Default: none is shown.
    pub certificate_file: Option<PathBuf>,
    /// A PEM file with the private key of `certificate_file`. Default: none.
    pub key_file: Option<PathBuf>,
    /// The password of `key_file`, if it is encrypted. Never shown. Default: none.
    pub key_password: Option<Secret>,
    /// How to log in: `"SCRAM-SHA-512"`, `"SCRAM-SHA-256"`, `"PLAIN"` or `"OAUTHBEARER"`. Needs
    /// `user`, and `password` but for the last, see [`SaslMechanism`]. Default: no login.
    pub sasl_mechanism: Option<SaslMechanism>,
    /// The user to log in as. Needs `sasl_mechanism`. Default: none.
    pub user: Option<Text>,
    /// The password of `user`. Never shown. Default: none.
    pub password: Option<Secret>,
    /// How long to wait for the brokers when a transport, a publisher or a subscriber is made.
    /// Default: 10 s.
    #[serde(deserialize_with = "fields::duration")]
    pub connect_deadline: Duration,
    /// How long a call of [`Admin`](polybus_core::transport::Admin) may take, and a commit when
    /// a partition is handed over. Default: 10 s.
    #[serde(deserialize_with = "fields::duration")]
    pub operation_deadline: Duration,
    /// How long a publish may take, the client's retries included. Default: 30 s.
    #[serde(deserialize_with = "fields::duration")]
    pub delivery_deadline: Duration,
    /// How events are written: `"default"` (CloudEvents in binary mode) or `"plain"` (data and key
    /// alone), see [`Format`]. Every format is read, whatever this says. Default: `"default"`.
    pub format: Format,
    /// How the records of a request are compressed: `"none"`, `"gzip"`, `"snappy"`, `"lz4"` or
    /// `"zstd"`. Default: `"none"`.
    pub compression: Compression,
    /// Which replicas have an event before it is accepted: `"all"` that are in sync, `1` for the
    /// leader alone, `0` for none. Anything but `"all"` gives up what is promised of accepted events,
    /// with a warning, and publishing is not idempotent then: see [`Acks`]. Default: `"all"`.
    pub acks: Acks,
    /// Which partition an event goes to by its key, see [`Partitioner`]. Default:
    /// `"murmur2_random"`, the one that Java clients choose.
    pub partitioner: Partitioner,
    /// How long to wait for further events before a request is sent, in steps of a millisecond.
    /// Requests fill by themselves while others are under way. Less than `delivery_deadline`, and
    /// at most 15 min. Default: 0 ms.
    #[serde(deserialize_with = "fields::duration")]
    pub linger: Duration,
    /// How many events wait to be sent, at most; then publishing waits. Default: 100,000.
    pub publish_queue_events: u32,
    /// How many bytes wait to be sent, at most; then publishing waits. Default: 64 MiB.
    #[serde(deserialize_with = "size")]
    pub publish_queue_bytes: u64,
    /// Who shares out the partitions of a group: `"classic"`, one of its members, or `"consumer"`,
    /// the brokers (KIP-848, from Kafka 4.0 on; `session_timeout` is theirs to set then). All members
    /// of a group must have the same. Default: `"classic"`.
    pub group_protocol: GroupProtocol,
    /// The name of this process as a member of its groups, for subscriptions that name none
    /// ([`Subscription::member`](polybus_core::transport::Subscription::member)). Two processes must
    /// not have the same, nor two transports of a bus to the same brokers: `"${HOSTNAME}"` of a pod in
    /// a stateful set is a good one. Default: none.
    pub member: Option<Text>,
    /// Whether a group keeps the place of a member that is gone, by its name, for `session_timeout`
    /// (`group.instance.id`): one that comes back in that time goes on with its partitions, and the
    /// others notice nothing. Nobody reads its partitions meanwhile, also after a `close`. Needs
    /// `member`, or subscriptions that name theirs. Default: false.
    pub static_membership: bool,
    /// How long joining a group may take. Default: 30 s.
    #[serde(deserialize_with = "fields::duration")]
    pub join_deadline: Duration,
    /// How long a member may be out of touch before the group goes on without it, in the classic
    /// protocol. Brokers allow 6 s to 30 min unless set otherwise. Default: 10 s.
    #[serde(deserialize_with = "fields::duration")]
    pub session_timeout: Duration,
    /// How often the position of a group is written to the server while it moves. After a crash
    /// the events of this time come again. Default: 500 ms.
    #[serde(deserialize_with = "fields::duration")]
    pub commit_interval: Duration,
    /// How long a partition that is to be handed over waits for what was delivered to be
    /// settled. What is not settled by then is delivered again to the next owner. Default: 10 s.
    #[serde(deserialize_with = "fields::duration")]
    pub drain_deadline: Duration,
    /// How many events a subscriber keeps ready for `recv`, at most. Default: 10,000.
    pub buffer_events: usize,
    /// How many bytes of events a subscriber keeps ready for `recv`, at most; one event more
    /// when it is larger than what is left. Default: 16 MiB.
    #[serde(deserialize_with = "size")]
    pub buffer_bytes: u64,
    /// How many bytes the client reads ahead, for all partitions of a subscription together: it asks
    /// for more as long as it has less, so that one answer of a broker may come on top. A partition at
    /// its `unsettled_limit` has as much for itself. More costs memory, and time: what waits long has
    /// left the processor's caches when it is handled. Default: 4 MiB.
    #[serde(deserialize_with = "size")]
    pub fetch_buffer: u64,
    /// How many deliveries of one partition may stand behind one that is not settled; then the
    /// partition is not read any further until it is. Default: 100,000.
    pub unsettled_limit: usize,
    /// How often topics that fit a pattern, and new partitions, are looked for. Default: 30 s.
    #[serde(deserialize_with = "fields::duration")]
    pub discovery_interval: Duration,
    /// Settings of the client library under its own names
    /// ([list](https://github.com/confluentinc/librdkafka/blob/v2.12.1/CONFIGURATION.md)), as
    /// `"socket.keepalive.enable" = true`. They win over every other setting, those that the promises
    /// of this transport rest on (`acks`, `enable.auto.commit`) included; then a warning by `tracing`
    /// says which promise it is, when the transport connects. Default: none.
    pub properties: BTreeMap<String, Property>,
}

/// Who shares out the partitions of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GroupProtocol {
    /// `"classic"`: one of its members, by the cooperative-sticky rule.
    #[default]
    Classic,
    /// `"consumer"`: the brokers, from Kafka 4.0 on (KIP-848).
    Consumer,
}

impl KafkaConfig {
    /// The defaults, with the brokers to ask first.
    pub fn new<B: Into<String>>(brokers: impl IntoIterator<Item = B>) -> Self {
        Self {
            brokers: brokers.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Sets a client property.
    #[must_use]
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(name.into(), Property::from(value));
        self
    }

    /// The first key that can't work, and why. Looks into the files that are named.
    pub(crate) fn validate(&self) -> Result<(), (&'static str, String)> {
        if self.brokers.iter().all(|broker| broker.trim().is_empty()) {
            let why = "is missing: name at least one broker as `host:port`";
            return Err(("brokers", why.to_owned()));
        }
        if self.transactional_id.as_ref().is_some_and(String::is_empty) {
            return Err(("transactional_id", "must not be empty".to_owned()));
        }
        self.validate_numbers()?;
        if self.linger > LONGEST_LINGER {
            return Err(("linger", "must be at most 15 min".to_owned()));
        }
        if self.linger >= self.delivery_deadline {
            let why = "must be less than `delivery_deadline`";
            return Err(("linger", why.to_owned()));
        }
        if self.member.as_ref().is_some_and(Text::is_empty) {
            return Err(("member", "must not be empty".to_owned()));
        }
        access::validate(self)
    }

    fn validate_numbers(&self) -> Result<(), (&'static str, String)> {
        for (setting, duration) in [
            ("connect_deadline", self.connect_deadline),
            ("operation_deadline", self.operation_deadline),
            ("delivery_deadline", self.delivery_deadline),
            ("join_deadline", self.join_deadline),
            ("session_timeout", self.session_timeout),
            ("commit_interval", self.commit_interval),
            ("discovery_interval", self.discovery_interval),
        ] {
            if duration < Duration::from_millis(1) {
                return Err((setting, "must be at least 1 ms".to_owned()));
            }
        }
        for (setting, number) in [
            ("publish_queue_events", u64::from(self.publish_queue_events)),
            ("publish_queue_bytes", self.publish_queue_bytes),
            ("buffer_events", self.buffer_events as u64),
            ("buffer_bytes", self.buffer_bytes),
            ("fetch_buffer", self.fetch_buffer),
            ("unsettled_limit", self.unsettled_limit as u64),
        ] {
            if number == 0 {
                return Err((setting, "must be at least 1".to_owned()));
            }
        }
        Ok(())
    }

    /// The brokers as one text.
    pub(crate) fn brokers(&self) -> String {
        self.brokers.join(",")
    }
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            client_id: None,
            transactional_id: None,
            tls: false,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            key_password: None,
            sasl_mechanism: None,
            user: None,
            password: None,
            connect_deadline: Duration::from_secs(10),
            operation_deadline: Duration::from_secs(10),
            delivery_deadline: Duration::from_secs(30),
            format: Format::default(),
            compression: Compression::default(),
            acks: Acks::default(),
            partitioner: Partitioner::default(),
            linger: Duration::ZERO,
            publish_queue_events: 100_000,
            publish_queue_bytes: ByteSize::mib(64).as_u64(),
            group_protocol: GroupProtocol::default(),
            member: None,
            static_membership: false,
            join_deadline: Duration::from_secs(30),
            session_timeout: Duration::from_secs(10),
            commit_interval: Duration::from_millis(500),
            drain_deadline: Duration::from_secs(10),
            buffer_events: 10_000,
            buffer_bytes: ByteSize::mib(16).as_u64(),
            fetch_buffer: ByteSize::mib(4).as_u64(),
            unsettled_limit: 100_000,
            discovery_interval: Duration::from_secs(30),
            properties: BTreeMap::new(),
        }
    }
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match toml::Value::deserialize(deserializer)? {
        toml::Value::Integer(bytes) => u64::try_from(bytes).ok(),
        toml::Value::String(text) => ByteSize::from_str(&text).ok().map(|size| size.as_u64()),
        _ => None,
    }
    .ok_or_else(|| D::Error::custom("a size is a number of bytes, or text as `\"8MiB\"`"))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
