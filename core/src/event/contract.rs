use std::fmt;

use super::{EventData, TypeInfo, with_origin};
use crate::Text;
use crate::codec::{Codec, DataSchema};

/// What a program says of one event type by the Rust type of its data.
#[derive(Clone)]
#[non_exhaustive]
pub struct Contract {
    /// The whole type, with the service's origin before it.
    pub event_type: Text,
    /// The type and version of the Rust type.
    pub info: &'static TypeInfo,
    schemas: SchemasOf,
}

/// Where the schemas of the data of event types are found, by the names of the types.
#[derive(Clone, Copy)]
pub struct SchemasOf {
    json: fn(&str) -> Option<serde_json::Value>,
    data: fn(&str, Codec) -> Option<&'static DataSchema>,
}

impl Contract {
    /// Those of a Rust type, in a service of an origin.
    pub fn of<T: EventData>(origin: Option<&str>) -> Vec<Self> {
        Self::all(T::TYPES, SchemasOf::data::<T>(), origin)
    }

    pub(crate) fn all(
        types: &'static [TypeInfo],
        schemas: SchemasOf,
        origin: Option<&str>,
    ) -> Vec<Self> {
        let contract = |info: &'static TypeInfo| Self {
            event_type: with_origin(origin, info.name),
            info,
            schemas,
        };
        types.iter().map(contract).collect()
    }

    /// The JSON Schema of the data, if it is known.
    pub fn schema(&self) -> Option<serde_json::Value> {
        (self.schemas.json)(self.info.name)
    }

    /// The schema of the data as a codec writes them, for a codec that has schemas of its own: of Avro or
    /// Protobuf.
    pub fn data_schema(&self, codec: Codec) -> Option<&'static DataSchema> {
        (self.schemas.data)(self.info.name, codec)
    }
}

impl SchemasOf {
    /// None is known.
    pub const NONE: Self = Self {
        json: |_| None,
        data: |_, _| None,
    };

    /// Those of the data of a Rust type.
    pub const fn data<T: EventData>() -> Self {
        Self {
            json: T::schema_of,
            data: T::data_schema_of,
        }
    }
}

impl fmt::Debug for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contract")
            .field("event_type", &self.event_type)
            .field("version", &self.info.version)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SchemasOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchemasOf").finish_non_exhaustive()
    }
}
