use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::{Attributes, Event, EventId, ExtensionValue, Head, extensions};
use crate::codec::Codec;
use crate::{Error, ErrorKind, Result, Text, Timestamp};

/// Builds an [`Event`].
///
/// What is not set: `id` becomes a new UUID version 7 and `time` the present; everything else
/// is left out. [`build`](Self::build) wants a `source`; a bus sets its service's name.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct EventBuilder {
    id: Option<EventId>,
    attributes: Attributes,
    without_time: bool,
    data: Option<Bytes>,
}

impl EventBuilder {
    pub(super) fn new(event_type: Text) -> Self {
        let attributes = Attributes {
            event_type,
            ..Attributes::default()
        };
        Self {
            id: None,
            attributes,
            without_time: false,
            data: None,
        }
    }

    pub(super) fn from_event(event: Event) -> Self {
        let Head { id, attributes } = Arc::unwrap_or_clone(event.head);
        let without_time = attributes.time.is_none();
        Self {
            id: Some(id),
            attributes,
            without_time,
            data: event.data,
        }
    }

    /// The type that was given, for routing before the event is built.
    pub fn event_type(&self) -> &str {
        &self.attributes.event_type
    }

    /// Sets `type`.
    pub(super) fn of_type(mut self, event_type: Text) -> Self {
        self.attributes.event_type = event_type;
        self
    }

    /// Sets `id`. Default: a new UUID version 7.
    pub fn id(mut self, id: impl Into<EventId>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets `source`.
    pub fn source(mut self, source: impl Into<Text>) -> Self {
        self.attributes.source = source.into();
        self
    }

    /// Sets `source` if it is not set yet.
    pub fn source_or(mut self, source: &Text) -> Self {
        if self.attributes.source.is_empty() {
            self.attributes.source = source.clone();
        }
        self
    }

    /// Sets `subject`.
    pub fn subject(mut self, subject: impl Into<Text>) -> Self {
        self.attributes.subject = Some(subject.into());
        self
    }

    /// Sets `time`. Default: the present.
    pub fn time(mut self, time: Timestamp) -> Self {
        self.attributes.time = Some(time);
        self
    }

    /// Leaves `time` out. For events that came without one.
    pub fn without_time(mut self) -> Self {
        self.attributes.time = None;
        self.without_time = true;
        self
    }

    /// Sets `datacontenttype`.
    pub fn content_type(mut self, content_type: impl Into<Text>) -> Self {
        self.attributes.content_type = Some(content_type.into());
        self
    }

    /// Sets `dataschema`.
    pub fn schema(mut self, schema: impl Into<Text>) -> Self {
        self.attributes.schema = Some(schema.into());
        self
    }

    /// Sets the key that order and partitioning go by (extension `partitionkey`).
    pub fn key(mut self, key: impl Into<Text>) -> Self {
        self.attributes.partition_key = Some(key.into());
        self
    }

    /// Sets extension `dataversion`.
    pub fn data_version(mut self, version: impl Into<Text>) -> Self {
        self.attributes.data_version = Some(version.into());
        self
    }

    /// Sets extension `correlationid`.
    pub fn correlation(self, id: impl Into<Text>) -> Self {
        self.extension(extensions::CORRELATION_ID, id.into())
    }

    /// Sets extension `causationid`.
    pub fn causation(self, id: impl Into<Text>) -> Self {
        self.extension(extensions::CAUSATION_ID, id.into())
    }

    /// Sets an extension attribute. A value given before under this name is replaced.
    pub fn extension(mut self, name: impl Into<Text>, value: impl Into<ExtensionValue>) -> Self {
        let (name, value) = (name.into(), value.into());
        match name.as_str() {
            extensions::PARTITION_KEY => self.attributes.partition_key = Some(into_text(value)),
            extensions::DATA_VERSION => self.attributes.data_version = Some(into_text(value)),
            _ => match self
                .attributes
                .extensions
                .iter_mut()
                .find(|(known, _)| *known == name)
            {
                Some((_, known)) => *known = value,
                None => self.attributes.extensions.push((name, value)),
            },
        }
        self
    }

    pub(super) fn has_extension(&self, name: &str) -> bool {
        let mut extensions = self.attributes.extensions.iter();
        extensions.any(|(known, _)| known == name)
    }

    /// Sets the data as it is.
    pub fn data(mut self, data: impl Into<Bytes>) -> Self {
        self.data = Some(data.into());
        self
    }

    /// Sets the data to the JSON of a value, and `datacontenttype` to `application/json`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`] if the value can't be written as JSON.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Result<Self> {
        self.encode(Codec::Json, value)
    }

    /// Sets the data to a value as a codec writes it, and `datacontenttype` with it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`] if the codec can't write the value.
    pub fn encode<T: Serialize + ?Sized>(mut self, codec: Codec, value: &T) -> Result<Self> {
        self.data = Some(codec.encode(value)?);
        self.attributes.content_type = Some(Text::new_static(codec.content_type()));
        Ok(self)
    }

    /// The event.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidEvent`] if `id`, `source` or `type` is empty, or an extension's name
    /// is not made of lower-case letters and digits alone, or is one that CloudEvents keeps for itself.
    pub fn build(self) -> Result<Event> {
        let Self {
            id,
            mut attributes,
            without_time,
            data,
        } = self;
        let id = id.unwrap_or_else(EventId::generate);
        let (source, event_type) = (&attributes.source, &attributes.event_type);
        for (name, value) in [
            ("id", id.as_str()),
            ("source", source),
            ("type", event_type),
        ] {
            if value.is_empty() {
                let message = format!("an event needs a `{name}` that is not empty");
                return Err(Error::new(ErrorKind::InvalidEvent, message)
                    .with_note(format!("event of type `{event_type}`, id `{id}`")));
            }
        }
        attributes
            .extensions
            .iter()
            .try_for_each(|(name, _)| check_extension_name(name))?;
        if attributes.time.is_none() && !without_time {
            attributes.time = Some(Timestamp::now());
        }
        Ok(Event {
            head: Arc::new(Head { id, attributes }),
            data,
        })
    }
}

fn into_text(value: ExtensionValue) -> Text {
    match value {
        ExtensionValue::String(text) => text,
        other => crate::text::format_text!("{other}"),
    }
}

/// CloudEvents 1.0, "Naming conventions": lower-case ASCII letters and digits. `data` and the
/// core attributes are not extensions.
fn check_extension_name(name: &str) -> Result<()> {
    const RESERVED: [&str; 10] = [
        "data",
        "data_base64",
        "id",
        "source",
        "specversion",
        "type",
        "subject",
        "time",
        "datacontenttype",
        "dataschema",
    ];
    let spelled = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if !name.is_empty() && spelled && !RESERVED.contains(&name) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidEvent,
        format!("`{name}` can't name an extension attribute"),
    )
    .with_note("use lower-case letters and digits, and no name that CloudEvents defines"))
}
