//! What the settings say of how events are written.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use polybus_core::Text;
use polybus_core::config::fields;
use polybus_core::topic::{Limit, TopicSettings};
use serde::Deserialize;

use crate::config::{MAX_DURATION, RedisConfig};
use crate::packed::Arguments;
use crate::reply::EntryId;

/// How an event is written into an entry. Every format is read, whatever this says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Format {
    /// `"default"`: two fields, `ce` with all attributes as JSON, and `data`. The smallest, and the
    /// only one that keeps the types of extensions.
    #[default]
    Default,
    /// `"fields"`: a field `ce_<name>` for each attribute, `content-type`, and `data`: CloudEvents in
    /// binary mode, for readers that know it. Extensions come back as text. An event whose own data
    /// is a CloudEvent (`application/cloudevents...`) is written as by default, because its content
    /// type would say that the data is the event.
    Fields,
    /// `"plain"`: the data in the field `data` and the key in `k:`, and nothing else: for readers
    /// that know of no events. Attributes and headers are **not written**. What is read back is no
    /// event but a record ([`Undecodable`](polybus_core::transport::Undecodable)), unless its data is
    /// a whole CloudEvent as JSON.
    Plain,
}

/// What is deleted from the front of a stream whenever something is published to it.
///
/// The server trims roughly (`~`): whole nodes of the stream (100 entries unless its settings say
/// otherwise), so that somewhat more is kept than asked for, and never less.
///
/// **Trimming looks at no group.** What nobody has read yet, and what is pending, is deleted as well:
/// choose a bound that consumers never fall behind. Entries that were deleted while they were pending
/// are counted ([`Losses`](polybus_core::transport::Losses)); those that were deleted
/// before anybody read them are not seen by anybody.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "TrimSection")]
#[non_exhaustive]
pub enum Trim {
    /// `{ max_len = 100000 }`: keeps at least the latest so many entries. At least 1.
    MaxLen(u64),
    /// `{ min_age = "7d" }`: keeps at least what is younger. By the clock of this process against
    /// that of the server, which made the entries' ids. 1 ms to 365 days.
    MinAge(Duration),
    /// `{ min_id = "1763712339000-0" }`: keeps this id and all above it. Milliseconds since 1970, and
    /// a number after a hyphen unless it is 0.
    MinId(String),
}

impl Trim {
    /// Why it can't work.
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        match self {
            Self::MaxLen(0) => Err("must keep at least 1 entry"),
            Self::MinAge(age) if *age < Duration::from_millis(1) || *age > MAX_DURATION => {
                Err("must be from 1 ms to 365 days")
            }
            Self::MinId(id)
                if id.parse::<u64>().is_err() && EntryId::parse(id.as_bytes()).is_none() =>
            {
                Err("must be the id of an entry, as `1763712339000-0`")
            }
            _ => Ok(()),
        }
    }
}

/// A [`Trim`] in the config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrimSection {
    max_len: Option<u64>,
    #[serde(default, deserialize_with = "fields::optional_duration")]
    min_age: Option<Duration>,
    min_id: Option<String>,
}

impl TryFrom<TrimSection> for Trim {
    type Error = &'static str;

    fn try_from(section: TrimSection) -> Result<Self, Self::Error> {
        match (section.max_len, section.min_age, section.min_id) {
            (Some(length), None, None) => Ok(Self::MaxLen(length)),
            (None, Some(age), None) => Ok(Self::MinAge(age)),
            (None, None, Some(id)) => Ok(Self::MinId(id)),
            _ => Err("must have one of `max_len`, `min_age` and `min_id`"),
        }
    }
}

/// How a publisher writes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writing {
    pub(crate) format: Format,
    trim: Option<Trim>,
    declared: Declared,
}

/// How streams are trimmed that the config declares, where it says so.
#[derive(Debug, Clone, Default)]
pub(crate) struct Declared(HashMap<Text, TopicSettings>);

