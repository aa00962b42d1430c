//! The events that both sides publish: the same payload, key and attributes.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use polybus::{Event, EventBuilder, Text, Timestamp};

/// The type of all events, unless a case is about types.
pub const TYPE: &str = "bench.measured";

/// The source of all events, which is the service's name.
pub const SOURCE: &str = "bench";

/// The content type of all events.
pub const CONTENT_TYPE: &str = "application/json";

/// How many keys there are. As many as events are on the way, and more.
const KEYS: usize = 100_000;

/// What events look like.
#[derive(Debug, Clone)]
pub struct Shape {
    pub payload: Bytes,
    keys: Arc<[Text]>,
}

impl Shape {
    /// Events with a payload of a size, and a key each.
    pub fn new(payload_bytes: usize) -> Self {
        Self::with_keys(payload_bytes, KEYS)
    }

    /// Events with a payload of a size that share so many keys.
    pub fn with_keys(payload_bytes: usize, keys: usize) -> Self {
        let (start, end) = ("{\"text\":\"", "\"}");
        let filling = payload_bytes.saturating_sub(start.len() + end.len());
        let payload = [start, &"x".repeat(filling), end].concat();
        Self {
            payload: payload.into(),
            keys: (0..keys).map(|key| Text::from(format!("k{key}"))).collect(),
        }
    }

    /// The same events with another payload.
    pub fn carrying(&self, payload: impl Into<Bytes>) -> Self {
        Self {
            payload: payload.into(),
            keys: Arc::clone(&self.keys),
        }
    }

    /// The key of an event.
    pub fn key(&self, number: usize) -> &Text {
        &self.keys[number % self.keys.len()]
    }

    /// An event with an encoded payload, as a user makes it.
    pub fn event(&self, number: usize) -> EventBuilder {
        self.dress(Event::builder(Text::new_static(TYPE)), number)
    }

    /// The same of a type of its own.
    pub fn dress(&self, event: EventBuilder, number: usize) -> EventBuilder {
        event
            .key(self.key(number).clone())
            .content_type(Text::new_static(CONTENT_TYPE))
            .data(self.payload.clone())
    }
}

/// Writes the attribute `time` of an event that is made by hand.
pub fn write_time(text: &mut String) {
    text.clear();
    write!(text, "{}", Timestamp::now()).expect("writing to a string does not fail");
}
