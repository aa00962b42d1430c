use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use polybus_core::time::parse_duration;
use polybus_core::{Error, ErrorKind, Result};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// The settings of a Kafka transport.
///
/// Durations are written as `"500ms"` or `"10s"`, sizes as `"8MiB"` or in bytes. `Debug` hides
/// the values of [`properties`](Self::properties), which may be secret.
///
/// ```
/// use polybus_kafka::KafkaConfig;
///
/// let mut config = KafkaConfig::new(["127.0.0.1:9092"]);
/// config.client_id = Some("deal-monitor".into());
/// ```
#[derive(Clone, Deserialize)]
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
    /// How long to wait for the brokers when a transport, a publisher or a subscriber is made.
    /// Default: 10 s.
    #[serde(deserialize_with = "duration")]
    pub connect_deadline: Duration,
    /// How long a call of [`Admin`](polybus_core::transport::Admin) may take, and a commit when
    /// a partition is handed over. Default: 10 s.
    #[serde(deserialize_with = "duration")]
    pub operation_deadline: Duration,
    /// How long a publish may take, the client's retries included. Default: 30 s.
    #[serde(deserialize_with = "duration")]
    pub delivery_deadline: Duration,
    /// How long to wait for further events before a request is sent, in steps of a millisecond.
    /// Requests fill by themselves while others are under way. Default: 0 ms.
    #[serde(deserialize_with = "duration")]
    pub linger: Duration,
    /// How many events wait to be sent, at most; then publishing waits. Default: 100,000.
    pub publish_queue_events: u32,
    /// How many bytes wait to be sent, at most; then publishing waits. Default: 64 MiB.
    #[serde(deserialize_with = "size")]
    pub publish_queue_bytes: u64,
    /// How long joining a group may take. Default: 30 s.
    #[serde(deserialize_with = "duration")]
    pub join_deadline: Duration,
    /// How long a member may be out of touch before the group goes on without it. Brokers allow
    /// 6 s to 30 min unless set otherwise. Default: 10 s.
    #[serde(deserialize_with = "duration")]
    pub session_timeout: Duration,
    /// How often the position of a group is written to the server while it moves. After a crash
    /// the events of this time come again. Default: 500 ms.
    #[serde(deserialize_with = "duration")]
    pub commit_interval: Duration,
    /// How long a partition that is to be handed over waits for what was delivered to be
    /// settled. What is not settled by then is delivered again to the next owner. Default: 10 s.
    #[serde(deserialize_with = "duration")]
    pub drain_deadline: Duration,
    /// How many events a subscriber keeps ready for `recv`, at most. Default: 10,000.
    pub buffer_events: usize,
    /// How many bytes of events a subscriber keeps ready for `recv`, at most; one event more
    /// when it is larger than what is left. Default: 16 MiB.
    #[serde(deserialize_with = "size")]
    pub buffer_bytes: u64,
    /// How many bytes the client reads ahead for each partition, at most; one fetch more when
    /// that is larger than what is left. Default: 8 MiB.
    #[serde(deserialize_with = "size")]
    pub fetch_buffer: u64,
    /// How many deliveries of one partition may stand behind one that is not settled; then the
    /// partition is not read any further until it is. Default: 100,000.
    pub unsettled_limit: usize,
    /// How often topics that fit a pattern, and new partitions, are looked for. Default: 30 s.
    #[serde(deserialize_with = "duration")]
    pub discovery_interval: Duration,
    /// Settings of the client library under its own names
    /// ([list](https://github.com/confluentinc/librdkafka/blob/v2.12.1/CONFIGURATION.md)), as
    /// `"compression.type" = "lz4"`. They win over every other setting, those that the promises
    /// of this transport rest on (`enable.idempotence`, `enable.auto.commit`) included. Default:
    /// none.
    pub properties: BTreeMap<String, Property>,
}

