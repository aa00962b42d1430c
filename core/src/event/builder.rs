use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use triomphe::{Arc, UniqueArc};

use super::{Attributes, Event, EventId, ExtensionValue, Head, extensions};
use crate::codec::Codec;
use crate::{Error, ErrorKind, Result, Text, Timestamp};

/// Builds an [`Event`].
///
/// What is not set: `id` becomes a new UUID version 7 and `time` the present; everything else
/// is left out. [`build`](Self::build) wants a `source`; a bus sets its service's name.
#[must_use = "a builder does nothing until `build` is called"]
pub struct EventBuilder {
    /// Where the event will have it, so that the attributes are not moved from call to call.
    head: UniqueArc<Head>,
    has_id: bool,
    without_time: bool,
    data: Option<Bytes>,
}

impl EventBuilder {
    pub(super) fn new(event_type: Text) -> Self {
        let attributes = Attributes {
            event_type,
            ..Attributes::default()
        };
        let id = EventId::unset();
        Self {
            head: UniqueArc::new(Head { id, attributes }),
            has_id: false,
            without_time: false,
            data: None,
        }
    }

    pub(super) fn from_event(event: Event) -> Self {
        let head = Arc::try_unique(event.head);
        let head = head.unwrap_or_else(|shared| UniqueArc::new(Head::clone(&shared)));
        Self {
            without_time: head.attributes.time.is_none(),
            head,
            has_id: true,
            data: event.data,
        }
    }

    /// The type that was given, for routing before the event is built.
    pub fn event_type(&self) -> &str {
        &self.head.attributes.event_type
    }

    /// Sets `type`.
    pub(super) fn of_type(mut self, event_type: Text) -> Self {
        self.head.attributes.event_type = event_type;
        self
    }

    /// Sets `id`. Default: a new UUID version 7.
    pub fn id(mut self, id: impl Into<EventId>) -> Self {
        self.head.id = id.into();
        self.has_id = true;
        self
    }

    /// Sets `source`.
    pub fn source(mut self, source: impl Into<Text>) -> Self {
        self.head.attributes.source = source.into();
        self
    }

    /// Sets `source` if it is not set yet.
    #[inline]
    pub fn source_or(mut self, source: &Text) -> Self {
        if self.head.attributes.source.is_empty() {
            self.head.attributes.source = source.clone();
        }
        self
    }

    /// Sets `subject`.
    pub fn subject(mut self, subject: impl Into<Text>) -> Self {
        self.head.attributes.subject = Some(subject.into());
        self
    }

    /// Sets `time`. Default: the present.
    pub fn time(mut self, time: Timestamp) -> Self {
        self.head.attributes.time = Some(time);
        self
    }

    /// Leaves `time` out. For events that came without one.
    pub fn without_time(mut self) -> Self {
        self.head.attributes.time = None;
        self.without_time = true;
        self
    }

    /// Sets `datacontenttype`.
    pub fn content_type(mut self, content_type: impl Into<Text>) -> Self {
        self.head.attributes.content_type = Some(content_type.into());
        self
    }

    /// Sets `dataschema`.
    pub fn schema(mut self, schema: impl Into<Text>) -> Self {
        self.head.attributes.schema = Some(schema.into());
        self
    }

    /// Sets the key that order and partitioning go by (extension `partitionkey`).
    pub fn key(mut self, key: impl Into<Text>) -> Self {
        self.head.attributes.partition_key = Some(key.into());
        self
    }

    /// Sets extension `dataversion`.
    pub fn data_version(mut self, version: impl Into<Text>) -> Self {
        self.head.attributes.data_version = Some(version.into());
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
        let attributes = &mut self.head.attributes;
        match name.as_str() {
            extensions::PARTITION_KEY => attributes.partition_key = Some(into_text(value)),
            extensions::DATA_VERSION => attributes.data_version = Some(into_text(value)),
            _ => {
                let mut known = attributes.extensions.iter_mut();
                match known.find(|(known, _)| *known == name) {
                    Some((_, known)) => *known = value,
                    None => attributes.extensions.push((name, value)),
                }
            }
        }
        self
    }

    pub(super) fn has_extension(&self, name: &str) -> bool {
        let mut extensions = self.head.attributes.extensions.iter();
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
        self.head.attributes.content_type = Some(Text::new_static(codec.content_type()));
        Ok(self)
    }

    /// The event.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidEvent`] if `id`, `source` or `type` is empty, or an extension's name
    /// is not made of lower-case letters and digits alone, or is one that CloudEvents keeps for itself.
    pub fn build(mut self) -> Result<Event> {
        let Head { id, attributes } = &mut *self.head;
        let mut now = None;
        let mut now = || *now.get_or_insert_with(Timestamp::now);
        if attributes.time.is_none() && !self.without_time {
            attributes.time = Some(now());
        }
        if !self.has_id {
            *id = EventId::generate_at(now());
        }
        let (source, event_type) = (&attributes.source, &attributes.event_type);
        for (name, length) in [
            ("id", id.len()),
            ("source", source.len()),
            ("type", event_type.len()),
        ] {
            if length == 0 {
                let message = format!("an event needs a `{name}` that is not empty");
                return Err(Error::new(ErrorKind::InvalidEvent, message)
                    .with_note(format!("event of type `{event_type}`, id `{id}`")));
            }
        }
        attributes
            .extensions
            .iter()
            .try_for_each(|(name, _)| check_extension_name(name))?;
        Ok(Event {
            head: self.head.shareable(),
            data: self.data,
        })
    }
}

impl fmt::Debug for EventBuilder {
    /// Without the data, which may be large or private.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBuilder")
            .field("head", &*self.head)
            .finish_non_exhaustive()
    }
}

impl Clone for EventBuilder {
    fn clone(&self) -> Self {
        Self {
            head: UniqueArc::new(Head::clone(&self.head)),
            data: self.data.clone(),
            has_id: self.has_id,
            without_time: self.without_time,
        }
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
    if is_extension_name(name) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidEvent,
        format!("`{name}` can't name an extension attribute"),
    )
    .with_note("use lower-case letters and digits, and no name that CloudEvents defines"))
}

/// Whether an extension attribute may have a name.
pub(crate) fn is_extension_name(name: &str) -> bool {
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
    !name.is_empty() && spelled && !RESERVED.contains(&name)
}
