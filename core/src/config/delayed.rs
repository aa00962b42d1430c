use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::fields;
use crate::text::format_text;
use crate::time::parse_duration;
use crate::topic::TopicPrefix;
use crate::{Error, ErrorKind, Result, Text, Topic};

/// Long pauses before further attempts: `retry = { delayed = { pauses = ["1m", "10m"] } }`.
///
/// A pause in the lane holds back the later events of the key, and takes a place in the window of
/// the subscription. After `after_attempts` failures an event is stored in a topic for its group
/// and pause instead, and its place is settled; the subscription reads that topic too, and handles
/// the event when its pause is over. **That gives up order**: later events of its key are handled
/// in the meantime.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DelayedRetry {
    /// The pauses, ascending: the first follows the attempt of `after_attempts`, each further
    /// failure takes the next one, and the last one stays.
    ///
    /// A handler's own [`Retry { after }`](crate::handler::Verdict::Retry) that is longer than `max`
    /// of the retry settings waits where the shortest pause is made that is as long. It comes in its
    /// own time, or, if more than 64 wait there before it, after that pause at the latest. One that
    /// is longer than all pauses is cut to the last.
    #[serde(deserialize_with = "durations")]
    pub pauses: Vec<Duration>,
    /// How many attempts are made in the lane first, at least 1 and below `max_attempts`.
    /// Default: 3.
    #[serde(deserialize_with = "fields::positive", default = "after_attempts")]
    pub after_attempts: u32,
    /// The name of the topics, in which `{topic}`, `{group}` and `{pause}` stand for the event's
    /// own topic, the consumer group and the pause. Default: `{topic}.retry.{group}.{pause}`.
    #[serde(default)]
    pub topic: DelayedTopic,
}

impl DelayedRetry {
    /// Pauses, after three attempts in the lane.
    pub fn new(pauses: impl IntoIterator<Item = Duration>) -> Self {
        Self {
            pauses: pauses.into_iter().collect(),
            after_attempts: after_attempts(),
            topic: DelayedTopic::default(),
        }
    }

    /// Which of the pauses follows a failed attempt, if it is not one in the lane. `after` is the
    /// pause that the handler asked for, `max` the longest in the lane.
    pub(crate) fn pause(
        &self,
        attempt: u32,
        after: Option<Duration>,
        max: Duration,
    ) -> Option<Duration> {
        let last = self.pauses.last().copied();
        if let Some(after) = after {
            let long_enough = self.pauses.iter().find(|pause| **pause >= after);
            return (after > max).then(|| long_enough.copied().or(last))?;
        }
        let step = attempt.checked_sub(self.after_attempts)?;
        let step = usize::try_from(step).unwrap_or(usize::MAX);
        self.pauses.get(step).copied().or(last)
    }

    pub(super) fn contradiction(
        &self,
        max_attempts: u32,
    ) -> Option<(&'static [&'static str], String)> {
        if self.pauses.is_empty() || self.pauses.iter().any(Duration::is_zero) {
            let what = "must be one pause at least, none of them zero".to_owned();
            return Some((&["retry", "delayed", "pauses"], what));
        }
        if !self.pauses.is_sorted_by(|one, next| one < next) {
            let what = "must ascend: each event takes them one after the other".to_owned();
            return Some((&["retry", "delayed", "pauses"], what));
        }
        if self.after_attempts >= max_attempts {
            let what = format!(
                "{} leaves no attempt for the pauses, as `max_attempts` is {max_attempts}",
                self.after_attempts
            );
            return Some((&["retry", "delayed", "after_attempts"], what));
        }
        None
    }
}

/// The name of the topics in which events wait for their next attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DelayedTopic(Text);

