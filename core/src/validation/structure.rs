//! The envelope of an event, and its data.

use serde::de::IgnoredAny;
use serde_json::Value;

use super::Fault;
use super::schema::Schema;
use crate::codec::{is_json, json};
use crate::event::{extensions, is_extension_name};
use crate::version::is_version;
use crate::{Codec, Event};

/// Adds everything that is wrong with an event but for rules.
pub(super) fn check(event: &Event, schema: Option<&Schema>, faults: &mut Vec<Fault>) {
    check_attributes(event, faults);
    match schema {
        Some(schema) => check_data(event, schema, faults),
        None => check_form(event, faults),
    }
}

fn check_attributes(event: &Event, faults: &mut Vec<Fault>) {
    if event.event_type().split('.').any(str::is_empty) {
        faults.push(Fault::new("/type", "the event type has an empty segment"));
    }
    if let Some(content_type) = event.content_type()
        && content_type != Codec::Json.content_type()
        && !is_media_type(content_type)
    {
        let what = "is no media type, as `application/json`";
        faults.push(Fault::new("/datacontenttype", what));
    }
    if event.schema().is_some_and(str::is_empty) {
        faults.push(Fault::new("/dataschema", "is empty"));
    }
    for name in event.own_extensions() {
        if !is_extension_name(name) {
            let what = "is no name of an extension: those have lower-case letters and digits alone";
            faults.push(Fault::new(format!("/{}", escaped(name)), what));
        }
    }
    if event.data_version().is_some_and(|text| !is_version(text)) {
        let pointer = format!("/{}", extensions::DATA_VERSION);
        faults.push(Fault::new(pointer, "is no semantic version, as `1.2.0`"));
    }
}

fn is_media_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default().trim();
    let parts = essence.split_once('/');
    parts.is_some_and(|(kind, subtype)| {
        let is_token = |part: &str| {
            let fits =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+*'`|~%".contains(&byte);
            !part.is_empty() && part.bytes().all(fits)
        };
        is_token(kind) && is_token(subtype)
    })
}

/// A name as a part of a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Whether the data are what their content type says.
fn check_form(event: &Event, faults: &mut Vec<Fault>) {
    let (Some(content_type), Some(data)) = (event.content_type(), event.data()) else {
        return;
    };
    if is_json(content_type)
        && let Err(error) = json::<IgnoredAny>(data)
    {
        faults.push(not_json(content_type, &error));
    }
    if content_type.starts_with("text/") && std::str::from_utf8(data).is_err() {
        let what = format!("is not the text that `{content_type}` says");
        faults.push(Fault::in_data("", what));
    }
}

fn check_data(event: &Event, schema: &Schema, faults: &mut Vec<Fault>) {
    let content_type = event.content_type().unwrap_or("application/json");
    let Some(data) = event.data() else {
        // A tombstone: that there is no data any more is what it says.
        return;
    };
    let value = match Codec::of_content_type(content_type) {
        // They have a schema of their own, without which they can't be written nor read.
        Some(Codec::Avro | Codec::Protobuf) => return,
        Some(Codec::Json) => json::<Value>(data).map_err(|error| not_json(content_type, &error)),
        _ => {
            let value = Codec::decode::<Value>(event);
            value.map_err(|error| Fault::in_data("", error.message()))
        }
    };
    match value {
        Ok(value) => schema.check(&value, faults),
        Err(fault) => faults.push(fault),
    }
}

fn not_json(content_type: &str, error: &serde_json::Error) -> Fault {
    // The text of serde_json's error holds a place and no value.
    let what = format!("is not the JSON that `{content_type}` says: {error}");
    Fault::in_data("", what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_have_two_parts() {
        for text in ["application/json", "text/plain; charset=utf-8", "a/b+json"] {
            assert!(is_media_type(text), "{text}");
        }
        for text in ["", "json", "/json", "text/", "a/b/c", "a b/c"] {
            assert!(!is_media_type(text), "{text}");
        }
    }

    #[test]
    fn every_fault_of_the_envelope_is_listed_with_its_pointer() {
        let event = Event::builder("a..b").source("s").content_type("json");
        let event = event.schema("").data_version("one").data("x");
        let mut faults = Vec::new();
        check(&event.build().unwrap(), None, &mut faults);
        let pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(
            pointers,
            ["/type", "/datacontenttype", "/dataschema", "/dataversion"]
        );
    }

    #[test]
    fn a_tombstone_is_valid() {
        let event = Event::builder("a").source("s").build().unwrap();
        let mut faults = Vec::new();
        check(&event, None, &mut faults);
        assert_eq!(faults, []);
    }

    #[cfg(feature = "schema")]
    #[test]
    fn data_with_a_schema_of_their_own_are_not_held_to_a_json_schema() {
        let schema = Schema::compile(&serde_json::json!(false), "a").unwrap();
        let faults_of = |content_type: &str| {
            let event = Event::builder("a").source("s").content_type(content_type);
            let mut faults = Vec::new();
            check(
                &event.data("{}").build().unwrap(),
                Some(&schema),
                &mut faults,
            );
            faults.len()
        };
        assert_eq!(faults_of("application/json"), 1);
        assert_eq!(faults_of(Codec::Protobuf.content_type()), 0);
        assert_eq!(faults_of(Codec::Avro.content_type()), 0);
    }
}
