//! What a type has for the codecs beyond serde.

use std::any::type_name;
use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, DataSchema, Frame, coded, unreadable};
use crate::{BoxError, Error, ErrorKind, Event, Result};

/// What a type has for the codecs that need more than serde: an Avro schema, a Protobuf message.
/// `#[derive(Event)]` makes it of `#[event(avro = "..", protobuf = "..")]`.
pub struct Wire<T> {
    pub(crate) avro: Option<&'static DataSchema>,
    pub(crate) protobuf: Option<Protobuf<T>>,
}

/// How a type is written and read as a Protobuf message.
pub struct Protobuf<T> {
    pub(crate) encode: fn(&T) -> Vec<u8>,
    pub(crate) decode: fn(&[u8]) -> Result<T, BoxError>,
    /// For a registry.
    pub(crate) schema: Option<&'static DataSchema>,
}

impl<T> Wire<T> {
    /// Nothing but serde: JSON and MessagePack.
    pub const fn serde() -> Self {
        Self {
            avro: None,
            protobuf: None,
        }
    }

    /// Adds an Avro schema.
    #[must_use]
    pub const fn with_avro(mut self, schema: &'static DataSchema) -> Self {
        self.avro = Some(schema);
        self
    }

    /// Adds a Protobuf message.
    #[must_use]
    pub const fn with_protobuf(mut self, message: Protobuf<T>) -> Self {
        self.protobuf = Some(message);
        self
    }

    /// The schema that a registry is told for data of a codec.
    pub fn schema(&self, codec: Codec) -> Option<&'static DataSchema> {
        match codec {
            Codec::Avro => self.avro,
            Codec::Protobuf => self.protobuf.as_ref().and_then(|message| message.schema),
            Codec::Json | Codec::MessagePack => None,
        }
    }

    /// A value as bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`] if the value can't be written, or the type lacks what the codec needs;
    /// [`ErrorKind::MissingFeature`] if the codec is not compiled in.
    pub fn encode(&self, codec: Codec, value: &T) -> Result<Bytes>
    where
        T: Serialize,
    {
        codec.check()?;
        match (codec, self.avro, &self.protobuf) {
            #[cfg(feature = "avro")]
            (Codec::Avro, Some(schema), _) => super::avro::encode(schema, value),
            (Codec::Protobuf, _, Some(message)) => Ok((message.encode)(value).into()),
            _ => codec.encode(value),
        }
    }

    /// The data of an event as a value, read as its content type says.
    ///
    /// # Errors
    ///
    /// Those of [`Codec::decode`].
    pub fn decode(&self, event: &Event) -> Result<T>
    where
        T: DeserializeOwned,
    {
        let (codec, data) = coded(event)?;
        let read = match codec {
            Codec::Json => json(data).map_err(BoxError::from),
            #[cfg(feature = "message-pack")]
            Codec::MessagePack => super::message_pack::decode(data),
            #[cfg(feature = "avro")]
            Codec::Avro => super::avro::decode(self.avro, data),
            Codec::Protobuf => self.message(data),
            #[allow(unreachable_patterns, reason = "reached where a feature is missing")]
            other => return Err(needs_more::<T>(other)),
        };
        read.map_err(|error| {
            let why = format!("the data is not what the handler takes: {error}");
            unreadable(event, &why).with_source(error)
        })
    }

    fn message(&self, data: &[u8]) -> Result<T, BoxError> {
        let Some(message) = &self.protobuf else {
            let name = type_name::<T>();
            return Err(format!("`{name}` is no Protobuf message: `#[event(protobuf)]`").into());
        };
        // No message starts with a zero: there is no field of that number.
        let Some(frame) = Frame::parse(data) else {
            return (message.decode)(data);
        };
        let (indexes, body) = frame
            .message_indexes()
            .ok_or("the frame does not say which message it holds")?;
        if let Some(schema) = message.schema
            && schema.message() != indexes
        {
            let taken = schema.message();
            return Err(
                format!("they are message {indexes:?} of the schema, not {taken:?}").into(),
            );
        }
        (message.decode)(body)
    }
}

/// Reads JSON, also behind the name of its schema in a registry: no JSON begins with a zero.
///
/// UTF-8 is looked at once for all, which is quicker than for each string.
pub(crate) fn json<T: DeserializeOwned>(data: &[u8]) -> serde_json::Result<T> {
    let data = Frame::parse(data).map_or(data, |frame| frame.body);
    match std::str::from_utf8(data) {
        Ok(text) => serde_json::from_str(text),
        // Its error says where.
        Err(_) => serde_json::from_slice(data),
    }
}

/// The error for a type that a codec can't do with.
pub(super) fn needs_more<T: ?Sized>(codec: Codec) -> Error {
    let name = type_name::<T>();
    let (what, advice) = match codec {
        Codec::Avro => (
            "has no Avro schema",
            "name it: `#[event(avro = \"user.avsc\")]`, or choose another `codec` for the route",
        ),
        _ => (
            "is no Protobuf message",
            "derive `prost::Message` and add `#[event(protobuf)]`, or choose another `codec` for the route",
        ),
    };
    Error::new(ErrorKind::Encode, format!("`{name}` {what}")).with_note(advice)
}

impl<T> fmt::Debug for Wire<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("avro", &self.avro.is_some())
            .field("protobuf", &self.protobuf.is_some())
            .finish()
    }
}

impl<T> fmt::Debug for Protobuf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protobuf").finish_non_exhaustive()
    }
}
