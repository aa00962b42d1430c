use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::{Event, EventId, ExtensionValue, Head, extensions};
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
    source: Text,
    event_type: Text,
    subject: Option<Text>,
    time: Option<Timestamp>,
    content_type: Option<Text>,
    schema: Option<Text>,
    partition_key: Option<Text>,
    data_version: Option<Text>,
    extensions: Vec<(Text, ExtensionValue)>,
    data: Option<Bytes>,
    without_time: bool,
}

impl EventBuilder {
    pub(super) fn new(event_type: Text) -> Self {
        Self {
            id: None,
            source: Text::default(),
            event_type,
            subject: None,
            time: None,
            content_type: None,
            schema: None,
            partition_key: None,
            data_version: None,
            extensions: Vec::new(),
            data: None,
            without_time: false,
        }
    }

    pub(super) fn from_event(event: Event) -> Self {
        let head = Arc::unwrap_or_clone(event.head);
        Self {
            id: Some(head.id),
            source: head.source,
            event_type: head.event_type,
            subject: head.subject,
            time: head.time,
            content_type: head.content_type,
            schema: head.schema,
            partition_key: head.partition_key,
            data_version: head.data_version,
            extensions: head.extensions,
            data: event.data,
            without_time: head.time.is_none(),
        }
    }

    /// The type that was given, for routing before the event is built.
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// Sets `id`. Default: a new UUID version 7.
    pub fn id(mut self, id: impl Into<EventId>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets `source`.
    pub fn source(mut self, source: impl Into<Text>) -> Self {
        self.source = source.into();
        self
    }

    /// Sets `source` if it is not set yet.
    pub fn source_or(mut self, source: &Text) -> Self {
        if self.source.is_empty() {
            self.source = source.clone();
        }
        self
    }

    /// Sets `subject`.
    pub fn subject(mut self, subject: impl Into<Text>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Sets `time`. Default: the present.
    pub fn time(mut self, time: Timestamp) -> Self {
        self.time = Some(time);
        self
    }

    /// Leaves `time` out. For events that came without one.
    pub fn without_time(mut self) -> Self {
        self.time = None;
        self.without_time = true;
        self
    }

    /// Sets `datacontenttype`.
    pub fn content_type(mut self, content_type: impl Into<Text>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Sets `dataschema`.
    pub fn schema(mut self, schema: impl Into<Text>) -> Self {
        self.schema = Some(schema.into());
        self
    }

    /// Sets the key that order and partitioning go by (extension `partitionkey`).
    pub fn key(mut self, key: impl Into<Text>) -> Self {
        self.partition_key = Some(key.into());
        self
    }

    /// Sets extension `dataversion`.
    pub fn data_version(mut self, version: impl Into<Text>) -> Self {
        self.data_version = Some(version.into());
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
            extensions::PARTITION_KEY => self.partition_key = Some(into_text(value)),
            extensions::DATA_VERSION => self.data_version = Some(into_text(value)),
            _ => match self.extensions.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => self.extensions.push((name, value)),
            },
        }
        self
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
        self.content_type = Some(Text::new_static(codec.content_type()));
        Ok(self)
    }

    /// The event.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidEvent`] if `id`, `source` or `type` is empty, or an extension's name
    /// is not made of lower-case letters and digits alone, or is one that CloudEvents keeps for itself.
    pub fn build(self) -> Result<Event> {
        let id = self.id.unwrap_or_else(EventId::generate);
        for (name, value) in [
            ("id", id.as_str()),
            ("source", &self.source),
            ("type", &self.event_type),
        ] {
            if value.is_empty() {
                return Err(Error::new(
                    ErrorKind::InvalidEvent,
                    format!("an event needs a `{name}` that is not empty"),
                )
                .with_note(format!("event of type `{}`, id `{}`", self.event_type, id)));
            }
        }
        self.extensions
            .iter()
            .try_for_each(|(name, _)| check_extension_name(name))?;
        let time = match (self.time, self.without_time) {
            (None, false) => Some(Timestamp::now()),
            (time, _) => time,
        };
        Ok(Event {
            head: Arc::new(Head {
                id,
                source: self.source,
                event_type: self.event_type,
                subject: self.subject,
                time,
                content_type: self.content_type,
                schema: self.schema,
                partition_key: self.partition_key,
                data_version: self.data_version,
                extensions: self.extensions,
            }),
            data: self.data,
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
