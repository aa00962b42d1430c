//! The AsyncAPI document of a service, checked by the official schema and the official parser.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use polybus::event::TypeInfo;
use polybus::format::{Format, Place};
use polybus::transport::RawRecord;
use polybus::{AsyncApi, Bus, Config, ErrorKind, Event, EventData, Headers, Payload, RawEvent};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const CONFIG: &str = r#"
    [service]
    name = "deal-monitor"
    [transports.redis]
    kind = "redis-streams"
    url = "rediss://app:top-secret@cache:6380/2"
    [transports.kafka]
    kind = "kafka"
    brokers = ["kafka-0:9093", "kafka-1:9093"]
    tls = true
    sasl_mechanism = "SCRAM-SHA-512"
    user = "app"
    password = "top-secret"
    [transports.local]
    kind = "memory"
    [[routes]]
    pattern = "user.*"
    transport = "redis"
    topic = "user-events"
    [[routes]]
    pattern = "deal.*"
    transport = "kafka"
    topic = "filops.deals.status"
    [[routes]]
    pattern = "debug.*"
    transport = "local"
    topic = "debug"
    [topics."filops.deals.status"]
    partitions = 12
    replication = 3
    retention = "30d"
    cleanup = "compact_delete"
    max_message_size = "1MiB"
"#;

#[derive(Serialize, Deserialize)]
struct UserCreated {
    user_id: String,
}

impl EventData for UserCreated {
    const TYPES: &'static [TypeInfo] = &[TypeInfo::new("user.created", "2.1.0")];

    fn type_info(&self) -> &'static TypeInfo {
        &Self::TYPES[0]
    }

    fn schema_of(_: &str) -> Option<Value> {
        Some(json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "required": ["user_id"],
            "properties": {
                "user_id": { "type": "string" },
                "address": { "$ref": "#/$defs/Address" },
            },
            "$defs": { "Address": { "type": "object" } },
        }))
    }
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "deal.status.changed", key = deal_id)]
struct DealStatusChanged {
    deal_id: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "invoice.sent")]
struct InvoiceSent {}

async fn welcome(_: Payload<UserCreated>) {}

async fn record(_: RawEvent) {}

/// The service, without its servers.
async fn service() -> Bus {
    let config = Config::parse(CONFIG, "polybus.toml").unwrap();
    let bus = Bus::builder().config(config).in_memory().build();
    let bus = bus.await.unwrap();
    bus.subscribe("mails").on(welcome).start().await.unwrap();
    let audit = bus.subscribe("audit").group("audit");
    let audit = audit
        .on_pattern("deal.*", record)
        .on_pattern("debug.+", record);
    audit.start().await.unwrap();
    bus
}

/// Every way that events are written in.
const WIRES: &str = r#"
    [service]
    name = "shop"
    [transports.kafka]
    kind = "kafka"
    brokers = ["kafka:9092"]
    sasl_mechanism = "OAUTHBEARER"
    user = "app"
    [transports.bare]
    kind = "kafka"
    brokers = ["kafka:9092"]
    format = "plain"
    [transports.redis]
    kind = "redis-streams"
    url = "redis://cache"
    [transports.fields]
    kind = "redis-streams"
    url = "redis://cache"
    format = "fields"
    [schema_registry]
    url = "http://registry:8081"
    subject = "record"
    [[routes]]
    pattern = "user.created"
    transport = "kafka"
    topic = "users"
    format = "header_body"
    [[routes]]
    pattern = "deal.*"
    transport = "bare"
    topic = "deals"
    codec = "message_pack"
    [[routes]]
    pattern = "order.placed"
    transport = "kafka"
    topic = "orders"
    codec = "avro"
    schema_registry = true
    [[routes]]
    pattern = "order.paid"
    transport = "redis"
    topic = "payments"
    codec = "protobuf"
    [[routes]]
    pattern = "order.packed"
    transport = "kafka"
    topic = "packed"
    codec = "message_pack"
    format = "structured"
    [[routes]]
    pattern = "invoice.sent"
    transport = "fields"
    topic = "invoices"
    [[routes]]
    pattern = "own.*"
    transport = "redis"
    topic = "own"
    format = "own"
