use super::{Headers, Position, Publisher, RawRecord};
use crate::codec::DataSchema;
use crate::{Error, Event, Result, Topic};

/// What to publish, and where.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outgoing {
    /// The topic.
    pub topic: Topic,
    /// The event, or a record as it is.
    pub content: Content,
    /// Headers of the record beside the event's attributes.
    pub headers: Headers,
    /// The schema of the data, where a [registry](crate::registry) is to know it: the data are as their
    /// codec writes them, and are put into a frame on the way.
    pub schema: Option<&'static DataSchema>,
}

/// An event, or a record that is published as it is.
#[derive(Debug, Clone)]
pub enum Content {
    /// An event, written in the transport's format.
    Event(Event),
    /// A record as it is: a dead letter keeps the bytes that came in. Boxed: rare, and twice as large as
    /// an event.
    Raw(Box<RawRecord>),
}

impl Outgoing {
    /// An event without further headers.
    pub fn new(topic: Topic, event: Event) -> Self {
        Self {
            topic,
            content: Content::Event(event),
            headers: Headers::new(),
            schema: None,
        }
    }

    /// A record as it is.
    pub fn raw(topic: Topic, record: RawRecord) -> Self {
        Self {
            topic,
            content: Content::Raw(Box::new(record)),
            headers: Headers::new(),
            schema: None,
        }
    }

    /// Adds headers.
    #[must_use]
    pub fn with_headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// Sets the schema that a registry is to know.
    #[must_use]
    pub fn with_schema(mut self, schema: Option<&'static DataSchema>) -> Self {
        self.schema = schema;
        self
    }

    /// The event, unless it is a raw record.
    pub fn event(&self) -> Option<&Event> {
        match &self.content {
            Content::Event(event) => Some(event),
            Content::Raw(_) => None,
        }
    }

    /// The size of the content in bytes, without headers beside the event's attributes.
    pub fn size(&self) -> usize {
        match &self.content {
            Content::Event(event) => event.size(),
            Content::Raw(record) => record.size(),
        }
    }
}

/// What became of one event in a publish.
#[derive(Debug)]
#[must_use = "an event that was not accepted is lost unless somebody looks"]
pub enum Outcome {
    /// The server keeps the event.
    Accepted(Position),
    /// The event is certainly not stored.
    Rejected(Error),
    /// The event may have been stored: a timeout, or a cut after sending.
    Unknown(Error),
}

impl Outcome {
    /// Whether the server keeps the event.
    pub fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted(_))
    }

    /// The outcome of a failed publish, by the error's [`effect`](Error::effect).
    pub fn from_error(error: Error) -> Self {
        match error.effect() {
            crate::Effect::NotApplied => Self::Rejected(error),
            crate::Effect::Unknown => Self::Unknown(error),
        }
    }

    /// The position, or the error. Its [`effect`](Error::effect) tells `Rejected` from `Unknown`.
    ///
    /// # Errors
    ///
    /// The error of `Rejected` or `Unknown`.
    pub fn into_result(self) -> Result<Position> {
        match self {
            Self::Accepted(position) => Ok(position),
            Self::Rejected(error) => Err(error),
            Self::Unknown(error) => Err(error.with_effect(crate::Effect::Unknown)),
        }
    }
}

/// Publishes what could be prepared. What could not is rejected, in its place among the outcomes.
pub(crate) async fn publish_prepared(
    publisher: &impl Publisher,
    prepared: impl IntoIterator<Item = Result<Outgoing>>,
) -> Vec<Outcome> {
    let (records, refused) = told_apart(prepared.into_iter());
    let mut answers = match records.is_empty() {
        true => Vec::new(),
        false => publisher.publish(&records).await,
    }
    .into_iter();
    let outcomes = refused.into_iter().map(|error| match error {
        Some(error) => Some(Outcome::Rejected(error)),
        None => answers.next(),
    });
    outcomes.map_while(|outcome| outcome).collect()
}

/// What could be prepared, and for each event the error if it could not.
fn told_apart(
    prepared: impl Iterator<Item = Result<Outgoing>>,
) -> (Vec<Outgoing>, Vec<Option<Error>>) {
    let mut records = Vec::with_capacity(prepared.size_hint().0);
    let refused = prepared.map(|prepared| prepared.map(|record| records.push(record)).err());
    let refused = refused.collect();
    (records, refused)
}
