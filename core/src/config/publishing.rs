use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as DeserializeError, Visitor};

use super::{RetryConfig, fields};
use crate::Text;

/// Settings of publishing on all routes: `[publishing]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PublishingConfig {
    /// How many events the bus holds that have no outcome yet, waiting or sent, at least 1.
    /// Beyond it `publish` waits and `try_publish` fails. Default: 100,000.
    #[serde(deserialize_with = "fields::positive")]
    pub max_queued_events: u32,
    /// How many bytes these events may have, attributes and data, at least 1. One event alone may
    /// have more. Default: 64 MiB.
    #[serde(deserialize_with = "bytes")]
    pub max_queued_bytes: u32,
    /// How many events one transaction may hold, at least 1. Default: 10,000.
    #[serde(deserialize_with = "fields::positive")]
    pub max_transaction_events: usize,
    /// How many bytes the events of one transaction may have, attributes and data. Default: 16 MiB.
    #[serde(deserialize_with = "fields::size")]
    pub max_transaction_bytes: usize,
    /// What is kept of events that failed for good.
    pub failed: FailedConfig,
}

impl Default for PublishingConfig {
    fn default() -> Self {
        Self {
            max_queued_events: 100_000,
            max_queued_bytes: 64 << 20,
            max_transaction_events: 10_000,
            max_transaction_bytes: 16 << 20,
            failed: FailedConfig::default(),
        }
    }
}

/// What is kept of events that failed for good: `[publishing.failed]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct FailedConfig {
    /// How many events are kept; 0 keeps none in memory. Default: 10,000.
    pub max_events: usize,
    /// How many bytes these events may have. Default: 16 MiB.
    #[serde(deserialize_with = "fields::size")]
    pub max_bytes: usize,
    /// A file to which the oldest are appended when there is no room, and the rest at the end of
    /// the bus: one JSON object a line. Default: none, the oldest are dropped, counted and
    /// logged.
    pub spill: Option<PathBuf>,
}

impl Default for FailedConfig {
    fn default() -> Self {
        Self {
            max_events: 10_000,
            max_bytes: 16 << 20,
            spill: None,
        }
    }
}

/// How the events of a route are published: the keys of `[[routes]]` beside pattern, transport
/// and topic.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct PublishConfig {
    /// How events are gathered into batches.
    pub batch: BatchConfig,
    /// Whether the events wait for batches to fill. Default: normal.
    pub priority: Priority,
    /// When an event that was rejected is sent again. Default: 5 attempts, from 200 ms to 30 s
    /// apart.
    pub retry: RetryConfig,
    /// What becomes of an event of which nobody knows whether it is stored. Default: it fails.
    pub on_unknown: OnUnknown,
    /// Whether events are held to their contract. Default: off.
    pub validate: Validate,
    /// Publishes events of one identity only once. Default: off.
    pub dedup: Option<DedupConfig>,
    /// How many events a second may be sent. Default: any number.
    pub rate_limit: Option<RateLimitConfig>,
    /// Stops asking a server that keeps failing. Default: off.
    pub circuit_breaker: Option<CircuitBreakerConfig>,
    /// How long the transport may take to answer for a batch before its outcome is unknown.
    /// Default: as long as the transport's own deadline.
    pub timeout: Option<Duration>,
    /// Where events go that this transport rejected for good. Default: nowhere.
    pub fallback: Option<FallbackConfig>,
}

impl PublishConfig {
    /// The first key whose value contradicts another's, and how.
    pub(super) fn contradiction(&self) -> Option<(&'static [&'static str], String)> {
        if self.retry.base > self.retry.max {
            let (base, max) = (self.retry.base, self.retry.max);
            let what = format!("{base:?} is over `max`, which is {max:?}");
            return Some((&["retry", "base"], what));
        }
        if self.retry.delayed.is_some() {
            let what = "is for subscriptions: what is published waits in its place".to_owned();
            return Some((&["retry", "delayed"], what));
        }
        if self.timeout.is_some_and(|timeout| timeout.is_zero()) {
            let what = "must be longer than an answer takes, so not zero".to_owned();
            return Some((&["timeout"], what));
        }
        if self.dedup.as_ref().is_some_and(|it| it.window.is_zero()) {
            return Some((&["dedup", "window"], "must not be zero".to_owned()));
        }
        None
    }
}

