use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, Visitor};

use super::delayed::DelayedRetry;
use super::{IdempotencyConfig, fields};
use crate::topic::TopicPrefix;
use crate::transport::Start;
use crate::{Error, ErrorKind, Result, Text, Topic};

/// Settings of a subscription: `[subscriptions.<name>]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SubscriptionConfig {
    /// The consumer group. Default: that of the [service](super::ServiceConfig::group).
    pub group: Option<Text>,
    /// How many events are handled at the same time, at least 1. Default: 64.
    #[serde(deserialize_with = "fields::positive")]
    pub concurrency: usize,
    /// Which events wait for each other. Default: those of the same key.
    pub ordering: Ordering,
    /// Where a group starts that has no position yet: `"beginning"` (default), `"now"`, or a
    /// point in time in RFC 3339.
    #[serde(deserialize_with = "start")]
    pub start: Start,
    /// When a failed event is handled again.
    pub retry: RetryConfig,
    /// Where an event goes that failed for good: a topic's name in which `{topic}` stands for
    /// the event's own topic, or `false` for nowhere: then it is tried again for as long as it
    /// takes, and after `max_in_flight_age` nothing else is read. Default: `{topic}.dlq`.
    pub dead_letter: DeadLetter,
    /// What becomes of an event that no handler takes. Default: it is acknowledged and counted.
    pub unhandled: Unhandled,
    /// How many events may be received and not settled, at least `concurrency`: beyond it the
    /// subscription stops reading, until half of them are settled. Default: 1024.
    #[serde(deserialize_with = "fields::positive")]
    pub max_in_flight: usize,
    /// How many bytes these events may have before the subscription stops reading, at least 1.
    /// The size of events is known when they have come, so one read may bring more. Default:
    /// 64 MiB.
    #[serde(deserialize_with = "positive_size")]
    pub max_in_flight_bytes: usize,
    /// How old the oldest of these events may get before the subscription stops reading, until
    /// that one is done; `false` for any age. It bounds what a crash repeats where the server
    /// keeps a position: everything behind the oldest. Default: 10 min.
    #[serde(deserialize_with = "fields::duration_or_false")]
    pub max_in_flight_age: Option<Duration>,
    /// How long one event may stay unsettled before the transport may take the member for dead
    /// and give its events to another, where it goes by time. Longer than any handler takes, its
    /// retries included. Default: 60 s.
    #[serde(deserialize_with = "fields::duration")]
    pub takeover_after: Duration,
    /// How long one call of a handler may take. Then it is dropped where it waits, and counts as
    /// failed, worth another try. Default: no limit. At most `takeover_after`.
    #[serde(deserialize_with = "fields::optional_duration")]
    pub handler_timeout: Option<Duration>,
    /// Whether what handlers publish in a [`Transaction`](crate::middleware::Transaction) and the
    /// acknowledgement of their events, dead letters included, are stored in one step: each event
    /// then takes effect once on what is published, whatever fails. For one transport that can do
    /// so ([`exactly_once`](crate::transport::Capabilities::exactly_once)). A handler that takes a
    /// `Transaction` turns it on. Default: off.
    pub exactly_once: bool,
    /// Keeps an event that comes twice from being handled twice. Default: off.
    pub idempotency: Option<IdempotencyConfig>,
    /// What becomes of the subscription when it fails: a transport refuses it for good, or
    /// `unhandled` says so. Default: it stops, and with it a bus that runs.
    pub on_failure: OnFailure,
}

impl Default for SubscriptionConfig {
    fn default() -> Self {
        Self {
            group: None,
            concurrency: 64,
            ordering: Ordering::default(),
            start: Start::default(),
            retry: RetryConfig::default(),
            dead_letter: DeadLetter::default(),
            unhandled: Unhandled::default(),
            max_in_flight: 1024,
            max_in_flight_bytes: 64 << 20,
            max_in_flight_age: Some(Duration::from_secs(600)),
            takeover_after: Duration::from_secs(60),
            handler_timeout: None,
            exactly_once: false,
            idempotency: None,
            on_failure: OnFailure::default(),
        }
    }
}