impl Declared {
    pub(crate) fn new(config: &RedisConfig) -> Self {
        let settings = config.topics.iter().map(|topic| {
            let mut settings = TopicSettings::default();
            settings.retention = topic.settings.retention;
            settings.max_events = topic.settings.max_events;
            (topic.name.clone(), settings)
        });
        let says = |(_, settings): &(Text, TopicSettings)| *settings != TopicSettings::default();
        Self(settings.filter(says).collect())
    }

    /// What a stream is to be like, as far as publishers see to it.
    pub(crate) fn settings(&self, stream: &str) -> TopicSettings {
        self.0.get(stream).cloned().unwrap_or_default()
    }

    /// Whether the config declares no stream.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How a stream is trimmed, if the config says so.
    fn trim(&self, stream: &str) -> Option<Option<Trim>> {
        // Most programs declare none.
        if self.0.is_empty() {
            return None;
        }
        let settings = self.0.get(stream)?;
        Some(match (settings.max_events, settings.retention) {
            (Some(Limit::At(events)), _) => Some(Trim::MaxLen(events)),
            (_, Some(Limit::At(age))) => Some(Trim::MinAge(age)),
            _ => None,
        })
    }
}

impl Writing {
    pub(crate) fn new(config: &RedisConfig) -> Self {
        Self {
            format: config.format,
            trim: config.trim.clone(),
            declared: Declared::new(config),
        }
    }

    /// What `XADD` is told between the stream and the entry's id.
    pub(crate) fn append_trim(&self, stream: &str, command: &mut impl Arguments) {
        let declared = self.declared.trim(stream);
        match declared.as_ref().unwrap_or(&self.trim) {
            None => {}
            Some(Trim::MaxLen(length)) => {
                command.push(b"MAXLEN");
                command.push(b"~");
                command.push_number(*length);
            }
            Some(Trim::MinAge(age)) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH);
                let oldest = now.unwrap_or_default().saturating_sub(*age).as_millis();
                let oldest = u64::try_from(oldest).unwrap_or(u64::MAX);
                command.push(b"MINID");
                command.push(b"~");
                command.push_number(oldest);
            }
            Some(Trim::MinId(id)) => {
                command.push(b"MINID");
                command.push(b"~");
                command.push(id.as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use polybus_core::ErrorKind;
    use polybus_core::config::Section;

    use super::*;

    fn parse(text: &str) -> polybus_core::Result<RedisConfig> {
        format!("url = 'redis://localhost'\n{text}")
            .parse::<Section>()
            .unwrap()
            .parse()
    }

    #[test]
    fn the_settings_are_read() {
        for (text, trim) in [
            ("", None),
            ("trim = { max_len = 100000 }", Some(Trim::MaxLen(100_000))),
            (
                "trim = { min_age = '5m' }",
                Some(Trim::MinAge(Duration::from_secs(300))),
            ),
            (
                "trim = { min_id = '12-3' }",
                Some(Trim::MinId("12-3".to_owned())),
            ),
        ] {
            assert_eq!(parse(text).unwrap().trim, trim, "{text}");
        }
        for (text, format) in [
            ("", Format::Default),
            ("format = 'default'", Format::Default),
            ("format = 'fields'", Format::Fields),
            ("format = 'plain'", Format::Plain),
        ] {
            assert_eq!(parse(text).unwrap().format, format, "{text}");
        }
        for text in [
            "trim = 5",
            "trim = { max_len = -1 }",
            "trim = { max_length = 1 }",
            "trim = { max_len = 1, min_id = '1' }",
            "trim = {}",
            "trim = { min_age = 5 }",
            "format = 'xml'",
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{text}: {error}");
        }
    }

    #[test]
    fn bounds_that_can_not_work_are_refused() {
        let id = |id: &str| Trim::MinId(id.to_owned());
        for (trim, good) in [
            (Trim::MaxLen(1), true),
            (Trim::MaxLen(0), false),
            (Trim::MinAge(Duration::from_millis(1)), true),
            (Trim::MinAge(Duration::ZERO), false),
            (Trim::MinAge(Duration::MAX), false),
            (id("12"), true),
            (id("12-3"), true),
            (id("12-"), false),
            (id("yesterday"), false),
            (id(""), false),
        ] {
            assert_eq!(trim.validate().is_ok(), good, "{trim:?}");
        }
    }
}
