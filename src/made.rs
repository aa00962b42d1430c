use bytes::Bytes;
use serde::Serialize;

use crate::bus::Bus;
use crate::event::EventId;
use crate::report::Receipt;
use crate::{EventBuilder, ExtensionValue, Result, Text};

/// An event that is being made, and the bus it is for. See [`Bus::event`].
#[derive(Debug)]
#[must_use = "an event is not published until `publish` is called"]
pub struct BusEvent<'a> {
    pub(crate) bus: &'a Bus,
    pub(crate) builder: EventBuilder,
}

impl BusEvent<'_> {
    fn map(self, change: impl FnOnce(EventBuilder) -> EventBuilder) -> Self {
        Self {
            bus: self.bus,
            builder: change(self.builder),
        }
    }

    /// Sets the data to the JSON of a value.
    ///
    /// # Errors
    ///
    /// [`Encode`](crate::ErrorKind::Encode) if the value can't be written as JSON.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Result<Self> {
        Ok(Self {
            bus: self.bus,
            builder: self.builder.json(value)?,
        })
    }

    /// Sets the data as it is.
    pub fn data(self, content_type: impl Into<Text>, data: impl Into<Bytes>) -> Self {
        self.map(|builder| builder.content_type(content_type).data(data))
    }

    /// Sets the id. Default: a new UUID version 7.
    pub fn id(self, id: impl Into<EventId>) -> Self {
        self.map(|builder| builder.id(id))
    }

    /// Sets what order and partitioning go by.
    pub fn key(self, key: impl Into<Text>) -> Self {
        self.map(|builder| builder.key(key))
    }

    /// Sets what the event is about.
    pub fn subject(self, subject: impl Into<Text>) -> Self {
        self.map(|builder| builder.subject(subject))
    }

    /// Sets what links the events of one business transaction.
    pub fn correlation(self, id: impl Into<Text>) -> Self {
        self.map(|builder| builder.correlation(id))
    }

    /// Sets the id of the event that caused this one.
    pub fn causation(self, id: impl Into<Text>) -> Self {
        self.map(|builder| builder.causation(id))
    }

    /// Sets an extension attribute.
    pub fn extension(self, name: impl Into<Text>, value: impl Into<ExtensionValue>) -> Self {
        self.map(|builder| builder.extension(name, value))
    }

    /// Publishes the event, as [`Bus::publish`] does.
    ///
    /// # Errors
    ///
    /// Those of [`Bus::publish`].
    pub async fn publish(self) -> Result<Receipt> {
        self.bus.publish(self.builder).await
    }
}