impl SubscriptionConfig {
    /// Checks settings that were made in code against each other.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`], naming the first key whose value contradicts another's.
    pub fn check(&self) -> Result<()> {
        self.contradiction().map_or(Ok(()), |(keys, what)| {
            let key = keys.join(".");
            Err(Error::new(ErrorKind::Config, format!("{key}: {what}")))
        })
    }

    /// The first key whose value contradicts another's, and how.
    pub(super) fn contradiction(&self) -> Option<(&'static [&'static str], String)> {
        let idempotency = self.idempotency.as_ref();
        if let Some(found) = idempotency.and_then(IdempotencyConfig::contradiction) {
            return Some(found);
        }
        if self.group.as_ref().is_some_and(Text::is_empty) {
            return Some((&["group"], "is empty".to_owned()));
        }
        if self.max_in_flight < self.concurrency {
            let (most, concurrency) = (self.max_in_flight, self.concurrency);
            let what = format!("{concurrency} is over `max_in_flight`, which is {most}");
            return Some((&["concurrency"], what));
        }
        if self.retry.base > self.retry.max {
            let (base, max) = (self.retry.base, self.retry.max);
            let what = format!("{base:?} is over `max`, which is {max:?}");
            return Some((&["retry", "base"], what));
        }
        if let Some((key, what)) = self
            .retry
            .delayed
            .as_ref()
            .and_then(|delayed| delayed.contradiction(self.retry.max_attempts))
        {
            return Some((key, what));
        }
        if self.max_in_flight_age.is_some_and(|age| age.is_zero()) {
            let what = "leaves an event no time; write `false` for any age";
            return Some((&["max_in_flight_age"], what.to_owned()));
        }
        if self.takeover_after.is_zero() {
            let what = "must be longer than any handler takes, so not zero";
            return Some((&["takeover_after"], what.to_owned()));
        }
        match self.handler_timeout {
            Some(limit) if limit.is_zero() => {
                let what = "leaves a handler no time; leave it out for no limit";
                return Some((&["handler_timeout"], what.to_owned()));
            }
            Some(limit) if limit > self.takeover_after => {
                let after = self.takeover_after;
                let what = format!("{limit:?} is over `takeover_after`, which is {after:?}");
                return Some((&["handler_timeout"], what));
            }
            _ => {}
        }
        None
    }
}

/// Which events of a subscription wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ordering {
    /// Events of one key are handled one after the other, in their order. The default.
    #[default]
    Key,
    /// Events of one partition are, those without a key too: one at a time on a transport without
    /// partitions, for each topic.
    Partition,
    /// None do.
    None,
}

/// What becomes of an event that no handler takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unhandled {
    /// It is acknowledged and counted. The default.
    #[default]
    Ack,
    /// It goes to the dead letters.
    DeadLetter,
    /// It stops the subscription.
    Stop,
}

/// What becomes of a subscription that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnFailure {
    /// It stops; a bus in `run_until` then ends with its error. The default.
    #[default]
    Stop,
    /// It gives back what it has, joins its groups again after a pause and goes on: the first pause
    /// is a second, and they double up to a minute.
    Restart,
}

/// When a failed event is handled again: after `base`, then after twice as long each time, up
/// to `max`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RetryConfig {
    /// How often an event is tried in all, at least 1. Default: 5.
    #[serde(deserialize_with = "fields::positive")]
    pub max_attempts: u32,
    /// The pause after the first failure. Default: 200 ms.
    #[serde(deserialize_with = "fields::duration")]
    pub base: Duration,
    /// The longest pause. Default: 30 s.
    #[serde(deserialize_with = "fields::duration")]
    pub max: Duration,
    /// Long pauses, which an event makes in a topic of its own while later events of its key go
    /// on. Default: none.
    pub delayed: Option<DelayedRetry>,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_attempts: 5,
            base: Duration::from_millis(200),
            max: Duration::from_secs(30),
            delayed: None,
        }
    }
}

/// Where events go that failed for good.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DeadLetter {
    /// To a topic.
    Topic(DeadLetterTopic),
    /// Nowhere.
    Off,
}