impl DelayedTopic {
    const PLACEHOLDERS: [&'static str; 3] = ["{topic}", "{group}", "{pause}"];

    /// Reads a template.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] unless it has each of `{topic}`, `{group}` and `{pause}` once, and
    /// no other placeholder.
    pub fn parse(template: &str) -> Result<Self> {
        let once = |it: &'static str| template.matches(it).count() == 1;
        let rest = Self::PLACEHOLDERS
            .iter()
            .fold(template.to_owned(), |rest, it| rest.replace(it, ""));
        if Self::PLACEHOLDERS.iter().all(|it| once(it)) && !rest.contains(['{', '}']) {
            return Ok(Self(template.into()));
        }
        let message = format!("`{template}` does not have each placeholder once");
        Err(Error::new(ErrorKind::Config, message)
            .with_note("write it as `{topic}.retry.{group}.{pause}`"))
    }

    /// The topic for events of a topic, in a group, for a pause.
    /// `prefix` is that of the transport's topics: it stays before the whole name.
    pub fn fill(&self, topic: &Topic, prefix: &TopicPrefix, group: &str, pause: Duration) -> Topic {
        let filled = self.0.replace("{pause}", &compact(pause));
        let filled = filled.replace("{group}", group);
        prefix.apply(&filled.replace("{topic}", prefix.strip(topic.name())))
    }

    /// Whether a topic's name can come from the template, for any topic, group and pause.
    pub fn covers(&self, topic: &Topic, prefix: &TopicPrefix) -> bool {
        let mut parts = self.0.split(['{', '}']).step_by(2);
        let Some(mut rest) = topic.name().strip_prefix(prefix.as_str()) else {
            return false;
        };
        let first = parts.next().unwrap_or_default();
        let Some(behind) = rest.strip_prefix(first) else {
            return false;
        };
        rest = behind;
        let parts: Vec<&str> = parts.collect();
        for (index, part) in parts.iter().enumerate() {
            let found = match (index + 1 == parts.len(), part.is_empty()) {
                (true, _) => rest.strip_suffix(part).map(|before| (before, "")),
                (false, true) => Some((rest, rest)),
                (false, false) => rest.split_once(part),
            };
            match found {
                Some((before, behind)) if !before.is_empty() => rest = behind,
                _ => return false,
            }
        }
        true
    }

    /// The template as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for DelayedTopic {
    fn default() -> Self {
        Self(Text::new_static("{topic}.retry.{group}.{pause}"))
    }
}

impl<'de> Deserialize<'de> for DelayedTopic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

const fn after_attempts() -> u32 {
    3
}

/// A duration as one number and one unit.
fn compact(duration: Duration) -> Text {
    let millis = duration.as_millis();
    for (unit, length) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis >= length && millis.is_multiple_of(length) {
            return format_text!("{}{unit}", millis / length);
        }
    }
    format_text!("{millis}ms")
}

fn durations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
    let texts = Vec::<Text>::deserialize(deserializer)?;
    let read = texts.iter().map(|text| parse_duration(text));
    read.collect::<Result<_>>().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn none() -> TopicPrefix {
        TopicPrefix::default()
    }

    fn ladder() -> DelayedRetry {
        DelayedRetry::new([MINUTE, 10 * MINUTE, 60 * MINUTE])
    }

    #[test]
    fn each_failure_takes_the_next_pause_and_the_last_one_stays() {
        let pause = |attempt| ladder().pause(attempt, None, MINUTE);
        assert_eq!(pause(1), None);
        assert_eq!(pause(2), None);
        assert_eq!(pause(3), Some(MINUTE));
        assert_eq!(pause(4), Some(10 * MINUTE));
        assert_eq!(pause(5), Some(60 * MINUTE));
        assert_eq!(pause(99), Some(60 * MINUTE));
    }

    #[test]
    fn a_pause_that_a_handler_asks_for_takes_the_shortest_that_is_as_long() {
        let pause = |seconds| ladder().pause(1, Some(Duration::from_secs(seconds)), MINUTE / 2);
        assert_eq!(pause(30), None, "not longer than the lane's longest");
        assert_eq!(pause(31), Some(MINUTE));
        assert_eq!(pause(61), Some(10 * MINUTE));
        assert_eq!(pause(7200), Some(60 * MINUTE));
    }

    #[test]
    fn topics_are_filled_in_and_known_again() {
        let template = DelayedTopic::default();
        let topic = |name: &str| Topic::new(name);
        for (pause, name) in [
            (MINUTE, "users.retry.mailer.1m"),
            (90 * MINUTE, "users.retry.mailer.90m"),
            (120 * MINUTE, "users.retry.mailer.2h"),
            (Duration::from_millis(1500), "users.retry.mailer.1500ms"),
        ] {
            let filled = template.fill(&topic("users"), &none(), "mailer", pause);
            assert_eq!(filled.name(), name);
            assert!(template.covers(&filled, &none()));
        }
        for other in [
            "users",
            "users.retry.",
            "users.retry.mailer",
            ".retry.a.1m",
            "users.dlq",
        ] {
            assert!(!template.covers(&topic(other), &none()), "{other}");
        }
        let other = DelayedTopic::parse("again-{pause}-{group}/{topic}").unwrap();
        assert!(other.covers(
            &other.fill(&topic("users"), &none(), "mailer", MINUTE),
            &none()
        ));
        assert!(!other.covers(&topic("again-1m-mailer"), &none()));
    }

    #[test]
    fn a_template_without_each_placeholder_is_refused() {
        for text in [
            "",
            "{topic}.retry",
            "{topic}{group}",
            "{topic}.{group}.{pause}.{x}",
        ] {
            assert!(DelayedTopic::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_prefix_stays_before_the_whole_name() {
        let template = DelayedTopic::parse("again.{topic}.{group}.{pause}").unwrap();
        let prefix = TopicPrefix::new("staging.");
        let filled = template.fill(&Topic::new("staging.users"), &prefix, "mailer", MINUTE);
        assert_eq!(filled.name(), "staging.again.users.mailer.1m");
        assert!(template.covers(&filled, &prefix));
        assert!(!template.covers(&Topic::new("again.users.mailer.1m"), &prefix));
    }
}
