//! The document itself.

use serde_json::{Map, Value, json};

use super::message::{Writing, insert};
use super::servers::{Servers, id};
use super::{AsyncApi, Receives};
use crate::bus::Inner;
use crate::event::Contract;
use crate::routing::Resolved;
use crate::topic::{Cleanup, Limit};
use crate::transport::TopicSpec;
use crate::{Result, Text};

/// The version of the bindings of Kafka.
pub(super) const KAFKA_BINDING: &str = "0.5.0";

/// A document in the making.
struct Document<'a> {
    bus: &'a Inner,
    servers: Servers,
    wanted: Vec<(Text, TopicSpec)>,
    channels: Map<String, Value>,
    operations: Map<String, Value>,
    messages: Map<String, Value>,
    schemas: Map<String, Value>,
}

pub(super) fn write(asked: &AsyncApi, bus: &Inner, receives: &[Receives]) -> Result<Value> {
    let wanted = bus.routes.wanted_topics(&bus.config, &[])?.into_iter();
    let wanted = wanted.flat_map(|(transport, topics)| {
        let topics = topics.into_iter();
        topics.map(move |topic| (transport.clone(), topic.spec))
    });
    let mut document = Document {
        bus,
        servers: Servers::of(&bus.config)?,
        wanted: wanted.collect(),
        channels: Map::new(),
        operations: Map::new(),
        messages: Map::new(),
        schemas: Map::new(),
    };
    for contract in &asked.published {
        document.send(contract)?;
    }
    for subscription in receives {
        document.receive(subscription);
    }
    Ok(document.finish(asked))
}

impl Document<'_> {
    fn finish(self, asked: &AsyncApi) -> Value {
        let mut info = Map::new();
        info.insert("title".to_owned(), asked.title.as_str().into());
        info.insert("version".to_owned(), asked.version.as_str().into());
        if let Some(description) = &asked.description {
            info.insert("description".to_owned(), description.as_str().into());
        }
        let components = [
            ("messages", self.messages),
            ("schemas", self.schemas),
            ("securitySchemes", self.servers.security),
        ];
        let components = components.into_iter().filter(|(_, it)| !it.is_empty());
        let components: Map<_, _> = components
            .map(|(key, it)| (key.to_owned(), Value::Object(it)))
            .collect();
        json!({
            "asyncapi": "3.0.0",
            "info": info,
            "servers": self.servers.servers,
            "channels": self.channels,
            "operations": self.operations,
            "components": components,
        })
    }

    /// The service publishes events of a type.
    fn send(&mut self, contract: &Contract) -> Result<()> {
        let way = self.bus.routes.resolve(&contract.event_type)?;
        let message = self.message(contract, &way);
        let channel = self.channel(&way.transport, way.topic.name());
        let reference = self.put(&channel, &message);
        let operation = id(&format!("send.{message}"));
        let mut send = self.operation("send", &channel, vec![reference]);
        let bindings = self.operation_bindings(&way.transport, None);
        insert(&mut send, "bindings", bindings);
        self.operations.insert(operation, send.into());
        Ok(())
    }

    /// A subscription handles events from its topics: on each the types that routes bring there, and
    /// what its patterns take.
    fn receive(&mut self, receives: &Receives) {
        for (transport, topic) in &receives.topics {
            let mut messages = Vec::new();
            for contract in &receives.contracts {
                let way = self.bus.routes.resolve(&contract.event_type);
                let comes = way.ok().filter(|way| {
                    way.transport == *transport && way.topic.name() == topic.as_str()
                });
                if let Some(way) = comes {
                    messages.push(self.message(contract, &way));
                }
            }
            let patterns = receives.interests.iter().filter(|it| !it.is_literal());
            for pattern in patterns {
                messages.push(self.open_message(pattern.as_str(), transport, topic));
            }
            let channel = self.channel(transport, topic);
            let references = messages.iter().map(|it| self.put(&channel, it)).collect();
            let mut receive = self.operation("receive", &channel, references);
            let bindings = self.operation_bindings(transport, Some(&receives.group));
            insert(&mut receive, "bindings", bindings);
            let operation = id(&format!("receive.{}.{channel}", receives.subscription));
            self.operations.insert(operation, receive.into());
        }
    }

    fn operation(&self, action: &str, channel: &str, messages: Vec<Value>) -> Map<String, Value> {
        let mut operation = Map::new();
        insert(&mut operation, "action", action.into());
        let channel = json!({ "$ref": format!("#/channels/{channel}") });
        insert(&mut operation, "channel", channel);
        insert(&mut operation, "messages", messages.into());
        operation
    }

    /// A group reads, or nobody.
    fn operation_bindings(&self, transport: &str, group: Option<&Text>) -> Value {
        match (self.kind(transport), group) {
            ("kafka", Some(group)) => json!({ "kafka": {
                "groupId": { "type": "string", "enum": [group.as_str()] },
                "bindingVersion": KAFKA_BINDING,
            }}),
            ("kafka", None) => json!({ "kafka": { "bindingVersion": KAFKA_BINDING } }),
            ("redis-streams", _) => json!({ "redis": {} }),
            _ => json!({}),
        }
    }

    /// The id of the channel of a topic, which is added if it is not there.
    fn channel(&mut self, transport: &Text, topic: &str) -> String {
        let id = id(&format!("{transport}.{topic}"));
        if !self.channels.contains_key(&id) {
            let channel = json!({
                "address": topic,
                "servers": self.servers.of_transport(transport),
                "messages": {},
                "bindings": self.channel_bindings(transport, topic),
            });
            self.channels.insert(id.clone(), channel);
        }
        id
    }

    fn channel_bindings(&self, transport: &Text, topic: &str) -> Value {
        match self.kind(transport) {
            "kafka" => {
                let mut wanted = self.wanted.iter();
                let wanted = wanted.find(|(on, it)| on == transport && it.name == topic);
                json!({ "kafka": kafka_topic(topic, wanted.map(|(_, spec)| spec)) })
            }
            "redis-streams" => json!({ "redis": {} }),
            _ => json!({}),
        }
    }

    fn kind(&self, transport: &str) -> &str {
        let section = self.bus.config.transports.get(transport);
        section.map_or("", |section| section.kind.as_str())
    }

    /// Puts a message into a channel, and refers to it there.
    fn put(&mut self, channel: &str, message: &str) -> Value {
        let messages = self
            .channels
            .get_mut(channel)
            .and_then(|it| it.get_mut("messages"));
        if let Some(Value::Object(messages)) = messages {
            let reference = json!({ "$ref": format!("#/components/messages/{message}") });
            messages.insert(message.to_owned(), reference);
        }
        json!({ "$ref": format!("#/channels/{channel}/messages/{message}") })
    }

    /// The id of the message of an event type and the major version of its data.
    fn message(&mut self, contract: &Contract, way: &Resolved) -> String {
        let name = contract.event_type.as_str();
        let major = contract.info.version.split('.').next().unwrap_or_default();
        let id = match major {
            "" | "0" | "1" => id(name),
            major => id(&format!("{name}.v{major}")),
        };
        if self.messages.contains_key(&id) {
            return id;
        }
        let writing = Writing::of_way(self.bus, &self.servers, way);
        let message = writing.message(&id, contract, &mut self.schemas);
        self.messages.insert(id.clone(), message.into());
        id
    }

    /// The id of the message of all event types that a pattern takes, as they stand in a topic.
    fn open_message(&mut self, pattern: &str, transport: &str, topic: &str) -> String {
        let mut id = match pattern {
            "*" => "any".to_owned(),
            pattern => id(&format!(
                "any.{}",
                pattern.replace('*', "all").replace('+', "one")
            )),
        };
        let writing = Writing::of_topic(self.bus, &self.servers, transport, topic);
        let message = writing.open_message(pattern);
        if self
            .messages
            .get(&id)
            .is_some_and(|other| *other != message)
        {
            id = self::id(&format!("{id}.{transport}.{topic}"));
        }
        self.messages.insert(id.clone(), message);
        id
    }
}