/// The value of a client property: in a config file a string, a number or a boolean.
#[derive(Clone, PartialEq, Eq)]
pub struct Property(String);

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
        self.properties.insert(name.into(), Property(value.into()));
        self
    }

    /// Checks what the types leave open.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] naming the setting.
    pub(crate) fn validate(&self) -> Result<()> {
        let wrong = |setting: &str, why: &str| {
            Err(Error::new(ErrorKind::Config, format!("`{setting}` {why}")))
        };
        if self.brokers.iter().all(|broker| broker.trim().is_empty()) {
            return wrong(
                "brokers",
                "is missing: name at least one broker as `host:port`",
            );
        }
        if self.transactional_id.as_ref().is_some_and(String::is_empty) {
            return wrong("transactional_id", "is empty");
        }
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
                return wrong(setting, "must be at least 1 ms");
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
                return wrong(setting, "must be at least 1");
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
            connect_deadline: Duration::from_secs(10),
            operation_deadline: Duration::from_secs(10),
            delivery_deadline: Duration::from_secs(30),
            linger: Duration::ZERO,
            publish_queue_events: 100_000,
            publish_queue_bytes: ByteSize::mib(64).as_u64(),
            join_deadline: Duration::from_secs(30),
            session_timeout: Duration::from_secs(10),
            commit_interval: Duration::from_millis(500),
            drain_deadline: Duration::from_secs(10),
            buffer_events: 10_000,
            buffer_bytes: ByteSize::mib(16).as_u64(),
            fetch_buffer: ByteSize::mib(8).as_u64(),
            unsettled_limit: 100_000,
            discovery_interval: Duration::from_secs(30),
            properties: BTreeMap::new(),
        }
    }
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("client_id", &self.client_id)
            .field("transactional_id", &self.transactional_id)
            .field("connect_deadline", &self.connect_deadline)
            .field("operation_deadline", &self.operation_deadline)
            .field("delivery_deadline", &self.delivery_deadline)
            .field("linger", &self.linger)
            .field("publish_queue_events", &self.publish_queue_events)
            .field("publish_queue_bytes", &self.publish_queue_bytes)
            .field("join_deadline", &self.join_deadline)
            .field("session_timeout", &self.session_timeout)
            .field("commit_interval", &self.commit_interval)
            .field("drain_deadline", &self.drain_deadline)
            .field("buffer_events", &self.buffer_events)
            .field("buffer_bytes", &self.buffer_bytes)
            .field("fetch_buffer", &self.fetch_buffer)
            .field("unsettled_limit", &self.unsettled_limit)
            .field("discovery_interval", &self.discovery_interval)
            .field("properties", &self.properties)
            .finish()
    }
}

impl Property {
    /// The value as the client takes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Property {
    fn from(value: T) -> Self {
        Self(value.into())
    }
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl<'de> Deserialize<'de> for Property {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(Self(text)),
            toml::Value::Integer(number) => Ok(Self(number.to_string())),
            toml::Value::Float(number) => Ok(Self(number.to_string())),
            toml::Value::Boolean(value) => Ok(Self(value.to_string())),
            other => Err(D::Error::custom(format!(
                "a client property is a string, a number or a boolean, not a {}",
                other.type_str()
            ))),
        }
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(deserializer)?).map_err(D::Error::custom)
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
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<KafkaConfig, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn settings_are_read_with_their_units() {
        let config = parse(
            r#"
            brokers = ["a:9092", "b:9092"]
            delivery_deadline = "1m 30s"
            linger = "2ms"
            fetch_buffer = "2MiB"
            buffer_bytes = 1000
            [properties]
            "compression.type" = "lz4"
            "socket.timeout.ms" = 500
            "socket.keepalive.enable" = true
            "#,
        )
        .unwrap();
        assert_eq!(config.brokers(), "a:9092,b:9092");
        assert_eq!(config.delivery_deadline, Duration::from_secs(90));
        assert_eq!(config.linger, Duration::from_millis(2));
        assert_eq!((config.fetch_buffer, config.buffer_bytes), (2 << 20, 1000));
        assert_eq!(config.commit_interval, Duration::from_millis(500));
        let values: Vec<_> = config.properties.values().map(Property::as_str).collect();
        assert_eq!(values, ["lz4", "true", "500"]);
        config.validate().unwrap();
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, why) in [
            ("broker = 'a:1'", "broker"),
            ("linger = 5", "linger"),
            ("linger = '5'", "200ms"),
            ("fetch_buffer = 'much'", "8MiB"),
            ("fetch_buffer = -1", "8MiB"),
            ("properties = { a = [1] }", "array"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{error} for {text}");
        }
        for (text, why) in [
            ("", "brokers"),
            ("brokers = [' ']", "brokers"),
            (
                "brokers = ['a:1']\nsession_timeout = '0s'",
                "session_timeout",
            ),
            ("brokers = ['a:1']\nbuffer_events = 0", "buffer_events"),
        ] {
            let error = parse(text).unwrap().validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(why), "{error} for {text}");
        }
    }

    #[test]
    fn debug_hides_what_may_be_secret() {
        let config = KafkaConfig::new(["a:1"]).property("sasl.password", "hunter2");
        let text = format!("{config:?}");
        assert!(
            text.contains("sasl.password") && !text.contains("hunter2"),
            "{text}"
        );
    }
}
