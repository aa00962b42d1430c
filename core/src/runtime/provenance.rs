//! Names of the headers that say where a dead letter comes from and why, and their values.

use bytes::Bytes;

use crate::handler::FailureKind;
use crate::transport::{Header, Headers, Position};
use crate::validation::Fault;
use crate::{Text, Timestamp};

/// The id of a dead letter, made of transport, topic, position and group: an event that was put
/// away twice, because a process ended in between, has the same one both times.
pub const ID: &str = "polybus-dead-letter-id";
/// The transport's name in the config.
pub const TRANSPORT: &str = "polybus-origin-transport";
/// The topic.
pub const TOPIC: &str = "polybus-origin-topic";
/// The position in the topic: `partition:offset`, or `partition:milliseconds-sequence`.
pub const POSITION: &str = "polybus-origin-position";
/// The consumer group.
pub const GROUP: &str = "polybus-group";
/// The subscription.
pub const SUBSCRIPTION: &str = "polybus-subscription";
/// The event type or pattern that the handler takes. Without one if none takes the event.
pub const HANDLER: &str = "polybus-handler";
/// How many attempts were made.
pub const ATTEMPTS: &str = "polybus-attempts";
/// Why the event failed, cut to 1 KiB.
pub const REASON: &str = "polybus-reason";
/// What sort of failure it was: a [`FailureKind`].
pub const KIND: &str = "polybus-failure-kind";
/// What is wrong with an event that is not valid, each fault with its JSON pointer: a JSON array, of as
/// many as 8 KiB hold.
pub const FAULTS: &str = "polybus-faults";
/// When it failed first, RFC 3339, as far as is known.
pub const FIRST_FAILED_AT: &str = "polybus-first-failed-at";
/// When it failed for good, RFC 3339.
pub const FAILED_AT: &str = "polybus-failed-at";
/// Before when an event is not to be handled, RFC 3339: it waits for its next attempt, and is no
/// dead letter.
pub const NOT_BEFORE: &str = "polybus-not-before";
/// How many times an event has been replayed. Stays when it becomes a dead letter again.
pub const REPLAYED: &str = "polybus-replayed";
/// Which replay it was.
pub const REPLAY: &str = "polybus-replay";

/// A dead letter stays below the server's limits.
const MAX_FAULTS_BYTES: usize = 8 << 10;

/// What is taken off when an event goes on its way again. The two of a replay stay.
const TAKEN_OFF: [&str; 14] = [
    ID,
    TRANSPORT,
    TOPIC,
    POSITION,
    GROUP,
    SUBSCRIPTION,
    HANDLER,
    ATTEMPTS,
    REASON,
    KIND,
    FAULTS,
    FIRST_FAILED_AT,
    FAILED_AT,
    NOT_BEFORE,
];

/// Where a dead letter comes from and why, as its headers say it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Provenance {
    /// Its id: [`ID`].
    pub id: Text,
    /// The transport's name in the config.
    pub transport: Text,
    /// The topic.
    pub topic: Text,
    /// The position in the topic.
    pub position: Option<Position>,
    /// The consumer group.
    pub group: Text,
    /// The subscription.
    pub subscription: Text,
    /// The event type or pattern that the handler takes.
    pub handler: Option<Text>,
    /// How many attempts were made.
    pub attempts: u32,
    /// Why it failed.
    pub reason: String,
    /// What sort of failure it was.
    pub kind: Option<FailureKind>,
    /// What is wrong with the event, if it was not valid.
    pub faults: Vec<Fault>,
    /// When it failed first.
    pub first_failed_at: Option<Timestamp>,
    /// When it failed for good.
    pub failed_at: Option<Timestamp>,
    /// How many times it had been replayed before.
    pub replayed: u32,
}

impl Provenance {
    /// Reads the headers of a dead letter; `None` if they are of none.
    pub fn read(headers: &Headers) -> Option<Self> {
        let owned = |name| text(headers, name).map(Text::from);
        let time = |name| text(headers, name)?.parse().ok();
        let number = |name| text(headers, name).and_then(|it| it.parse().ok());
        Some(Self {
            transport: owned(TRANSPORT)?,
            topic: owned(TOPIC)?,
            id: owned(ID).unwrap_or_default(),
            position: text(headers, POSITION).and_then(|it| it.parse().ok()),
            group: owned(GROUP).unwrap_or_default(),
            subscription: owned(SUBSCRIPTION).unwrap_or_default(),
            handler: owned(HANDLER),
            attempts: number(ATTEMPTS).unwrap_or_default(),
            reason: text(headers, REASON).unwrap_or_default().to_owned(),
            kind: text(headers, KIND).and_then(FailureKind::parse),
            faults: faults(headers),
            first_failed_at: time(FIRST_FAILED_AT),
            failed_at: time(FAILED_AT),
            replayed: number(REPLAYED).unwrap_or_default(),
        })
    }

    /// The headers without those that a dead letter was given: what was received.
    pub fn strip(headers: &Headers) -> Headers {
        let is_ours = |name: &str| TAKEN_OFF.iter().any(|it| it.eq_ignore_ascii_case(name));
        let kept = headers.iter().filter(|(name, _)| !is_ours(name));
        kept.map(|(name, value)| (Text::from(name), value.cloned()))
            .collect()
    }
}

fn faults(headers: &Headers) -> Vec<Fault> {
    let json = headers.first(FAULTS);
    let faults = json.and_then(|json| serde_json::from_slice(json).ok());
    faults.unwrap_or_default()
}

/// The header of faults, if there are some: the first ones, as many as it may hold.
pub(super) fn faults_header(faults: &[Fault]) -> Option<Header> {
    let mut faults = faults;
    while !faults.is_empty() {
        // Text alone, which can always be written.
        let json = serde_json::to_vec(faults).unwrap_or_default();
        if json.len() <= MAX_FAULTS_BYTES {
            return Some((Text::new_static(FAULTS), Some(json.into())));
        }
        faults = &faults[..faults.len() / 2];
    }
    None
}

/// The text of a header.
pub(super) fn text<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    std::str::from_utf8(headers.first(name)?).ok()
}

/// A header of text.
pub(super) fn header(name: &'static str, value: &str) -> Header {
    let value = Bytes::copy_from_slice(value.as_bytes());
    (Text::new_static(name), Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_received_is_left_when_the_provenance_is_taken_off() {
        let mut headers = Headers::new();
        headers.push("traceparent", Some(Bytes::from_static(b"00-1")));
        headers.push("Polybus-Reason", Some(Bytes::from_static(b"no")));
        headers.push("null", None);
        headers.push(REPLAYED, Some(Bytes::from_static(b"2")));
        for name in TAKEN_OFF {
            headers.push(name, Some(Bytes::from_static(b"x")));
        }
        let stripped = Provenance::strip(&headers);
        let names: Vec<_> = stripped.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["traceparent", "null", REPLAYED]);
    }

    #[test]
    fn headers_of_no_dead_letter_have_no_provenance() {
        let mut headers = Headers::new();
        headers.push(REASON, Some(Bytes::from_static(b"no")));
        assert_eq!(Provenance::read(&headers), None);
    }
}
