//! Messages: what events look like on the wire, as the routes say.

use serde_json::{Map, Value, json};

use super::schema::embed;
use super::servers::Servers;
use crate::bus::Inner;
use crate::codec::{Codec, DataSchema, SchemaFormat};
use crate::event::Contract;
use crate::format::{Described, Layout};
use crate::registry::SubjectName;
use crate::routing::Resolved;

/// How the events of a topic are written: what is the same for all of its messages.
pub(super) struct Writing<'a> {
    bus: &'a Inner,
    kind: &'a str,
    /// The format of its routes.
    format: Option<&'a str>,
    /// The format that the transport writes in where a route has none.
    own_format: Option<&'a str>,
    /// `None`: its routes have several.
    codec: Option<Codec>,
    schema_registry: bool,
}

impl<'a> Writing<'a> {
    /// That of a topic which events of several types come to.
    pub(super) fn of_topic(
        bus: &'a Inner,
        servers: &'a Servers,
        transport: &str,
        topic: &str,
    ) -> Self {
        let routes = bus.routes.leading_to(transport, topic);
        let routes: Vec<_> = routes.map(|index| &bus.config.routes[index]).collect();
        let codec = routes.first().map(|route| route.codec);
        let same = routes.iter().all(|route| Some(route.codec) == codec);
        let format = routes.first().and_then(|route| route.format.as_deref());
        Self {
            codec: codec.filter(|_| same),
            format,
            schema_registry: false,
            ..Self::of_transport(bus, servers, transport)
        }
    }

    /// That of one event type's way.
    pub(super) fn of_way(bus: &'a Inner, servers: &'a Servers, way: &Resolved) -> Self {
        let route = way.route.map(|index| &bus.config.routes[index]);
        Self {
            codec: Some(way.codec),
            format: route.and_then(|route| route.format.as_deref()),
            schema_registry: way.schema_registry,
            ..Self::of_transport(bus, servers, &way.transport)
        }
    }

    fn of_transport(bus: &'a Inner, servers: &'a Servers, transport: &str) -> Self {
        let section = bus.config.transports.get(transport);
        Self {
            bus,
            kind: section.map_or("", |section| section.kind.as_str()),
            format: None,
            own_format: servers.format(transport),
            codec: None,
            schema_registry: false,
        }
    }

    /// The message of one event type.
    pub(super) fn message(
        &self,
        id: &str,
        contract: &Contract,
        schemas: &mut Map<String, Value>,
    ) -> Map<String, Value> {
        let mut message = Map::new();
        let name = contract.event_type.as_str();
        insert(&mut message, "name", name.into());
        let title = format!("{name} {}", contract.info.version);
        insert(&mut message, "title", title.trim_end().into());
        let codec = self.codec.unwrap_or_default();
        let events = Described::new(codec).with_type(name);
        let json = |own: &str, schemas: &mut Map<_, _>| {
            let schema = contract.schema()?;
            Some(embed(schema, own, id, schemas))
        };
        let Some(layout) = self.layout(&events) else {
            return message;
        };
        // Only where data stand within JSON does it matter what they are.
        let payload = if layout.value.is_some() {
            let place = format!("#/components/schemas/{id}");
            let data = (codec == Codec::Json).then(|| json(&place, schemas));
            let data = data.flatten().map(|schema| {
                insert(schemas, id, schema);
                json!({ "$ref": place })
            });
            let events = events.with_data(data.unwrap_or_else(|| json!({})));
            self.layout(&events).and_then(|layout| layout.value)
        } else {
            match codec {
                Codec::Avro | Codec::Protobuf => contract.data_schema(codec).and_then(foreign),
                _ => json(&format!("#/components/messages/{id}/payload"), schemas),
            }
        };
        insert(
            &mut message,
            "contentType",
            layout.content_type.as_str().into(),
        );
        if let Some(payload) = payload {
            insert(&mut message, "payload", payload);
        }
        if let Some(headers) = layout.headers {
            insert(&mut message, "headers", headers);
        }
        if let Some(binding) = self.binding() {
            insert(&mut message, "bindings", binding);
        }
        message
    }

    /// The message of all event types that a pattern takes.
    pub(super) fn open_message(&self, pattern: &str) -> Value {
        let mut message = Map::new();
        insert(&mut message, "name", pattern.into());
        let title = format!("Any event of a type that `{pattern}` takes");
        insert(&mut message, "title", title.into());
        let layout = self.layout(&Described::new(self.codec.unwrap_or_default()));
        if let Some(layout) = layout {
            if self.codec.is_some() || layout.value.is_some() {
                insert(
                    &mut message,
                    "contentType",
                    layout.content_type.as_str().into(),
                );
            }
            if let Some(value) = layout.value {
                insert(&mut message, "payload", value);
            }
            if let Some(headers) = layout.headers {
                insert(&mut message, "headers", headers);
            }
        }
        message.into()
    }