/// A topic of Kafka as it is wanted.
fn kafka_topic(topic: &str, wanted: Option<&TopicSpec>) -> Map<String, Value> {
    let mut binding = Map::new();
    insert(&mut binding, "topic", topic.into());
    if let Some(spec) = wanted {
        if let Some(partitions) = spec.partitions {
            insert(&mut binding, "partitions", partitions.into());
        }
        if let Some(replicas) = spec.replication {
            insert(&mut binding, "replicas", replicas.into());
        }
        let settings = topic_configuration(spec);
        if !settings.is_empty() {
            insert(&mut binding, "topicConfiguration", settings.into());
        }
    }
    insert(&mut binding, "bindingVersion", KAFKA_BINDING.into());
    binding
}

fn topic_configuration(spec: &TopicSpec) -> Map<String, Value> {
    let settings = &spec.settings;
    let mut configuration = Map::new();
    if let Some(cleanup) = settings.cleanup {
        let policy = match cleanup {
            Cleanup::Compact => json!(["compact"]),
            Cleanup::CompactDelete => json!(["compact", "delete"]),
            _ => json!(["delete"]),
        };
        insert(&mut configuration, "cleanup.policy", policy);
    }
    if let Some(retention) = settings.retention {
        let millis = match retention {
            Limit::Unlimited => -1,
            Limit::At(time) => i64::try_from(time.as_millis()).unwrap_or(i64::MAX),
        };
        insert(&mut configuration, "retention.ms", millis.into());
    }
    if let Some(retention) = settings.retention_bytes {
        let bytes = match retention {
            Limit::Unlimited => -1,
            Limit::At(bytes) => i64::try_from(bytes).unwrap_or(i64::MAX),
        };
        insert(&mut configuration, "retention.bytes", bytes.into());
    }
    if let Some(size) = settings.max_message_size {
        insert(&mut configuration, "max.message.bytes", size.into());
    }
    configuration
}
