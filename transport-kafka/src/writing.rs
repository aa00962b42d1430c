//! What the settings say of how events are written.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

/// How an event is written into a record. Every format is read, whatever this says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Format {
    /// `"default"`: CloudEvents in binary mode: a header `ce_<name>` for each attribute, and the
    /// data as the value.
    #[default]
    Default,
    /// `"plain"`: the data as the value and the key, and nothing else: for readers that know of no
    /// events. Attributes and headers are **not written**. What is read back is no event but a
    /// record ([`Undecodable`](polybus_core::transport::Undecodable)).
    Plain,
}

/// How the records of a request are compressed, all together. Brokers store them as they are, and
/// readers take any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Compression {
    /// `"none"`.
    #[default]
    None,
    /// `"gzip"`.
    Gzip,
    /// `"snappy"`.
    Snappy,
    /// `"lz4"`.
    Lz4,
    /// `"zstd"`.
    Zstd,
}

/// Which replicas have an event before it is accepted. In the config `"all"`, `1` or `0`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Acks {
    /// All that are in sync.
    #[default]
    All,
    /// The leader alone: **an accepted event is lost with it**, and an event that is sent again
    /// may be stored twice and out of order.
    Leader,
    /// None: accepted is what was handed to the network, **whether or not a broker takes it**. The
    /// position of an event is not known, its offset is `u64::MAX`.
    None,
}

/// Which partition an event goes to, by its key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Partitioner {
    /// `"murmur2_random"`: the partition that Java clients choose; any for an event without a key.
    #[default]
    Murmur2Random,
    /// `"murmur2"`: the partition that Java clients choose; always the same one for events without
    /// a key.
    Murmur2,
    /// `"consistent_random"`: the partition that other clients on librdkafka choose, by CRC-32; any
    /// for an event without a key.
    ConsistentRandom,
    /// `"consistent"`: by CRC-32; always the same one for events without a key.
    Consistent,
    /// `"fnv1a_random"`: the partition that Sarama, for Go, chooses, by FNV-1a; any for an event
    /// without a key.
    Fnv1aRandom,
    /// `"fnv1a"`: by FNV-1a; always the same one for events without a key.
    Fnv1a,
    /// `"random"`: any. **There is no order per key.**
    Random,
}

impl Compression {
    /// As the client calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl Acks {
    /// As the client calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Leader => "1",
            Self::None => "0",
        }
    }
}

impl Partitioner {
    /// As the client calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Murmur2Random => "murmur2_random",
            Self::Murmur2 => "murmur2",
            Self::ConsistentRandom => "consistent_random",
            Self::Consistent => "consistent",
            Self::Fnv1aRandom => "fnv1a_random",
            Self::Fnv1a => "fnv1a",
            Self::Random => "random",
        }
    }
}

impl<'de> Deserialize<'de> for Acks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AcksVisitor)
    }
}

/// Kafka's own spelling, and with the number as a number.
struct AcksVisitor;

impl Visitor<'_> for AcksVisitor {
    type Value = Acks;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`\"all\"`, `1` or `0`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Acks, E> {
        match text {
            "all" | "-1" => Ok(Acks::All),
            "1" => Ok(Acks::Leader),
            "0" => Ok(Acks::None),
            _ => Err(E::custom("must be `\"all\"`, `1` or `0`")),
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Acks, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Acks, E> {
        self.visit_str(&number.to_string())
    }
}
