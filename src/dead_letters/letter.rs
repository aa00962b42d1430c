use serde::de::DeserializeOwned;

use crate::runtime::Provenance;
use crate::transport::{Content, Delivery, Headers, Position, RawRecord};
use crate::{Codec, Error, ErrorKind, Event, Result};

/// A dead letter: what failed for good, with where it came from and why.
///
/// Its event is the one that failed, under its own id and with its own bytes; what is no event is a
/// record. Data is read when it is asked for.
#[derive(Debug, Clone)]
pub struct Letter {
    position: Position,
    provenance: Provenance,
    content: Content,
    headers: Headers,
}

impl Letter {
    /// `None` for what is no dead letter: somebody else wrote it there.
    pub(super) fn read(delivery: &Delivery) -> Option<Self> {
        let provenance = Provenance::read(delivery.headers())?;
        let headers = Provenance::strip(delivery.headers());
        let (content, headers) = match delivery.event() {
            Ok(event) => (Content::Event(event.clone()), headers),
            Err(undecodable) => {
                let RawRecord { key, value, .. } = undecodable.record.clone();
                let record = RawRecord::new(key, headers, value);
                (Content::Raw(Box::new(record)), Headers::new())
            }
        };
        Some(Self {
            position: delivery.position(),
            provenance,
            content,
            headers,
        })
    }

    /// Where it stands in its topic.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Where it came from and why.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
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
            Content::Raw(record) => Some(record),
        }
    }

    /// The event, or the record if it is none.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The headers beside the event's attributes, as they came; of a record, those in it.
    pub fn headers(&self) -> &Headers {
        match &self.content {
            Content::Event(_) => &self.headers,
            Content::Raw(record) => &record.headers,
        }
    }

    /// The data as a value.
    ///
    /// # Errors
    ///
    /// [`Decode`](ErrorKind::Decode) if it is no event, or its data not that of a `T`.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T> {
        let no_event = || Error::new(ErrorKind::Decode, "the dead letter is no event");
        Codec::decode(self.event().ok_or_else(no_event)?)
    }
}
