use std::time::Duration;

use bytesize::ByteSize;
use polybus_core::{Error, ErrorKind, Result, time};
use serde::{Deserialize, Deserializer, de};

/// The settings of a memory transport: `[transports.<name>]` with `kind = "memory"`.
///
/// ```toml
/// [transports.events]
/// kind = "memory"
/// max_events = 1_000_000
/// max_bytes = "1GiB"
/// keep_settled = 100_000
/// delivery_deadline = "30s"
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// How many events a topic holds, settled ones included. At least 1. Default: 1,000,000.
    pub max_events: usize,
    /// How many bytes of events a topic holds (their [size](polybus_core::Event::size) and that of
    /// their headers), settled ones included: a number of bytes, or text as `"64MiB"`. At least
    /// 1. Default: 1 GiB.
    #[serde(deserialize_with = "bytes")]
    pub max_bytes: u64,
    /// How many events that every group has settled a topic keeps for groups to come; older
    /// ones are dropped. Default: 100,000.
    pub keep_settled: usize,
    /// How long publishing waits for room in a full topic, as `"30s"`. Default: 30 s.
    #[serde(deserialize_with = "duration")]
    pub delivery_deadline: Duration,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            max_events: 1_000_000,
            max_bytes: bytesize::GIB,
            keep_settled: 100_000,
            delivery_deadline: Duration::from_secs(30),
        }
    }
}

impl MemoryConfig {
    /// Sets how many events a topic holds.
    #[must_use]
    pub fn max_events(mut self, max_events: usize) -> Self {
        self.max_events = max_events;
        self
    }

    /// Sets how many bytes of events a topic holds.
    #[must_use]
    pub fn max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// Sets how many events that every group has settled a topic keeps.
    #[must_use]
    pub fn keep_settled(mut self, keep_settled: usize) -> Self {
        self.keep_settled = keep_settled;
        self
    }

    /// Sets how long publishing waits for room in a full topic.
    #[must_use]
    pub fn delivery_deadline(mut self, delivery_deadline: Duration) -> Self {
        self.delivery_deadline = delivery_deadline;
        self
    }

    /// Checks what the types leave open.
    pub(crate) fn validate(&self) -> Result<()> {
        let wrong = |setting: &str| {
            Error::new(ErrorKind::Config, format!("`{setting}` must be at least 1"))
                .with_note("a topic that holds nothing can't be published to")
        };
        if self.max_events == 0 {
            return Err(wrong("max_events"));
        }
        if self.max_bytes == 0 {
            return Err(wrong("max_bytes"));
        }
        Ok(())
    }
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    ByteSize::deserialize(deserializer).map(|size| size.as_u64())
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    time::parse_duration(&text).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MemoryConfig, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn an_empty_section_gives_the_defaults() {
        let config = parse("").unwrap();
        assert_eq!(config, MemoryConfig::default());
        assert_eq!(config.max_events, 1_000_000);
        assert_eq!(config.max_bytes, 1 << 30);
        assert_eq!(config.keep_settled, 100_000);
        assert_eq!(config.delivery_deadline, Duration::from_secs(30));
    }

    #[test]
    fn settings_are_read_with_their_units() {
        let text = "max_events = 10\nmax_bytes = \"64KiB\"\nkeep_settled = 5\ndelivery_deadline = \"200ms\"";
        let config = parse(text).unwrap();
        let expected = MemoryConfig::default()
            .max_events(10)
            .max_bytes(64 * 1024)
            .keep_settled(5)
            .delivery_deadline(Duration::from_millis(200));
        assert_eq!(config, expected);
        assert_eq!(parse("max_bytes = 4096").unwrap().max_bytes, 4096);
    }

    #[test]
    fn unknown_settings_and_wrong_values_are_refused() {
        for text in [
            "max_event = 10",
            "max_events = -1",
            "max_bytes = \"many\"",
            "keep_settled = \"all\"",
            "delivery_deadline = \"soon\"",
            "delivery_deadline = 30",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_topic_that_holds_nothing_is_refused() {
        for config in [
            MemoryConfig::default().max_events(0),
            MemoryConfig::default().max_bytes(0),
        ] {
            let error = config.validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
        }
        assert!(MemoryConfig::default().validate().is_ok());
    }
}