/// How events are gathered into batches: `batch = { .. }` of a route.
///
/// An event that comes while nothing is out leaves at once. While a batch is out, events gather,
/// and the next batch leaves when nothing is out any more, when it is full, when it has as many events
/// as are out and at least 64, or when its first event has waited for `max_wait`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BatchConfig {
    /// The most events in a batch, at least 1. Default: 500.
    #[serde(deserialize_with = "fields::positive")]
    pub max_events: usize,
    /// The most bytes in a batch, unless one event alone has more. Default: 1 MiB.
    #[serde(deserialize_with = "fields::size")]
    pub max_bytes: usize,
    /// How long events gather while other batches are out and a further one may leave. Default:
    /// 1 ms.
    #[serde(deserialize_with = "fields::duration")]
    pub max_wait: Duration,
    /// How many batches of a group may be out at the same time, at least 1. Default: 16.
    #[serde(deserialize_with = "fields::positive")]
    pub max_concurrent_batches: usize,
    /// No further batch of a group leaves while so many bytes of it are out. A server nearby is
    /// slower with more; one far away may need more. Default: 2 MiB.
    #[serde(deserialize_with = "fields::size")]
    pub max_concurrent_bytes: usize,
    /// Which events share batches: `"topic"` (default), `"type"` for those of the same event
    /// type, or a number n for those whose types have the same first n segments.
    pub group_by: GroupBy,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            max_events: 500,
            max_bytes: 1 << 20,
            max_wait: Duration::from_millis(1),
            max_concurrent_batches: 16,
            max_concurrent_bytes: 2 << 20,
            group_by: GroupBy::default(),
        }
    }
}

/// Which events of a route share batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum GroupBy {
    /// Those of the same topic. The default.
    #[default]
    Topic,
    /// Those of the same topic and event type.
    Type,
    /// Those of the same topic whose types have the same first segments, as many as given.
    Segments(usize),
}

/// Whether the events of a route wait for batches to fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Priority {
    /// They gather while a batch is out. The default.
    #[default]
    Normal,
    /// They leave as soon as a further batch may, without gathering, and ahead of what gathers on
    /// other routes of the same topic.
    High,
}

/// What becomes of an event of which nobody knows whether it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnUnknown {
    /// Its outcome is unknown. The default.
    #[default]
    Fail,
    /// It is sent again like one that was rejected. It may then be stored twice: for routes whose
    /// consumers deduplicate.
    Retry,
}

/// Whether events are held to what they have to be ([`validation`](crate::validation)), when they are
/// published and when they are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Validate {
    /// No. The default.
    #[default]
    Off,
    /// What is wrong with an event is logged, and the event passes.
    Warn,
    /// An event in which something is wrong is not published; one that is read becomes a dead letter,
    /// with the report.
    Strict,
}

/// Publishes events of one identity (`source` and `id`) only once: `dedup = { .. }` of a route.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DedupConfig {
    /// For how long an accepted event is remembered. No default: it is the point of the setting.
    #[serde(deserialize_with = "fields::duration")]
    pub window: Duration,
    /// How many events are remembered at most, the newest, at least 1. Default: 100,000.
    #[serde(
        default = "DedupConfig::default_events",
        deserialize_with = "fields::positive"
    )]
    pub max_events: usize,
}

impl DedupConfig {
    /// A window.
    pub fn new(window: Duration) -> Self {
        Self {
            window,
            max_events: Self::default_events(),
        }
    }

    fn default_events() -> usize {
        100_000
    }
}

