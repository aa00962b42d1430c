use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cause::inherit;
use super::{Event, EventBuilder};
use crate::codec::{Codec, DataSchema, Wire};
use crate::text::format_text;
use crate::validation::{Fault, TypeContract, TypeSchema};
use crate::{Result, Text, version};

/// One event type that a Rust type stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TypeInfo {
    /// The event type, as `user.created`.
    pub name: &'static str,
    /// The semantic version of the data's shape, as `1.0.0`.
    pub version: &'static str,
}

impl TypeInfo {
    /// An event type and the version of its data.
    pub const fn new(name: &'static str, version: &'static str) -> Self {
        Self { name, version }
    }
}

/// A Rust type that is the data of an event.
///
/// `#[derive(Event)]` writes this impl:
///
/// ```
/// # use polybus_core::EventData;
/// # use polybus_macros::Event;
/// # use serde::{Deserialize, Serialize};
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(type = "user.created", version = "1.0.0", key = user_id)]
/// # #[event(crate = "polybus_core")]
/// struct UserCreated {
///     user_id: String,
///     email: String,
/// }
///
/// let created = UserCreated { user_id: "u1".into(), email: "a@b.c".into() };
/// assert_eq!(created.type_info().name, "user.created");
/// assert_eq!(created.key().as_deref(), Some("u1"));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the data of an event",
    label = "not the data of an event",
    note = "derive it: `#[derive(Event, Serialize, Deserialize)] #[event(type = \"...\")]`"
)]
pub trait EventData: Send + Sync + Sized + 'static {
    /// All event types this Rust type stands for: one for a struct, one for each variant of an
    /// enum of a domain's events.
    const TYPES: &'static [TypeInfo];

    /// The event type of this value, one of [`TYPES`](Self::TYPES).
    fn type_info(&self) -> &'static TypeInfo;

    /// What order and partitioning go by. Default: nothing.
    fn key(&self) -> Option<Text> {
        None
    }

    /// What the event is about within its source. Default: nothing.
    fn subject(&self) -> Option<Text> {
        None
    }

    /// The JSON Schema of the data of one of its event types. Default: none is known.
    fn schema_of(name: &str) -> Option<serde_json::Value> {
        let _ = name;
        None
    }

    /// What the type has for the [codecs](crate::codec) that need more than serde. Default: nothing.
    fn wire() -> Wire<Self> {
        Wire::serde()
    }

    /// The data as a codec writes it. An enum's are those of its variant.
    ///
    /// # Errors
    ///
    /// [`Encode`](crate::ErrorKind::Encode) if the data can't be written, or the type lacks what the
    /// codec needs; [`MissingFeature`](crate::ErrorKind::MissingFeature) if the codec is not compiled in.
    fn encode_data(&self, codec: Codec) -> Result<Bytes>
    where
        Self: Serialize,
    {
        Self::wire().encode(codec, self)
    }

    /// The schema of the data of one of its event types that a [registry](crate::registry) is told, for a
    /// codec that has one. Default: that of [`wire`](Self::wire), and for JSON that of
    /// [`schema_of`](Self::schema_of).
    fn data_schema_of(name: &str, codec: Codec) -> Option<&'static DataSchema> {
        match codec {
            Codec::Json => DataSchema::of_json::<Self>(name),
            codec => Self::wire().schema(codec),
        }
    }

    /// The JSON Schemas of the data of its event types, and of the versions before that it reads. Events
    /// of routes that validate are held to them. Default: what [`schema_of`](Self::schema_of) says.
    fn schemas() -> Vec<TypeSchema> {
        let of_type = |info: &TypeInfo| {
            let schema = Self::schema_of(info.name)?;
            Some(TypeSchema::new(*info, schema))
        };
        Self::TYPES.iter().filter_map(of_type).collect()
    }

    /// What is wrong with this value by the rules of its type, which no schema can say. Asked on routes
    /// that validate. Default: nothing.
    fn faults(&self) -> Vec<Fault> {
        Vec::new()
    }

    /// The data of an event, read as its content type says, if their version is one that this type
    /// reads: by default one of the same [major](crate::version), or none.
    ///
    /// # Errors
    ///
    /// [`Decode`](crate::ErrorKind::Decode) if the event has no such data.
    fn from_event(event: &Event) -> Result<Self>
    where
        Self: DeserializeOwned,
    {
        version::decode_same(event)
    }
}

