use std::fmt;
use std::sync::{Arc, LazyLock};

use super::{Headers, Position, RawRecord};
use crate::codec::{self, DataSchema};
use crate::{Error, Event, Topic};

/// A received event, or bytes that are none, with where it came from.
#[derive(Debug)]
pub struct Delivery {
    token: AckToken,
    topic: Topic,
    position: Position,
    attempt: u32,
    earlier: u32,
    headers: Headers,
    content: Result<Event, Box<Undecodable>>,
    /// The record of an event that a format read.
    record: Option<Box<RawRecord>>,
    /// What a registry says of the schema that the data name.
    schema: Option<Box<Result<Arc<DataSchema>, Error>>>,
}

/// A record that is no event: kept as it came, so that nothing is lost.
#[non_exhaustive]
pub struct Undecodable {
    /// The record as it came.
    pub record: RawRecord,
    /// Made when somebody asks: mostly nobody does, because a format reads the record.
    error: LazyLock<Error, Box<dyn FnOnce() -> Error + Send>>,
}

impl Undecodable {
    fn new(record: RawRecord, error: impl FnOnce() -> Error + Send + 'static) -> Self {
        let error = LazyLock::new(Box::new(error) as Box<dyn FnOnce() -> Error + Send>);
        Self { record, error }
    }

    /// Why it is no event ([`ErrorKind::Decode`](crate::ErrorKind::Decode)).
    pub fn error(&self) -> &Error {
        &self.error
    }
}

impl fmt::Debug for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undecodable")
            .field("record", &self.record)
            .field("error", self.error())
            .finish()
    }
}

impl Delivery {
    /// A delivered event, for the first time and without further headers.
    pub fn new(token: AckToken, topic: Topic, position: Position, event: Event) -> Self {
        let headers = Headers::new();
        Self {
            token,
            topic,
            position,
            attempt: 1,
            earlier: 0,
            headers,
            content: Ok(event),
            record: None,
            schema: None,
        }
    }

    /// A delivered record that is no event.
    pub fn undecodable(
        token: AckToken,
        topic: Topic,
        position: Position,
        record: RawRecord,
        error: Error,
    ) -> Self {
        Self::unread(token, topic, position, record, move || error)
    }

    /// A delivered record that is no event as far as the transport can see: the format of its topic may
    /// read it. Why it is none is asked for only if nothing does.
    pub fn unread(
        token: AckToken,
        topic: Topic,
        position: Position,
        record: RawRecord,
        error: impl FnOnce() -> Error + Send + 'static,
    ) -> Self {
        let content = Err(Box::new(Undecodable::new(record, error)));
        Self {
            token,
            topic,
            position,
            attempt: 1,
            earlier: 0,
            headers: Headers::new(),
            content,
            record: None,
            schema: None,
        }
    }

    /// Reads a record that the transport could not read as an event. What is an event already stays
    /// one; where `read` fails, its error becomes the reason.
    #[must_use]
    pub(crate) fn decoded(mut self, read: impl FnOnce(&RawRecord) -> crate::Result<Event>) -> Self {
        let Err(undecodable) = &mut self.content else {
            return self;
        };
        match read(&undecodable.record) {
            Ok(event) => {
                let record = std::mem::take(&mut undecodable.record);
                self.headers = record.headers.clone();
                self.record = Some(Box::new(record));
                self.content = Ok(event);
            }
            Err(error) => {
                let record = std::mem::take(&mut undecodable.record);
                **undecodable = Undecodable::new(record, move || error);
            }
        }
        self
    }

    /// Sets how many times the event has been delivered, this time included.
    #[must_use]
    pub fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// Sets how many attempts were made before the event came to where it was delivered from: it
    /// failed elsewhere, and was stored for a later attempt.
    #[must_use]
    pub fn with_earlier_attempts(mut self, attempts: u32) -> Self {
        self.earlier = attempts;
        self
    }

    /// Sets the headers beside the event's attributes.
    #[must_use]
    pub fn with_headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// Sets what a [registry](crate::registry) says of the schema that the data name: the schema, or why
    /// there is none. Data are kept as they came.
    #[must_use]
    pub fn with_schema(mut self, schema: Result<Arc<DataSchema>, Error>) -> Self {
        self.schema = Some(Box::new(schema));
        self
    }

