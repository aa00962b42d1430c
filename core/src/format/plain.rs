use bytes::Bytes;

use super::shape::{text, unreadable};
use super::{Described, Format, Layout, Place};
use crate::text::format_text;
use crate::transport::{Headers, RawRecord};
use crate::{Codec, Event, Result};

/// The data and the key alone.
///
/// Attributes are not written. What is read has the type of its route, the topic as its source and
/// its position as its id, which stay the same at each delivery.
#[derive(Debug)]
pub(super) struct Plain;

impl Format for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn needs_type(&self) -> bool {
        true
    }

    fn layout(&self, events: &Described<'_>) -> Option<Layout> {
        Some(Layout::data(events.codec))
    }

    fn write(&self, event: &Event) -> Result<RawRecord> {
        let key = event
            .key()
            .map(|key| Bytes::copy_from_slice(key.as_bytes()));
        Ok(RawRecord::new(key, Headers::new(), event.data().cloned()))
    }

    fn read(&self, record: &RawRecord, place: &Place<'_>) -> Result<Event> {
        let event_type = place
            .event_type
            .ok_or_else(|| unreadable(self.name(), "its route takes more than one event type"))?;
        let mut builder = Event::builder(event_type)
            .id(format_text!("{}", place.position).as_str())
            .source(place.topic.name())
            .without_time();
        if let Some(value) = &record.value {
            builder = builder.data(value.clone());
            if serde_json::from_slice::<serde::de::IgnoredAny>(value).is_ok() {
                builder = builder.content_type(Codec::Json.content_type());
            }
        }
        if let Some(key) = &record.key {
            builder = builder.key(text(self.name(), "key", key)?);
        }
        builder
            .build()
            .map_err(|error| unreadable(self.name(), error.message()).with_source(error))
    }
}