/// What a bus fills in when it makes an event of a value.
///
/// An event that is made inside of a handler inherits from the one that is handled: its
/// `correlationid` (its id, where it has none) and, as `causationid`, its id. Not so what a handler
/// leaves to a task of its own, what handlers of batches make, and an [`Event`] that is whole already.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct EventDefaults<'a> {
    /// The `source`: the service's name.
    pub source: &'a Text,
    /// How data is written, as the event's route says.
    pub codec: Codec,
    /// The `type`, where it is more than the value says: with the service's origin before it.
    pub event_type: Option<&'a Text>,
}

impl<'a> EventDefaults<'a> {
    /// The defaults of a service whose events are written with a codec.
    pub fn new(source: &'a Text, codec: Codec) -> Self {
        Self {
            source,
            codec,
            event_type: None,
        }
    }

    /// Sets the whole type.
    #[must_use]
    pub fn with_event_type(mut self, event_type: &'a Text) -> Self {
        self.event_type = Some(event_type);
        self
    }

    /// Fills in what is not set: the source, and inside of a handler what links the event to the one
    /// that is being handled.
    pub fn fill(&self, builder: EventBuilder) -> EventBuilder {
        inherit(builder.source_or(self.source))
    }
}

/// A type as a service of an origin publishes it: `eu.de` and `user.created` are
/// `eu.de.user.created`.
pub fn with_origin(origin: Option<&str>, event_type: &'static str) -> Text {
    match origin {
        Some(origin) => format_text!("{origin}.{event_type}"),
        None => Text::new_static(event_type),
    }
}

/// What can be published: an [`Event`], an [`EventBuilder`], or the data of one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be published",
    label = "neither an `Event` nor the data of one",
    note = "derive it: `#[derive(Event, Serialize, Deserialize)] #[event(type = \"...\")]`"
)]
pub trait IntoEvent: Send {
    /// The event type, which routing goes by.
    fn event_type(&self) -> &str;

    /// Whether it is an event already, with a type of its own, that is published as it is.
    fn is_event(&self) -> bool {
        false
    }

    /// The schema of the data as a codec writes them, for a [registry](crate::registry). Default: none.
    fn registered_schema(&self, codec: Codec) -> Option<&'static DataSchema> {
        let _ = codec;
        None
    }

    /// What its Rust type says of the data, if it has one.
    fn contract() -> Option<TypeContract>
    where
        Self: Sized,
    {
        None
    }

    /// What is wrong with it by the [rules](EventData::faults) of its Rust type.
    fn own_faults(&self) -> Vec<Fault> {
        Vec::new()
    }

    /// The event.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`](crate::ErrorKind::InvalidEvent) for a missing or malformed attribute,
    /// [`Encode`](crate::ErrorKind::Encode) for data that can't be written.
    fn into_event(self, defaults: &EventDefaults<'_>) -> Result<Event>;
}

impl IntoEvent for Event {
    fn event_type(&self) -> &str {
        Event::event_type(self)
    }

    fn is_event(&self) -> bool {
        true
    }

    fn into_event(self, _: &EventDefaults<'_>) -> Result<Event> {
        Ok(self)
    }
}

impl IntoEvent for EventBuilder {
    fn event_type(&self) -> &str {
        EventBuilder::event_type(self)
    }

    fn into_event(self, defaults: &EventDefaults<'_>) -> Result<Event> {
        let builder = match defaults.event_type {
            Some(event_type) => self.of_type(event_type.clone()),
            None => self,
        };
        defaults.fill(builder).build()
    }
}

impl<T: EventData + Serialize> IntoEvent for T {
    fn event_type(&self) -> &str {
        self.type_info().name
    }

    fn registered_schema(&self, codec: Codec) -> Option<&'static DataSchema> {
        Self::data_schema_of(self.type_info().name, codec)
    }

    fn contract() -> Option<TypeContract> {
        Some(TypeContract::of::<T>())
    }

    fn own_faults(&self) -> Vec<Fault> {
        self.faults()
    }

    fn into_event(self, defaults: &EventDefaults<'_>) -> Result<Event> {
        let info = self.type_info();
        let event_type = defaults.event_type.cloned();
        let event_type = event_type.unwrap_or_else(|| Text::new_static(info.name));
        let mut builder = Event::builder(event_type)
            .data_version(Text::new_static(info.version))
            .content_type(Text::new_static(defaults.codec.content_type()))
            .data(self.encode_data(defaults.codec)?);
        if let Some(key) = self.key() {
            builder = builder.key(key);
        }
        if let Some(subject) = self.subject() {
            builder = builder.subject(subject);
        }
        defaults.fill(builder).build()
    }
}