"#;

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.placed", avro = "contracts/schemas/order.avsc")]
struct OrderPlaced {
    id: String,
    cents: i64,
    note: Option<String>,
}

#[derive(Event, Serialize, Deserialize, Clone, PartialEq, prost::Message)]
#[event(type = "order.paid", protobuf = "contracts/schemas/order.proto")]
struct OrderPaid {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(int64, tag = "2")]
    cents: i64,
}

#[derive(Event, Serialize, Deserialize)]
#[serde(untagged)]
enum OrderEvent {
    Placed(OrderPlaced),
    Paid(OrderPaid),
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.packed")]
struct OrderPacked {}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "own.thing")]
struct OwnThing {}

/// A format that says nothing of what it looks like.
#[derive(Debug)]
struct OwnFormat;

impl Format for OwnFormat {
    fn name(&self) -> &'static str {
        "own"
    }

    fn write(&self, event: &Event) -> polybus::Result<RawRecord> {
        Ok(RawRecord::new(None, Headers::new(), event.data().cloned()))
    }

    fn read(&self, _: &RawRecord, _: &Place<'_>) -> polybus::Result<Event> {
        Event::builder("own.thing").source("own").build()
    }
}

async fn follow(_: Payload<OrderEvent>) {}

/// The document of a service on all of these routes.
async fn wires() -> AsyncApi {
    let config = Config::parse(WIRES, "polybus.toml").unwrap();
    let bus = Bus::builder().config(config).format(OwnFormat).in_memory();
    let bus = bus.build().await.unwrap();
    bus.subscribe("orders").on(follow).start().await.unwrap();
    let audit = bus.subscribe("audit").group("audit");
    audit.on_pattern("*", record).start().await.unwrap();
    let document = bus.asyncapi().publishes::<UserCreated>();
    let document = document.publishes::<DealStatusChanged>();
    let document = document.publishes::<OrderPacked>();
    document.publishes::<InvoiceSent>().publishes::<OwnThing>()
}

