//! What the records of a format look like, in the words of documents.

use serde_json::{Map, Value, json};

use crate::{Codec, Text};

/// What a record of a format looks like, for documents.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Layout {
    /// The media type of the value.
    pub content_type: Text,
    /// The JSON Schema of the value. `None`: the value is the data as their codec writes them.
    pub value: Option<Value>,
    /// The JSON Schema of the headers. `None`: there are none.
    pub headers: Option<Value>,
}

/// The events that a [`Layout`] is asked for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Described<'a> {
    /// Their type. `None`: several.
    pub event_type: Option<&'a str>,
    /// How their data are written.
    pub codec: Codec,
    /// The JSON Schema of their data, `{}` if nothing is known of them.
    pub data: Value,
}

impl Layout {
    /// A value that is the data alone.
    pub fn data(codec: Codec) -> Self {
        Self {
            content_type: Text::new_static(codec.content_type()),
            value: None,
            headers: None,
        }
    }

    /// A value that is JSON of a schema.
    pub fn json(schema: Value) -> Self {
        Self {
            content_type: Text::new_static(Codec::Json.content_type()),
            value: Some(schema),
            headers: None,
        }
    }

    /// Sets the schema of the headers.
    #[must_use]
    pub fn with_headers(mut self, headers: Value) -> Self {
        self.headers = Some(headers);
        self
    }
}

impl<'a> Described<'a> {
    /// Events of any type, written by a codec, of whose data nothing is known.
    pub fn new(codec: Codec) -> Self {
        Self {
            event_type: None,
            codec,
            data: json!({}),
        }
    }

    /// Sets the one type that they have.
    #[must_use]
    pub fn with_type(mut self, event_type: &'a str) -> Self {
        self.event_type = Some(event_type);
        self
    }

    /// Sets the JSON Schema of their data.
    #[must_use]
    pub fn with_data(mut self, schema: Value) -> Self {
        self.data = schema;
        self
    }

    /// The schema of the member that says the type.
    pub(super) fn type_schema(&self) -> Value {
        match self.event_type {
            Some(event_type) => json!({ "type": "string", "const": event_type }),
            None => text(),
        }
    }
}

pub(super) fn text() -> Value {
    json!({ "type": "string" })
}

pub(super) fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

/// The schema of an object with members that it must and that it may have.
pub(super) fn object<const R: usize, const O: usize>(
    required: [(&str, Value); R],
    optional: [(&str, Value); O],
) -> Value {
    let names = required.each_ref().map(|(name, _)| *name).to_vec();
    let members = required.into_iter().chain(optional);
    let members: Map<_, _> = members
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect();
    json!({ "type": "object", "required": names, "properties": members })
}
