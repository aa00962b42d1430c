//! What a topic keeps, and how.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::Text;

/// What a topic keeps, and how. What is `None` is left to the server, or not told by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicSettings {
    /// How long events are kept.
    pub retention: Option<Limit<Duration>>,
    /// How many bytes of events are kept, in each partition.
    pub retention_bytes: Option<Limit<u64>>,
    /// How many events are kept.
    pub max_events: Option<Limit<u64>>,
    /// What becomes of events that are not kept any longer.
    pub cleanup: Option<Cleanup>,
    /// How events are compressed on the server.
    pub compression: Option<TopicCompression>,
    /// The largest message that is taken, in bytes. On Kafka a batch of records, compressed.
    pub max_message_size: Option<u64>,
    /// Further settings, under the server's own names.
    pub properties: BTreeMap<Text, Text>,
}

/// A bound, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a bound is there or not")]
pub enum Limit<T> {
    /// No bound: in the config `false`.
    Unlimited,
    /// This much.
    At(T),
}

/// What becomes of events that a topic does not keep any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cleanup {
    /// `"delete"`: they are deleted by their age and the topic's size.
    Delete,
    /// `"compact"`: the latest event of each key is kept for ever, older ones are not.
    Compact,
    /// `"compact_delete"`: both.
    CompactDelete,
}

/// How events are compressed on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TopicCompression {
    /// `"producer"`: as they come.
    Producer,
    /// `"none"`.
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

/// Something that can be set for a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TopicSetting {
    /// The number of partitions.
    Partitions,
    /// On how many brokers each partition is kept.
    Replication,
    /// [`TopicSettings::retention`].
    Retention,
    /// [`TopicSettings::retention_bytes`].
    RetentionBytes,
    /// [`TopicSettings::max_events`].
    MaxEvents,
    /// [`TopicSettings::cleanup`].
    Cleanup,
    /// [`TopicSettings::compression`].
    Compression,
    /// [`TopicSettings::max_message_size`].
    MaxMessageSize,
    /// The groups that there are from the beginning.
    Groups,
    /// One of [`TopicSettings::properties`].
    Property(Text),
}

impl TopicSettings {
    /// The same, with what is left open taken from others.
    #[must_use]
    pub fn or(&self, others: &Self) -> Self {
        let mut properties = others.properties.clone();
        properties.extend(self.properties.clone());
        Self {
            retention: self.retention.or(others.retention),
            retention_bytes: self.retention_bytes.or(others.retention_bytes),
            max_events: self.max_events.or(others.max_events),
            cleanup: self.cleanup.or(others.cleanup),
            compression: self.compression.or(others.compression),
            max_message_size: self.max_message_size.or(others.max_message_size),
            properties,
        }
    }
}

impl<T: PartialOrd> Limit<T> {
    /// Whether less is kept than with another bound.
    pub fn is_below(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unlimited, _) => false,
            (Self::At(_), Self::Unlimited) => true,
            (Self::At(one), Self::At(other)) => one < other,
        }
    }
}

impl Cleanup {
    /// The name in the config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Compact => "compact",
            Self::CompactDelete => "compact_delete",
        }
    }
}

impl TopicCompression {
    /// The name in the config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for TopicSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Partitions => "partitions",
            Self::Replication => "replication",
            Self::Retention => "retention",
            Self::RetentionBytes => "retention_bytes",
            Self::MaxEvents => "max_events",
            Self::Cleanup => "cleanup",
            Self::Compression => "compression",
            Self::MaxMessageSize => "max_message_size",
            Self::Groups => "groups",
            Self::Property(name) => return write!(f, "properties.{name:?}"),
        })
    }
}

/// A duration as the config writes it, in one unit.
pub(super) fn duration_text(duration: Duration) -> String {
    const UNITS: [(&str, u128); 4] = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
    ];
    let millis = duration.as_millis();
    let whole = |(_, length): &&(&str, u128)| millis > 0 && millis.is_multiple_of(*length);
    match UNITS.iter().find(whole) {
        Some((unit, length)) => format!("{}{unit}", millis / length),
        None => format!("{millis}ms"),
    }
}

/// A number of bytes as the config writes it.
pub(super) fn size_text(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let whole = |(_, length): &&(&str, u64)| bytes > 0 && bytes.is_multiple_of(*length);
    match units.iter().find(whole) {
        Some((unit, length)) => format!("{}{unit}", bytes / length),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_written_in_the_largest_unit_that_divides_them() {
        for (seconds, text) in [
            (0, "0ms"),
            (90, "90s"),
            (5400, "90m"),
            (7200, "2h"),
            (30 * 86_400, "30d"),
        ] {
            assert_eq!(duration_text(Duration::from_secs(seconds)), text);
        }
        assert_eq!(duration_text(Duration::from_millis(1500)), "1500ms");
        for (bytes, text) in [(0, "0"), (1_000_000, "1000000"), (3 << 20, "3MiB")] {
            assert_eq!(size_text(bytes), text);
        }
    }

    #[test]
    fn no_bound_is_above_every_bound() {
        assert!(Limit::At(1).is_below(&Limit::Unlimited));
        assert!(Limit::At(1).is_below(&Limit::At(2)));
        assert!(!Limit::At(2).is_below(&Limit::At(2)));
        assert!(!Limit::Unlimited.is_below(&Limit::At(2)));
    }
}