impl DeadLetter {
    /// The topic for what failed in a topic, if there is one. The prefix of the transport's topics
    /// stands before its name too.
    pub fn topic(&self, topic: &Topic, prefix: &TopicPrefix) -> Option<Topic> {
        match self {
            Self::Topic(template) => {
                let filled = template.fill(prefix.strip(topic.name()));
                Some(prefix.apply(&filled))
            }
            Self::Off => None,
        }
    }

    /// Whether a topic's name is that of dead letters of some topic.
    pub fn covers(&self, topic: &Topic, prefix: &TopicPrefix) -> bool {
        match self {
            Self::Topic(template) => {
                topic.name().starts_with(prefix.as_str())
                    && template.covers(prefix.strip(topic.name()))
            }
            Self::Off => false,
        }
    }
}

impl Default for DeadLetter {
    fn default() -> Self {
        Self::Topic(DeadLetterTopic::new("{topic}.dlq"))
    }
}

/// The name of a dead-letter topic, in which `{topic}` stands for the topic an event failed in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeadLetterTopic {
    template: Text,
    /// What stands before the first and behind the last `{topic}`, if there is one. Looked at for
    /// every delivery.
    around: Option<(Text, Text)>,
}

impl DeadLetterTopic {
    const TOPIC: &'static str = "{topic}";

    /// Reads a template.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for an empty one, a placeholder other than `{topic}`, and `{topic}`
    /// alone, which would put dead letters where they came from.
    pub fn parse(template: &str) -> Result<Self> {
        let rest = template.replace(Self::TOPIC, "");
        let wrong = if template.is_empty() {
            "is empty".to_owned()
        } else if rest.is_empty() {
            format!("`{template}` is the topic that the events come from")
        } else if rest.contains(['{', '}']) {
            format!("`{template}` has another placeholder than `{{topic}}`")
        } else {
            return Ok(Self::new(template));
        };
        Err(Error::new(ErrorKind::Config, wrong)
            .with_note("write a name as `{topic}.dlq`, or `false` for no dead letters"))
    }

    /// The name of the topic for what failed in `topic`.
    fn fill(&self, topic: &str) -> String {
        self.template.replace(Self::TOPIC, topic)
    }

    /// Whether a topic's name can come from the template.
    fn covers(&self, topic: &str) -> bool {
        match &self.around {
            None => self.template == topic,
            Some((before, after)) => {
                topic.len() > before.len() + after.len()
                    && topic.starts_with(before.as_str())
                    && topic.ends_with(after.as_str())
            }
        }
    }

    /// The template as it was written.
    pub fn as_str(&self) -> &str {
        &self.template
    }

    fn new(template: &str) -> Self {
        let before = template.split_once(Self::TOPIC).map(|(before, _)| before);
        let after = template.rsplit_once(Self::TOPIC).map(|(_, after)| after);
        let around = before.zip(after);
        Self {
            template: template.into(),
            around: around.map(|(before, after)| (before.into(), after.into())),
        }
    }
}

impl<'de> Deserialize<'de> for DeadLetter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DeadLetterVisitor)
    }
}

struct DeadLetterVisitor;

impl Visitor<'_> for DeadLetterVisitor {
    type Value = DeadLetter;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a topic's name, as `\"{topic}.dlq\"`, or `false`")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<DeadLetter, E> {
        match text {
            // From `${VAR}`, which is always text.
            "false" => Ok(DeadLetter::Off),
            text => DeadLetterTopic::parse(text)
                .map(DeadLetter::Topic)
                .map_err(E::custom),
        }
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<DeadLetter, E> {
        if value {
            Ok(DeadLetter::default())
        } else {
            Ok(DeadLetter::Off)
        }
    }
}

fn positive_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    match fields::size(deserializer)? {
        0 => Err(D::Error::custom("must be at least 1")),
        size => Ok(size),
    }
}

fn start<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Start, D::Error> {
    let text = Text::deserialize(deserializer)?;
    match text.as_str() {
        "beginning" => Ok(Start::Beginning),
        "now" => Ok(Start::Now),
        text => text.parse().map(Start::Time).map_err(|_| {
            D::Error::custom(format!(
                "`{text}` is not a place to start from\n  write `beginning`, `now`, or a point in \
                 time as `2026-01-31T00:00:00Z`"
            ))
        }),
    }
}
