//! Codecs: how the data of an event is written and read.
//!
//! A route chooses one with `codec = "..."`; what is read goes by the event's content type, so that one
//! topic may hold several.
//!
//! | `codec` | content type | what a type needs | cargo feature |
//! |---|---|---|---|
//! | `json` | `application/json` | serde | |
//! | `message_pack` | `application/vnd.msgpack` | serde | `message-pack` |
//! | `avro` | `application/avro` | serde, and `#[event(avro = "user.avsc")]` | `avro` |
//! | `protobuf` | `application/protobuf` | serde, `prost::Message`, and `#[event(protobuf)]` | `protobuf` |
//!
//! - MessagePack is written with the names of fields, so that a version that adds one is read as in JSON.
//! - Avro stands in its
//!   [single-object encoding](https://avro.apache.org/docs/1.12.0/specification/#single-object-encoding),
//!   which names the schema by its fingerprint: data of another schema are an error, not nonsense. With
//!   a [schema registry](crate::registry) it stands in Confluent's wire format, and data of an older or
//!   newer schema are resolved to that of the type.
//! - Protobuf stands as it is, and with a registry in Confluent's wire format. Both are always read.
//!
//! What is read nests at most [`MAX_DEPTH`] levels deep (in Protobuf 100), and takes memory in proportion
//! to its size.

#[cfg(feature = "avro")]
mod avro;
mod frame;
#[cfg(feature = "message-pack")]
mod message_pack;
#[cfg(feature = "protobuf")]
mod protobuf;
mod schema;
#[cfg(test)]
mod tests;
mod wire;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use frame::Frame;
#[cfg(feature = "protobuf")]
pub(crate) use protobuf::message;
pub use schema::{DataSchema, SchemaFormat};
pub(crate) use wire::json;
pub use wire::{Protobuf, Wire};

use crate::{Error, ErrorKind, Event, Result};

/// How deep data may nest that are read: what `serde_json` allows.
pub const MAX_DEPTH: usize = 128;

scoped_tls::scoped_thread_local!(static WRITTEN_WITH: DataSchema);

/// How the data of an event is written. Reading goes by the event's content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Codec {
    /// JSON, `application/json`. The default.
    #[default]
    Json,
    /// [MessagePack](https://msgpack.org), `application/vnd.msgpack`.
    MessagePack,
    /// [Avro](https://avro.apache.org), `application/avro`.
    Avro,
    /// [Protobuf](https://protobuf.dev), `application/protobuf`.
    Protobuf,
}

impl Codec {
    /// All codecs, compiled in or not.
    pub const ALL: [Self; 4] = [Self::Json, Self::MessagePack, Self::Avro, Self::Protobuf];

    /// The name that routes choose it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::MessagePack => "message_pack",
            Self::Avro => "avro",
            Self::Protobuf => "protobuf",
        }
    }

    /// The media type that the codec writes.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::MessagePack => "application/vnd.msgpack",
            Self::Avro => "application/avro",
            Self::Protobuf => "application/protobuf",
        }
    }

    /// The codec that reads data of a content type: the one that the codec itself writes, and others
    /// that are in use for it. Parameters and case don't matter.
    pub fn of_content_type(content_type: &str) -> Option<Self> {
        if is_json(content_type) {
            return Some(Self::Json);
        }
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        match media_type.to_ascii_lowercase().as_str() {
            "application/vnd.msgpack" | "application/msgpack" | "application/x-msgpack" => {
                Some(Self::MessagePack)
            }
            "application/avro" | "avro/binary" | "application/vnd.apache.avro" => Some(Self::Avro),
            "application/protobuf"
            | "application/x-protobuf"
            | "application/vnd.google.protobuf" => Some(Self::Protobuf),
            _ => None,
        }
    }

    /// Whether the codec is compiled in.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::MissingFeature`], naming the cargo feature, if it is not.
    pub fn check(self) -> Result<()> {
        let (compiled, feature) = match self {
            Self::Json => return Ok(()),
            Self::MessagePack => (cfg!(feature = "message-pack"), "message-pack"),
            Self::Avro => (cfg!(feature = "avro"), "avro"),
            Self::Protobuf => (cfg!(feature = "protobuf"), "protobuf"),
        };
        if compiled {
            return Ok(());
        }
        let what = format!("the codec `{}` is not compiled in", self.name());
        Err(
            Error::new(ErrorKind::MissingFeature, what).with_note(format!(
                "add the feature to Cargo.toml: polybus = {{ features = [\"{feature}\"] }}"
            )),
        )
    }

    /// A value as bytes, of a type of which no more is known than that it is `Serialize`. What a type
    /// has beyond that is in its [`EventData::wire`](crate::EventData::wire).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`] if the value can't be written, or the codec needs a schema or a message type;
    /// [`ErrorKind::MissingFeature`] if the codec is not compiled in.
    pub fn encode<T: Serialize + ?Sized>(self, value: &T) -> Result<Bytes> {
        self.check()?;
        match self {
            Self::Json => serde_json::to_vec(value)
                .map(Bytes::from)
                .map_err(|error| unwritable(self, &error.to_string()).with_source(error)),
            #[cfg(feature = "message-pack")]
            Self::MessagePack => message_pack::encode(value),
            _ => Err(wire::needs_more::<T>(self)),
        }
    }

    /// The data of an event as a value, read as its content type says. Data without a content
    /// type is JSON, as CloudEvents has it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] if there is no data, no codec for its content type, or the data is
    /// not that of a `T`; [`ErrorKind::MissingFeature`] if its codec is not compiled in.
    pub fn decode<T: DeserializeOwned>(event: &Event) -> Result<T> {
        Wire::serde().decode(event)
    }
}

