use std::fmt;

use super::{EventData, TypeInfo, with_origin};
use crate::Text;

/// What a program says of one event type by the Rust type of its data.
#[derive(Clone)]
#[non_exhaustive]
pub struct Contract {
    /// The whole type, with the service's origin before it.
    pub event_type: Text,
    /// The type and version of the Rust type.
    pub info: &'static TypeInfo,
    schema: fn(&str) -> Option<serde_json::Value>,
}

impl Contract {
    /// Those of a Rust type, in a service of an origin.
    pub fn of<T: EventData>(origin: Option<&str>) -> Vec<Self> {
        Self::all(T::TYPES, T::schema_of, origin)
    }

    pub(crate) fn all(
        types: &'static [TypeInfo],
        schema: fn(&str) -> Option<serde_json::Value>,
        origin: Option<&str>,
    ) -> Vec<Self> {
        let contract = |info: &'static TypeInfo| Self {
            event_type: with_origin(origin, info.name),
            info,
            schema,
        };
        types.iter().map(contract).collect()
    }

    /// The JSON Schema of the data, if it is known.
    pub fn schema(&self) -> Option<serde_json::Value> {
        (self.schema)(self.info.name)
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