#[tokio::test]
async fn the_official_tools_read_schemas_of_every_language() {
    let document = wires().await;
    let directory = tempfile::tempdir().unwrap();
    let (json, yaml) = (document.to_json().unwrap(), document.to_yaml().unwrap());
    let files = [("document.json", json), ("document.yaml", yaml)];
    let files = files.map(|(name, text)| write(directory.path(), name, &text));
    let (right, said) = check(&files);
    assert!(right, "{said}");
    let wrong = document.to_json().unwrap();
    let wrong = wrong.replace(r#""type": "record""#, r#""type": "recorder""#);
    let file = write(directory.path(), "wrong.json", &wrong);
    let (right, said) = check(&[file]);
    assert!(!right, "the Avro schema is not read: {said}");
}

#[tokio::test]
async fn a_message_says_what_its_route_makes_of_it() {
    let value = wires().await.to_value().unwrap();
    let messages = &value["components"]["messages"];
    for (message, expected) in [
        ("user.created.v2", "application/json"),
        ("deal.status.changed", "application/vnd.msgpack"),
        ("order.placed", "application/avro"),
        ("order.paid", "application/protobuf"),
        ("order.packed", "application/cloudevents+json"),
        ("invoice.sent", "application/json"),
    ] {
        assert_eq!(messages[message]["contentType"], expected, "{message}");
    }
    let headers = |message: &str| messages[message]["headers"]["properties"].clone();
    let avro = headers("order.placed");
    assert_eq!(avro["content-type"]["const"], "application/avro");
    assert_eq!(avro["ce_type"]["const"], "order.placed");
    assert_eq!(headers("invoice.sent")["ce_type"]["const"], "invoice.sent");
    assert!(headers("order.paid")["ce"].is_object());
    assert!(headers("deal.status.changed").is_null());
    let structured = headers("order.packed");
    let expected = "application/cloudevents+json";
    assert_eq!(structured["content-type"]["const"], expected);
    let own = &messages["own.thing"];
    let known: Vec<_> = own.as_object().unwrap().keys().collect();
    assert_eq!(known, ["name", "title"]);
    assert!(value["defaultContentType"].is_null());
}

#[tokio::test]
async fn payloads_have_the_schema_of_their_codec_and_of_what_a_format_puts_around_them() {
    let value = wires().await.to_value().unwrap();
    let messages = &value["components"]["messages"];
    let payload = |message: &str| messages[message]["payload"].clone();
    let avro = payload("order.placed");
    let format = "application/vnd.apache.avro+json;version=1.9.0";
    assert_eq!(avro["schemaFormat"], format);
    assert_eq!(avro["schema"]["type"], "record");
    let protobuf = payload("order.paid");
    let format = "application/vnd.google.protobuf;version=3";
    assert_eq!(protobuf["schemaFormat"], format);
    let file = protobuf["schema"].as_str().unwrap();
    assert!(file.contains("// @RootNode\nmessage OrderPaid"), "{file}");
    let wrapped = payload("user.created.v2");
    assert_eq!(
        wrapped["properties"]["body"],
        json!({ "$ref": "#/components/schemas/user.created.v2" })
    );
    let data = &value["components"]["schemas"]["user.created.v2"];
    assert_eq!(data["required"], json!(["user_id"]));
    let structured = payload("order.packed");
    let data = &structured["properties"]["data_base64"];
    assert_eq!(data["contentMediaType"], "application/vnd.msgpack");
    let binding = &messages["order.placed"]["bindings"]["kafka"];
    assert_eq!(binding["schemaIdPayloadEncoding"], "confluent");
    assert_eq!(binding["schemaLookupStrategy"], "RecordNameStrategy");
    assert!(messages["user.created.v2"]["bindings"].is_null());
}

#[tokio::test]
async fn what_any_event_of_a_topic_looks_like_is_said_for_each_topic_that_differs() {
    let value = wires().await.to_value().unwrap();
    let messages = &value["components"]["messages"];
    let of_channel = |channel: &str| {
        let names = value["channels"][channel]["messages"].as_object().unwrap();
        let name = names.keys().find(|name| name.starts_with("any")).unwrap();
        messages[name].clone()
    };
    let orders = of_channel("kafka.orders");
    assert_eq!(orders["contentType"], "application/avro");
    let payments = of_channel("redis.payments");
    assert_eq!(payments["contentType"], "application/protobuf");
    assert!(payments["headers"]["properties"]["ce"].is_object());
    let users = of_channel("kafka.users");
    assert!(users["payload"]["properties"]["header"].is_object());
}

#[tokio::test]
async fn tokens_that_clients_make_themselves_are_oauth2_without_a_flow() {
    let value = wires().await.to_value().unwrap();
    let scheme = &value["components"]["securitySchemes"]["kafka-login"];
    assert_eq!(scheme["type"], "oauth2");
    assert_eq!(scheme["flows"], json!({}));
}

fn document(bus: &Bus) -> AsyncApi {
    let document = bus
        .asyncapi()
        .version("2.1.0")
        .description("Watches deals.");
    document
        .publishes::<DealStatusChanged>()
        .publishes::<UserCreated>()
}

#[tokio::test]
async fn the_official_parser_and_schema_find_nothing_wrong_with_the_document() {
    let document = document(&service().await);
    let directory = tempfile::tempdir().unwrap();
    let (json, yaml) = (document.to_json().unwrap(), document.to_yaml().unwrap());
    let files = [("document.json", json), ("document.yaml", yaml)];
    let files = files.map(|(name, text)| write(directory.path(), name, &text));
    let (right, said) = check(&files);
    assert!(right, "{said}");
    assert_eq!(said.matches(": 5 operations").count(), 2, "{said}");
}

#[tokio::test]
async fn the_official_parser_and_schema_find_what_is_wrong() {
    let mut value = document(&service().await).to_value().unwrap();
    let operations = value["operations"].as_object_mut().unwrap();
    let first = operations.values_mut().next().unwrap();
    first["action"] = "publish".into();
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "wrong.json", &value.to_string());
    let (right, said) = check(&[file]);
    assert!(!right, "{said}");
    assert!(said.contains("schema: /operations/"), "{said}");
    assert!(said.contains("parser: "), "{said}");
}