/// How many events may be sent: `rate_limit = { .. }` of a route. Over it they wait.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RateLimitConfig {
    /// Events a second, at least 1. No default.
    #[serde(deserialize_with = "fields::positive")]
    pub per_second: u32,
    /// How many may go at once after a pause, at least 1. Default: as many as in a second.
    #[serde(default, deserialize_with = "optional_positive")]
    pub burst: Option<u32>,
}

impl RateLimitConfig {
    /// A limit with its default burst.
    pub fn new(per_second: u32) -> Self {
        Self {
            per_second,
            burst: None,
        }
    }
}

/// Stops asking a server that keeps failing: `circuit_breaker = { .. }` of a route.
///
/// An event counts as a failure if it was rejected for a passing reason, or if its outcome is
/// unknown. While the circuit is open nothing is sent; after `open_for` one batch is let through,
/// and its outcome closes the circuit or opens it again.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CircuitBreakerConfig {
    /// How many batches in a row fail as a whole before the circuit opens, at least 1. Default: 5.
    #[serde(deserialize_with = "fields::positive")]
    pub failures: u32,
    /// How long it stays open. Default: 5 s.
    #[serde(deserialize_with = "fields::duration")]
    pub open_for: Duration,
    /// What events do meanwhile. Default: they wait.
    pub when_open: WhenOpen,
}

impl Default for CircuitBreakerConfig {
    fn default() -> Self {
        Self {
            failures: 5,
            open_for: Duration::from_secs(5),
            when_open: WhenOpen::default(),
        }
    }
}

/// What events do while a circuit is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WhenOpen {
    /// They wait for the next try. The default.
    #[default]
    Wait,
    /// They are rejected, as an attempt that failed; with a `fallback` they take it at once.
    Fail,
}

/// Where events go that the route's transport rejected for good: `fallback = { .. }` of a route.
///
/// Only what is certainly not stored goes there. Order between the two transports is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct FallbackConfig {
    /// The transport's name.
    pub transport: Text,
    /// The topic. Default: that of the route.
    #[serde(default)]
    pub topic: Option<Text>,
}

impl FallbackConfig {
    /// The same topic on another transport.
    pub fn new(transport: impl Into<Text>) -> Self {
        Self {
            transport: transport.into(),
            topic: None,
        }
    }
}

impl<'de> Deserialize<'de> for GroupBy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(GroupByVisitor)
    }
}

struct GroupByVisitor;

impl Visitor<'_> for GroupByVisitor {
    type Value = GroupBy;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`\"topic\"`, `\"type\"`, or a number of segments from 1 up")
    }

    fn visit_str<E: DeserializeError>(self, text: &str) -> Result<GroupBy, E> {
        match text {
            "topic" => Ok(GroupBy::Topic),
            "type" => Ok(GroupBy::Type),
            // From the environment, which is always text.
            text => match text.parse() {
                Ok(segments) => self.visit_u64(segments),
                Err(_) => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
            },
        }
    }

    fn visit_u64<E: DeserializeError>(self, segments: u64) -> Result<GroupBy, E> {
        match usize::try_from(segments) {
            Ok(segments) if segments > 0 => Ok(GroupBy::Segments(segments)),
            _ => Err(E::invalid_value(
                serde::de::Unexpected::Unsigned(segments),
                &self,
            )),
        }
    }
}

fn optional_positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    fields::positive(deserializer).map(Some)
}

/// A size of at least a byte that the counter of the bytes there are can hold.
fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::try_from(fields::size(deserializer)?) {
        Ok(0) => Err(D::Error::custom("must be at least 1")),
        Ok(bytes) if bytes <= MAX_QUEUED_BYTES => Ok(bytes),
        _ => Err(D::Error::custom("must be at most 512 MiB")),
    }
}

/// A semaphore holds no more permits than this on 32 bit machines.
const MAX_QUEUED_BYTES: u32 = 1 << 29;