    fn layout(&self, events: &Described<'_>) -> Option<Layout> {
        if let Some(format) = self.format {
            return self.bus.formats.find(format)?.layout(events);
        }
        let layout = Layout::data(events.codec);
        Some(match (self.own_format, self.kind) {
            (Some("plain"), _) => layout,
            (None | Some("default"), "redis-streams") => layout.with_headers(in_one_field()),
            _ => {
                let content_type = self.codec.map(Codec::content_type);
                layout.with_headers(attributes(events.event_type, content_type))
            }
        })
    }

    /// Where data name their schema.
    fn binding(&self) -> Option<Value> {
        if !self.schema_registry || self.kind != "kafka" {
            return None;
        }
        let section = self.bus.config.schema_registry.as_ref();
        let settings = section.and_then(|section| section.parse::<Named>().ok());
        let strategy = match settings.unwrap_or_default().subject {
            SubjectName::Topic => "TopicNameStrategy",
            SubjectName::Record => "RecordNameStrategy",
            _ => "TopicRecordNameStrategy",
        };
        Some(json!({ "kafka": {
            "schemaIdLocation": "payload",
            "schemaIdPayloadEncoding": "confluent",
            "schemaLookupStrategy": strategy,
            "bindingVersion": super::document::KAFKA_BINDING,
        }}))
    }
}

/// What of the settings of a registry says where data's schemas are.
#[derive(Default, serde::Deserialize)]
struct Named {
    #[serde(default)]
    subject: SubjectName,
}

pub(super) fn insert(map: &mut Map<String, Value>, key: &str, value: Value) {
    map.insert(key.to_owned(), value);
}

/// A schema in its own language.
fn foreign(schema: &DataSchema) -> Option<Value> {
    let text = schema.text();
    let (format, schema): (_, Value) = match schema.format() {
        SchemaFormat::Avro => (
            "application/vnd.apache.avro+json;version=1.9.0",
            serde_json::from_str(text).ok()?,
        ),
        SchemaFormat::Protobuf => {
            let format = match text.contains("proto3") {
                true => "application/vnd.google.protobuf;version=3",
                false => "application/vnd.google.protobuf;version=2",
            };
            (format, with_root(schema)?.into())
        }
        _ => return None,
    };
    Some(json!({ "schemaFormat": format, "schema": schema }))
}

/// A `.proto` file that says which of its messages is meant, as the official parser wants it. It can't say so
/// of one inside of another.
fn with_root(schema: &DataSchema) -> Option<String> {
    let [_] = schema.message() else { return None };
    let name = schema.name()?;
    let name = name.rsplit('.').next().unwrap_or(name);
    let declares = |line: &str| {
        let rest = line.trim_start().strip_prefix("message ")?;
        let rest = rest.trim_start().strip_prefix(name)?;
        (rest.is_empty() || rest.starts_with([' ', '\t', '{'])).then_some(())
    };
    let mut file = String::with_capacity(schema.text().len() + 16);
    for line in schema.text().lines() {
        if declares(line).is_some() {
            file.push_str("// @RootNode\n");
        }
        file.push_str(line);
        file.push('\n');
    }
    Some(file)
}

/// The attributes of a CloudEvent, in binary mode.
fn attributes(event_type: Option<&str>, content_type: Option<&str>) -> Value {
    let text = |value: Option<&str>| match value {
        Some(value) => json!({ "type": "string", "const": value }),
        None => json!({ "type": "string" }),
    };
    json!({
        "type": "object",
        "required": ["ce_specversion", "ce_id", "ce_source", "ce_type"],
        "properties": {
            "ce_specversion": text(Some("1.0")),
            "ce_id": text(None),
            "ce_source": text(None),
            "ce_type": text(event_type),
            "ce_dataversion": text(None),
            "ce_correlationid": text(None),
            "ce_causationid": text(None),
            "content-type": text(content_type),
        },
    })
}

/// The attributes of a CloudEvent as Redis Streams have them.
fn in_one_field() -> Value {
    json!({
        "type": "object",
        "required": ["ce"],
        "properties": { "ce": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "All attributes of the event but its data, as one JSON object.",
        }},
    })
}