#[tokio::test]
async fn servers_say_how_to_log_in_and_no_secret() {
    let value = document(&service().await).to_value().unwrap();
    assert_eq!(
        value["servers"]["kafka-2"],
        json!({
            "host": "kafka-1:9093",
            "protocol": "kafka-secure",
            "security": [{ "$ref": "#/components/securitySchemes/kafka-login" }],
        })
    );
    let schemes = &value["components"]["securitySchemes"];
    assert_eq!(schemes["kafka-login"], json!({ "type": "scramSha512" }));
    let redis = &value["servers"]["redis"];
    assert_eq!(redis["host"], "cache:6380");
    assert_eq!(redis["protocol"], "rediss");
    assert_eq!(redis["pathname"], "/2");
    assert_eq!(schemes["redis-login"], json!({ "type": "userPassword" }));
    assert!(!value.to_string().contains("top-secret"), "{value}");
}

#[tokio::test]
async fn channels_have_the_messages_of_their_topics_and_what_the_config_wants_of_them() {
    let value = document(&service().await).to_value().unwrap();
    let deals = &value["channels"]["kafka.filops.deals.status"];
    assert_eq!(deals["address"], "filops.deals.status");
    assert_eq!(deals["servers"].as_array().unwrap().len(), 2);
    let names: Vec<_> = deals["messages"].as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        ["any.deal.all", "any.debug.one", "deal.status.changed"]
    );
    assert_eq!(
        deals["bindings"]["kafka"],
        json!({
            "topic": "filops.deals.status",
            "partitions": 12,
            "replicas": 3,
            "topicConfiguration": {
                "cleanup.policy": ["compact", "delete"],
                "retention.ms": 2_592_000_000_u64,
                "max.message.bytes": 1_048_576,
            },
            "bindingVersion": "0.5.0",
        })
    );
    let users = &value["channels"]["redis.user-events"];
    assert_eq!(users["bindings"], json!({ "redis": {} }));
}

#[tokio::test]
async fn messages_have_the_schema_of_their_type() {
    let value = document(&service().await).to_value().unwrap();
    let created = &value["components"]["messages"]["user.created.v2"];
    assert_eq!(created["title"], "user.created 2.1.0");
    assert_eq!(
        created["payload"]["properties"]["address"],
        json!({ "$ref": "#/components/schemas/user.created.v2.Address" })
    );
    assert!(created["payload"]["$defs"].is_null());
    let schemas = &value["components"]["schemas"];
    assert_eq!(
        schemas["user.created.v2.Address"],
        json!({ "type": "object" })
    );
}

#[tokio::test]
async fn what_is_published_is_sent_and_what_is_handled_received() {
    let value = document(&service().await).to_value().unwrap();
    let operations = value["operations"].as_object().unwrap();
    let actions = operations.iter();
    let actions: Vec<_> = actions
        .map(|(name, it)| (name.as_str(), it["action"].as_str().unwrap()))
        .collect();
    assert_eq!(
        actions,
        [
            ("receive.audit.kafka.filops.deals.status", "receive"),
            ("receive.audit.local.debug", "receive"),
            ("receive.mails.redis.user-events", "receive"),
            ("send.deal.status.changed", "send"),
            ("send.user.created.v2", "send"),
        ]
    );
    let audit = &operations["receive.audit.kafka.filops.deals.status"];
    assert_eq!(
        audit["bindings"]["kafka"]["groupId"]["enum"],
        json!(["audit"])
    );
}

#[tokio::test]
async fn a_published_type_without_a_route_is_an_error() {
    let document = service().await.asyncapi().publishes::<InvoiceSent>();
    assert_eq!(document.to_json().unwrap_err().kind(), ErrorKind::NoRoute);
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let file = directory.join(name);
    std::fs::write(&file, text).unwrap();
    file
}

/// Whether the official tools find nothing wrong, and what they say.
fn check(files: &[PathBuf]) -> (bool, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = root.join(".cache");
    let cache = std::env::var_os("POLYBUS_CACHE").map_or(own, PathBuf::from);
    let tools = cache.join("asyncapi");
    let program = tools.join("check.js");
    assert!(
        program.exists(),
        "{} is missing: run scripts/install",
        program.display()
    );
    let ran = Command::new("node").arg(program).args(files).output();
    let ran = ran.expect("node runs: scripts/install installs it");
    let said = [ran.stdout, ran.stderr].concat();
    (
        ran.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}
