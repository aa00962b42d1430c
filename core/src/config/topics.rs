//! Topics that the config declares.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, Visitor};

use super::{Origin, fields};
use crate::Text;
use crate::topic::{Cleanup, Limit, TopicCompression, TopicSettings};
use crate::transport::TopicSpec;

/// A topic: `[topics.<name>]`.
///
/// ```toml
/// [topic_defaults]                  # of all topics, those of routes too
/// partitions  = 12
/// replication = 3
/// retention   = "30d"
///
/// [topics.user-events]
/// retention_bytes  = "10GiB"        # of each partition; `false` for any size
/// cleanup          = "compact"      # or "delete", "compact_delete"
/// compression      = "zstd"         # or "producer", "none", "gzip", "snappy", "lz4"
/// max_message_size = "1MiB"
/// max_events       = 100_000        # Redis: the length of the stream
/// groups           = ["mails"]      # Redis: made with the stream
/// properties       = { "min.insync.replicas" = 2 }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TopicConfig {
    /// The name of the transport it is on. Default: those whose routes lead to it, else the only one.
    pub transport: Option<Text>,
    /// What it is to be like; without what [`topic_defaults`](super::Config::topic_defaults) add.
    pub spec: TopicSpec,
    /// Where it was declared.
    pub origin: Origin,
}

impl TopicConfig {
    /// A topic that is declared in code.
    pub fn new(spec: TopicSpec) -> Self {
        Self {
            transport: None,
            spec,
            origin: Origin::Code,
        }
    }
}

/// The keys of a topic, and of the defaults of all.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TopicKeys {
    pub(super) transport: Option<Text>,
    #[serde(deserialize_with = "positive")]
    partitions: Option<u32>,
    #[serde(deserialize_with = "positive")]
    replication: Option<u16>,
    #[serde(deserialize_with = "retention")]
    retention: Option<Limit<Duration>>,
    #[serde(deserialize_with = "size_or_false")]
    retention_bytes: Option<Limit<u64>>,
    #[serde(deserialize_with = "number_or_false")]
    max_events: Option<Limit<u64>>,
    cleanup: Option<Cleanup>,
    compression: Option<TopicCompression>,
    #[serde(deserialize_with = "size")]
    max_message_size: Option<u64>,
    groups: Vec<Text>,
    properties: BTreeMap<Text, Scalar>,
}

impl TopicKeys {
    pub(super) fn spec(self, name: &str) -> TopicSpec {
        let mut spec = TopicSpec::new(name).groups(self.groups);
        spec.partitions = self.partitions;
        spec.replication = self.replication;
        spec.settings = TopicSettings {
            retention: self.retention,
            retention_bytes: self.retention_bytes,
            max_events: self.max_events,
            cleanup: self.cleanup,
            compression: self.compression,
            max_message_size: self.max_message_size,
            properties: self
                .properties
                .into_iter()
                .map(|(name, Scalar(value))| (name, value))
                .collect(),
        };
        spec
    }

    /// A property that has a key of its own, and that key.
    pub(super) fn misplaced(&self) -> Option<(&'static str, &'static str)> {
        const OWN: [(&str, &str); 5] = [
            ("retention.ms", "retention"),
            ("retention.bytes", "retention_bytes"),
            ("cleanup.policy", "cleanup"),
            ("compression.type", "compression"),
            ("max.message.bytes", "max_message_size"),
        ];
        let mut own = OWN.into_iter();
        own.find(|(property, _)| self.properties.contains_key(*property))
    }
}

/// A value of a property, as text.
struct Scalar(Text);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;
        impl Visitor<'_> for Value {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, a number, `true` or `false`")
            }
            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.into()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string().into()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string().into()))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string().into()))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string().into()))
            }
        }
        deserializer.deserialize_any(Value)
    }
}

fn positive<'de, D, N>(deserializer: D) -> Result<Option<N>, D::Error>
where
    D: Deserializer<'de>,
    N: Deserialize<'de> + From<u8> + PartialOrd,
{
    fields::positive(deserializer).map(Some)
}

fn retention<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Limit<Duration>>, D::Error> {
    let retention = fields::duration_or_false(deserializer)?;
    match retention {
        Some(time) if time < Duration::from_millis(1) => Err(D::Error::custom(
            "must be at least 1 ms, or `false` for ever",
        )),
        Some(time) => Ok(Some(Limit::At(time))),
        None => Ok(Some(Limit::Unlimited)),
    }
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match fields::size(deserializer)? {
        0 => Err(D::Error::custom("must be at least 1")),
        size => Ok(Some(size as u64)),
    }
}

fn size_or_false<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Limit<u64>>, D::Error> {
    deserializer.deserialize_any(OrFalse("a number of bytes, as `\"1GiB\"`, or `false`"))
}

fn number_or_false<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Limit<u64>>, D::Error> {
    deserializer.deserialize_any(OrFalse("a whole number of at least 1, or `false`"))
}

/// A number, or `false` for no bound; and what is said of anything else.
struct OrFalse(&'static str);

impl Visitor<'_> for OrFalse {
    type Value = Option<Limit<u64>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Self::Value, E> {
        match value {
            false => Ok(Some(Limit::Unlimited)),
            true => Err(E::custom(format!("must be {}", self.0))),
        }
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Self::Value, E> {
        match number {
            0 => Err(E::custom(format!("must be {}", self.0))),
            number => Ok(Some(Limit::At(number))),
        }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        match text.trim() {
            // From `${VAR}`, which is always text.
            "false" => Ok(Some(Limit::Unlimited)),
            text => match text.parse::<bytesize::ByteSize>() {
                Ok(size) => self.visit_u64(size.as_u64()),
                Err(_) => Err(E::custom(format!("must be {}", self.0))),
            },
        }
    }
}
