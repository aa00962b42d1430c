use std::fmt::{self, Display};
use std::ops::Deref;

use serde::de::DeserializeOwned;

use crate::runtime::{Progress, provenance};
use crate::transport::{Content, Outgoing, Position, RawRecord};
use crate::{Codec, Event, Headers, Result, Text, Topic};

/// What was recorded of one sort, the oldest first. A slice of it, with assertions.
#[derive(Clone)]
pub struct Recorded<T> {
    what: String,
    items: Vec<T>,
    /// One line for each, for the message of an assertion that fails.
    lines: Vec<String>,
}

impl<T> Recorded<T> {
    pub(super) fn new(what: String, items: impl IntoIterator<Item = (T, String)>) -> Self {
        let (items, lines) = items.into_iter().unzip();
        Self { what, items, lines }
    }

    /// Checks how many there are.
    ///
    /// # Panics
    ///
    /// With a list of what there is instead, if there are not so many.
    #[track_caller]
    pub fn assert_len(&self, expected: usize) -> &Self {
        assert!(self.items.len() == expected, "expected {expected} {self}");
        self
    }

    /// Checks that there is none.
    ///
    /// # Panics
    ///
    /// With a list of what there is instead.
    #[track_caller]
    pub fn assert_empty(&self) -> &Self {
        self.assert_len(0)
    }

    /// The only one.
    ///
    /// # Panics
    ///
    /// With a list of what there is instead, if there is none or more than one.
    #[track_caller]
    pub fn only(&self) -> &T {
        self.assert_len(1);
        &self.items[0]
    }
}

impl<T> Deref for Recorded<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items
    }
}

impl<T> IntoIterator for Recorded<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl<T> Display for Recorded<T> {
    /// What is recorded, with a line for each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, found {}", self.what, self.items.len())?;
        for line in &self.lines {
            write!(f, "\n  {line}")?;
        }
        Ok(())
    }
}

impl<T> fmt::Debug for Recorded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.lines).finish()
    }
}

/// An event that a transport accepted.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PublishedEvent {
    /// The transport's name in the config.
    pub transport: Text,
    /// The topic.
    pub topic: Topic,
    /// Its position there.
    pub position: Position,
    /// The event.
    pub event: Event,
    /// The headers beside the event's attributes.
    pub headers: Headers,
}

impl PublishedEvent {
    /// The data as a value.
    ///
    /// # Errors
    ///
    /// [`Decode`](crate::ErrorKind::Decode) if it is not that of a `T`.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T> {
        Codec::decode(&self.event)
    }

    pub(super) fn line(&self) -> String {
        format!(
            "{} to {}: {}",
            self.topic,
            self.transport,
            Shown(&self.event)
        )
    }
}

/// An event that failed for good, as it was put away.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The transport that it was put away on.
    pub transport: Text,
    /// The topic of dead letters.
    pub topic: Topic,
    /// The event, or the record if it is none.
    pub content: Content,
    /// The headers, those of [`provenance`] included.
    pub headers: Headers,
}

impl DeadLetter {
    pub(super) fn new(transport: Text, outgoing: &Outgoing) -> Self {
        Self {
            transport,
            topic: outgoing.topic.clone(),
            content: outgoing.content.clone(),
            headers: outgoing.headers.clone(),
        }
    }

    /// The event; `None` for a record that is no event.
    pub fn event(&self) -> Option<&Event> {
        match &self.content {
            Content::Event(event) => Some(event),
            Content::Raw(_) => None,
        }
    }

    /// The record as it came, if it is no event.
    pub fn record(&self) -> Option<&RawRecord> {
        match &self.content {
            Content::Event(_) => None,
            Content::Raw(record) => Some(&**record),
        }
    }

    /// Why it failed.
    pub fn reason(&self) -> &str {
        self.provenance(provenance::REASON)
    }

    /// The subscription in which it failed.
    pub fn subscription(&self) -> &str {
        self.provenance(provenance::SUBSCRIPTION)
    }

    /// The group in which it failed.
    pub fn group(&self) -> &str {
        self.provenance(provenance::GROUP)
    }

    /// The topic that it came from.
    pub fn origin_topic(&self) -> &str {
        self.provenance(provenance::TOPIC)
    }

    /// The transport that it came from.
    pub fn origin_transport(&self) -> &str {
        self.provenance(provenance::TRANSPORT)
    }

    /// How many attempts were made.
    pub fn attempts(&self) -> u32 {
        self.provenance(provenance::ATTEMPTS)
            .parse()
            .unwrap_or_default()
    }

    fn provenance(&self, name: &str) -> &str {
        let value = self.headers.first(name);
        value
            .and_then(|value| std::str::from_utf8(value).ok())
            .unwrap_or_default()
    }

    pub(super) fn line(&self) -> String {
        let what = match self.event() {
            Some(event) => Shown(event).to_string(),
            None => "a record that is no event".to_owned(),
        };
        format!(
            "{} of `{}`, attempt {}: {} ({what})",
            self.topic,
            self.subscription(),
            self.attempts(),
            self.reason()
        )
    }
}

/// What came of one attempt of a subscription at an event.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Handling {
    /// The subscription's name.
    pub subscription: Text,
    /// The transport's name in the config.
    pub transport: Text,
    /// The topic.
    pub topic: Topic,
    /// The position there.
    pub position: Position,
    /// The event; `None` for a record that is no event.
    pub event: Option<Event>,
    /// Which attempt it was, starting at 1.
    pub attempt: u32,
    /// What came of it.
    pub progress: Progress,
}

impl Handling {
    /// The event's type; empty for a record that is no event.
    pub fn event_type(&self) -> &str {
        self.event.as_ref().map_or("", Event::event_type)
    }

    /// The event's key.
    pub fn key(&self) -> Option<&str> {
        self.event.as_ref().and_then(Event::key)
    }

    pub(super) fn line(&self) -> String {
        let what = match &self.event {
            Some(event) => Shown(event).to_string(),
            None => "a record that is no event".to_owned(),
        };
        let (attempt, progress) = (self.attempt, self.progress.as_str());
        format!("{progress}, attempt {attempt}: {what}")
    }
}

/// An event in one line, its data cut.
struct Shown<'a>(&'a Event);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 200;
        let event = self.0;
        write!(f, "{}", event.event_type())?;
        if let Some(key) = event.key() {
            write!(f, " key {key}")?;
        }
        let Some(data) = event.data() else {
            return Ok(());
        };
        let text = String::from_utf8_lossy(&data[..data.len().min(MOST)]);
        write!(f, " {text}{}", if data.len() > MOST { "..." } else { "" })
    }
}