    /// Reads the data by the schema that a registry gave for them, if they name one.
    pub(crate) fn read_data<T>(&self, read: impl FnOnce() -> crate::Result<T>) -> crate::Result<T> {
        match self.schema.as_deref() {
            None => read(),
            Some(Ok(schema)) => codec::written_with(Some(schema), read),
            Some(Err(error)) => Err(error.duplicate()),
        }
    }

    /// What settles it.
    pub fn token(&self) -> AckToken {
        self.token
    }

    /// The topic it came from.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Where it stands in its topic.
    pub fn position(&self) -> Position {
        self.position
    }

    /// How many times it has been delivered or tried, this time included: 1 is the first.
    pub fn attempt(&self) -> u32 {
        self.earlier.saturating_add(self.attempt)
    }

    /// How many times it has been delivered from where it was, this time included: the attempt
    /// without those that were made elsewhere.
    pub fn deliveries(&self) -> u32 {
        self.attempt
    }

    /// The headers beside the event's attributes.
    pub fn headers(&self) -> &Headers {
        match &self.content {
            Ok(_) => &self.headers,
            Err(undecodable) => &undecodable.record.headers,
        }
    }

    /// The event.
    ///
    /// # Errors
    ///
    /// The record and the reason, if it is no event.
    pub fn event(&self) -> Result<&Event, &Undecodable> {
        self.content.as_ref().map_err(|undecodable| &**undecodable)
    }

    /// The record as it came, where the event was read by a [format](crate::format) or there is none:
    /// what a dead letter keeps.
    pub fn record(&self) -> Option<&RawRecord> {
        match &self.content {
            Ok(_) => self.record.as_deref(),
            Err(undecodable) => Some(&undecodable.record),
        }
    }

    /// What order goes by: the event's key. A record that is no event has none.
    pub fn key(&self) -> Option<&str> {
        self.content.as_ref().ok()?.key()
    }

    /// The size in bytes, which the bounds of queues go by.
    pub fn size(&self) -> usize {
        match &self.content {
            Ok(event) => event.size(),
            Err(undecodable) => undecodable.record.size(),
        }
    }
}

/// Names one delivery to the transport that made it. Its meaning is the transport's own.
///
/// Deliveries with the same `source` came from the same topic and partition of one
/// subscriber. The `epoch` tells one ownership of it from the next: a settlement with an old
/// epoch is [`Stale`](crate::ErrorKind::Stale).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AckToken {
    /// Which topic and partition of the subscriber.
    pub source: u32,
    /// Which ownership of it.
    pub epoch: u32,
    /// Which delivery.
    pub id: [u64; 2],
}

impl AckToken {
    /// A token.
    pub const fn new(source: u32, epoch: u32, id: [u64; 2]) -> Self {
        Self { source, epoch, id }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::ErrorKind;

    /// A delivery that counts how often its error is made.
    fn unread() -> (Delivery, Arc<AtomicUsize>) {
        let made = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&made);
        let why = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Error::new(ErrorKind::Decode, "no event")
        };
        let (token, position) = (AckToken::new(0, 0, [0, 0]), Position::new(0, 0));
        let record = RawRecord::new(None, Headers::new(), Some("data".into()));
        let delivery = Delivery::unread(token, Topic::new("t"), position, record, why);
        (delivery, made)
    }

    #[test]
    fn why_a_record_is_no_event_is_not_made_where_a_format_reads_it() {
        let (delivery, made) = unread();
        let event = Event::builder("a").source("s").build().unwrap();
        let delivery = delivery.decoded(|_| Ok(event));
        assert!(delivery.event().is_ok());
        assert_eq!(made.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn why_a_record_is_no_event_is_made_once_for_all_who_ask() {
        let (delivery, made) = unread();
        for _ in 0..2 {
            let undecodable = delivery.event().unwrap_err();
            assert_eq!(undecodable.error().message(), "no event");
        }
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_format_that_fails_says_why_and_leaves_the_record() {
        let (delivery, made) = unread();
        let delivery = delivery.decoded(|_| Err(Error::new(ErrorKind::Decode, "not mine")));
        let undecodable = delivery.event().unwrap_err();
        assert_eq!(undecodable.error().message(), "not mine");
        assert_eq!(undecodable.record.value.as_deref(), Some(&b"data"[..]));
        assert_eq!(made.load(Ordering::Relaxed), 0);
    }
}