/// The data of an event and what reads them.
pub(crate) fn coded(event: &Event) -> Result<(Codec, &Bytes)> {
    let Some(data) = event.data() else {
        return Err(unreadable(event, "the event has no data")
            .with_note("take `RawEvent` in the handler if events without data are expected"));
    };
    let codec = match event.content_type() {
        Some(content_type) => Codec::of_content_type(content_type).ok_or_else(|| {
            let why = format!("no codec reads data of type `{content_type}`");
            unreadable(event, &why)
        })?,
        None => with_writer(|schema| match schema.map(DataSchema::format) {
            Some(SchemaFormat::Avro) => Codec::Avro,
            Some(SchemaFormat::Protobuf) => Codec::Protobuf,
            Some(SchemaFormat::Json) | None => Codec::Json,
        }),
    };
    codec.check()?;
    Ok((codec, data))
}

/// The data of an event as JSON, whatever they are written in, for a step of a migration.
pub(crate) fn to_json(event: &Event) -> Result<serde_json::Value> {
    let (codec, data) = coded(event)?;
    match codec {
        Codec::Protobuf => Err(unreadable(
            event,
            "Protobuf data do not say what their fields are, so no step on JSON can migrate them",
        )
        .with_note("give the type a typed step: `#[event(from = ..)]`")),
        Codec::Avro if Frame::parse(data).is_none() => Err(unreadable(
            event,
            "the schema of the Avro data is not known without a registry, so no step on JSON can migrate them",
        )
        .with_note("give the type a typed step, `#[event(from = ..)]`, or the route a schema registry")),
        #[cfg(feature = "avro")]
        Codec::Avro => avro::to_json(data).map_err(|error| {
            unreadable(event, &format!("the data to migrate can't be turned into JSON: {error}"))
        }),
        _ => Codec::decode(event),
    }
}

/// Reads data whose frame names a schema: `read` decodes them by `schema`, which a
/// [registry](crate::registry) gave. The runtime does so around handlers' arguments.
pub fn written_with<R>(schema: Option<&DataSchema>, read: impl FnOnce() -> R) -> R {
    match schema {
        Some(schema) => WRITTEN_WITH.set(schema, read),
        None => read(),
    }
}

/// Calls back with the schema that a registry gave for the data that are being read.
fn with_writer<R>(read: impl FnOnce(Option<&DataSchema>) -> R) -> R {
    if WRITTEN_WITH.is_set() {
        WRITTEN_WITH.with(|schema| read(Some(schema)))
    } else {
        read(None)
    }
}

/// What follows the name of the schema in data that the codec `avro` wrote.
pub(crate) fn datum(data: &[u8]) -> Option<&[u8]> {
    #[cfg(feature = "avro")]
    return avro::datum(data);
    #[cfg(not(feature = "avro"))]
    {
        let _ = data;
        None
    }
}

fn unwritable(codec: Codec, why: &str) -> Error {
    let codec = codec.name();
    let what = format!("the data can't be written by the codec `{codec}`: {why}");
    Error::new(ErrorKind::Encode, what)
}

pub(crate) fn unreadable(event: &Event, why: &str) -> Error {
    let (id, event_type) = (event.id(), event.event_type());
    Error::new(ErrorKind::Decode, why).with_note(format!("event `{id}` of type `{event_type}`"))
}

/// `application/json`, `text/json` and everything with the suffix `+json`, parameters aside
/// (CloudEvents JSON format, section 3.1).
pub(crate) fn is_json(content_type: &str) -> bool {
    // Mostly it is spelled like this.
    if content_type == "application/json" {
        return true;
    }
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let Some((_, subtype)) = media_type.split_once('/') else {
        return false;
    };
    let subtype = subtype.as_bytes();
    let ends = |end: &str| {
        let start = subtype.len().checked_sub(end.len());
        start.is_some_and(|start| subtype[start..].eq_ignore_ascii_case(end.as_bytes()))
    };
    subtype.eq_ignore_ascii_case(b"json") || ends("+json")
}
