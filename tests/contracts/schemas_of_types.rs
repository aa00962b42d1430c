//! Schemas of types: what the derive gives, and which of them an event is held to.

use polybus::validation::Contract;
use polybus::{Event, EventData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Event, Serialize, Deserialize, JsonSchema)]
#[event(type = "order.placed", version = "1.0.0", schema)]
struct PlacedV1 {
    sum: u32,
}

#[derive(Event, Serialize, Deserialize, JsonSchema)]
#[event(type = "order.placed", version = "2.1.0", schema, from = PlacedV1)]
struct PlacedV2 {
    amount: String,
}

impl From<PlacedV1> for PlacedV2 {
    fn from(old: PlacedV1) -> Self {
        let amount = old.sum.to_string();
        Self { amount }
    }
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.closed")]
struct Closed {}

#[derive(Event, Serialize, Deserialize)]
#[serde(untagged)]
enum OrderEvent {
    Placed(PlacedV2),
    Closed(Closed),
}

fn event(event_type: &'static str, version: Option<&'static str>, data: &Value) -> Event {
    let mut event = Event::builder(event_type).source("s").json(data).unwrap();
    if let Some(version) = version {
        event = event.data_version(version);
    }
    event.build().unwrap()
}

#[test]
fn the_schema_of_a_type_is_that_of_schemars() {
    let schema = PlacedV1::schema_of("order.placed").unwrap();
    assert_eq!(schema["properties"]["sum"]["type"], "integer");
    assert_eq!(schema["required"], json!(["sum"]));
    assert_eq!(PlacedV1::schema_of("order.closed"), None);
    assert_eq!(Closed::schema_of("order.closed"), None, "it asks for none");
}

#[test]
fn an_enum_has_those_of_its_variants() {
    let schema = OrderEvent::schema_of("order.placed");
    assert_eq!(schema, PlacedV2::schema_of("order.placed"));
    assert_eq!(OrderEvent::schema_of("order.closed"), None);
    let versions: Vec<_> = OrderEvent::schemas()
        .iter()
        .map(|it| it.info.version)
        .collect();
    assert_eq!(versions, ["2.1.0", "1.0.0"], "older versions are read too");
}

#[test]
fn an_event_is_held_to_the_schema_of_its_own_major() {
    let contract = Contract::of::<OrderEvent>().unwrap();
    let (old, new) = (json!({ "sum": 7 }), json!({ "amount": "7" }));
    for (event_type, version, data, valid) in [
        ("order.placed", Some("1.3.0"), &old, true),
        ("order.placed", Some("1.3.0"), &new, false),
        ("order.placed", Some("2.0.0"), &new, true),
        ("order.placed", Some("2.0.0"), &old, false),
        ("order.placed", None, &new, true),
        ("order.placed", None, &old, false),
        ("eu.de.order.placed", Some("2.0.0"), &old, false),
        ("reorder.placed", Some("2.0.0"), &old, true),
        ("order.placed", Some("3.0.0"), &old, true),
        ("order.closed", None, &old, true),
    ] {
        let report = contract.check(&event(event_type, version, data));
        assert_eq!(report.is_valid(), valid, "{event_type} {version:?} {data}");
    }
}
