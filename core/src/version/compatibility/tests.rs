use serde_json::json;

use super::*;

fn object(properties: Value, required: &[&str]) -> Value {
    let mut object = json!({ "type": "object", "required": required });
    object["properties"] = properties;
    object
}

/// What breaks a reader of the second on data of the first.
fn breaks(writer: &Value, reader: &Value) -> Vec<String> {
    let changes = compare_schemas(writer, reader);
    changes.backward.iter().map(Break::to_string).collect()
}

fn check(writer: &Value, reader: &Value, expected: &[&str]) {
    assert_eq!(breaks(writer, reader), expected, "{writer} by {reader}");
}

#[test]
fn a_schema_is_compatible_with_itself() {
    for schema in [
        json!(true),
        json!({}),
        object(
            json!({ "a": { "type": "string", "format": "email" } }),
            &["a"],
        ),
        json!({ "type": "array", "prefixItems": [{ "type": "string" }], "items": { "type": "null" } }),
        json!({ "$ref": "#/$defs/Tree", "$defs": { "Tree": { "type": "object", "properties": {
            "children": { "type": "array", "items": { "$ref": "#/$defs/Tree" } } } } } }),
        json!({ "oneOf": [{ "const": "a" }, { "type": "number", "minimum": 1 }] }),
        json!({ "allOf": [{ "pattern": "^a" }, { "pattern": "b$" }] }),
    ] {
        assert!(
            compare_schemas(&schema, &schema).are(Compatibility::Full),
            "{schema}"
        );
    }
}

#[test]
fn properties_come_and_go_unless_they_are_required() {
    let name = json!({ "type": "string" });
    let less = object(json!({ "name": name }), &["name"]);
    let more = object(
        json!({ "name": name, "age": { "type": "integer" } }),
        &["name"],
    );
    let must = object(
        json!({ "name": name, "age": { "type": "integer" } }),
        &["name", "age"],
    );
    check(&less, &more, &[]);
    check(&more, &less, &[]);
    check(&less, &must, &["/age: is required, and may be missing"]);
    check(&must, &less, &[]);
    let mut closed = less.clone();
    closed["additionalProperties"] = json!(false);
    check(&more, &closed, &["/age: is a property that is not taken"]);
}

#[test]
fn types_may_be_widened_for_readers() {
    let of = |kind: Value| object(json!({ "a": { "type": kind } }), &[]);
    check(&of(json!("integer")), &of(json!("number")), &[]);
    check(&of(json!("string")), &of(json!(["string", "null"])), &[]);
    let narrowed = "/a: may be of type null, which is not taken";
    check(
        &of(json!(["string", "null"])),
        &of(json!("string")),
        &[narrowed],
    );
    let other = "/a: may be of type number, which is not taken";
    check(&of(json!("number")), &of(json!("integer")), &[other]);
    check(
        &json!({}),
        &json!({ "type": "string" }),
        &["may be of any type, and not only string"],
    );
}

#[test]
fn values_may_be_added_for_readers() {
    let (two, three) = (
        json!({ "enum": ["a", "b"] }),
        json!({ "enum": ["a", "b", "c"] }),
    );
    check(&two, &three, &[]);
    check(&three, &two, &["may be \"c\", which is not taken"]);
    let documented = json!({ "oneOf": [{ "const": "a", "description": "A." }, { "const": "b" }] });
    check(&two, &documented, &[]);
    check(&documented, &two, &[]);
    check(
        &json!({ "type": "string" }),
        &json!({ "const": "a" }),
        &["may be other than \"a\""],
    );
}

#[test]
fn bounds_may_be_widened_for_readers() {
    for (narrow, wide, message) in [
        (
            json!({ "minimum": 2 }),
            json!({ "minimum": 1 }),
            "may be less than 2",
        ),
        (
            json!({ "maximum": 1 }),
            json!({ "maximum": 2 }),
            "may be more than 1",
        ),
        (
            json!({ "exclusiveMinimum": 1 }),
            json!({ "minimum": 1 }),
            "may be no more than 1",
        ),
        (
            json!({ "exclusiveMaximum": 1 }),
            json!({ "maximum": 1 }),
            "may be no less than 1",
        ),
        (
            json!({ "minLength": 1 }),
            json!({}),
            "may be shorter than 1",
        ),
        (
            json!({ "maxItems": 1 }),
            json!({ "maxItems": 2 }),
            "may have more elements than 1",
        ),
        (
            json!({ "pattern": "a" }),
            json!({}),
            "`pattern` is another, so that not everything may be taken",
        ),
    ] {
        check(&narrow, &wide, &[]);
        check(&wide, &narrow, &[message]);
    }
}

#[test]
fn what_is_nested_has_its_pointer() {
    let of = |kind: &str| {
        json!({ "type": "object",
            "properties": { "lines": { "type": "array", "items": { "$ref": "#/$defs/Line" } } },
            "$defs": { "Line": { "type": "object", "properties": { "sku/no": { "type": kind } },
                "additionalProperties": { "type": kind } } } })
    };
    check(
        &of("string"),
        &of("integer"),
        &[
            "/lines/*/sku~1no: may be of type string, which is not taken",
            "/lines/*/*: may be of type string, which is not taken",
        ],
    );
}

#[test]
fn variants_of_an_enum_are_compared_with_the_nearest() {
    let variant = |tag: &str, kind: &str| {
        object(
            json!({ "type": { "const": tag }, "value": { "type": kind } }),
            &["type", "value"],
        )
    };
    let old = json!({ "oneOf": [variant("a", "string"), variant("b", "string")] });
    let more =
        json!({ "oneOf": [variant("a", "string"), variant("b", "string"), variant("c", "null")] });
    check(&old, &more, &[]);
    let breaks = breaks(&more, &old);
    assert!(!breaks.is_empty(), "the third is new to the reader");
}

#[test]
fn what_can_not_be_compared_is_a_break() {
    let elsewhere = json!({ "$ref": "https://example.com/a.json" });
    let breaks = breaks(&elsewhere, &json!({ "type": "string" }));
    assert!(
        breaks[0].contains("which is not in its schema"),
        "{breaks:?}"
    );
    let circle = json!({ "$ref": "#" });
    assert!(
        !compare_schemas(&circle, &json!({ "type": "string" }))
            .backward
            .is_empty()
    );
}

#[test]
fn the_report_says_which_readers_break_and_where() {
    let old = object(json!({ "a": { "type": "string" } }), &[]);
    let new = object(json!({ "a": { "type": "integer" } }), &[]);
    let changes = compare_schemas(&old, &new);
    for which in [
        Compatibility::Backward,
        Compatibility::Forward,
        Compatibility::Full,
    ] {
        assert!(!changes.are(which));
    }
    assert_eq!(
        changes.to_string(),
        "backward (new readers, old data): no\n  /a: may be of type string, which is not taken\n\
         forward (old readers, new data): no\n  /a: may be of type integer, which is not taken\n"
    );
}
