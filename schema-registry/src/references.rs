//! Schemas that refer to others, which are registered under subjects of their own.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

/// How many schemas one may refer to, those included that they refer to. Far more than anybody has.
pub(crate) const MOST_REFERENCES: usize = 100;

/// A schema of a subject, and the name that it is referred to by.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) subject: String,
    pub(crate) version: i32,
}

/// The references that are still to be followed, each once.
#[derive(Debug, Default)]
pub(crate) struct Open {
    queue: Vec<Reference>,
    seen: BTreeSet<(String, i32)>,
}

impl Open {
    /// Adds references. `false`: they are too many.
    pub(crate) fn add(&mut self, references: Vec<Reference>) -> bool {
        for reference in references {
            let key = (reference.subject.clone(), reference.version);
            if self.seen.insert(key) {
                self.queue.push(reference);
            }
        }
        self.seen.len() <= MOST_REFERENCES
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> Option<Reference> {
        self.queue.pop()
    }
}

/// Avro types by the names that schemas refer to them by.
pub(crate) type Types = BTreeMap<String, Value>;

/// An Avro schema that stands by itself: in place of the name of a type that another schema declares, where
/// it is first used, stands its declaration. An error names what is no JSON.
pub(crate) fn stand_alone(text: &str, mut types: Types) -> Result<String, serde_json::Error> {
    let mut schema: Value = serde_json::from_str(text)?;
    fill(&mut schema, "", &mut types);
    Ok(schema.to_string())
}

/// Reads a type's declaration.
pub(crate) fn declaration(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text)
}

/// Puts declarations in the place of names, in the order in which a reader of the schema comes by them.
/// `namespace` is that of the type around.
fn fill(schema: &mut Value, namespace: &str, types: &mut Types) {
    match schema {
        Value::String(name) => {
            if let Some(declared) = take(name, namespace, types) {
                *schema = declared;
                fill(schema, namespace, types);
            }
        }
        Value::Array(variants) => {
            for variant in variants {
                fill(variant, namespace, types);
            }
        }
        Value::Object(object) => {
            let kind = object.get("type").and_then(Value::as_str);
            let inner = match kind {
                Some("record" | "error") => {
                    let namespace = namespace_of(object, namespace);
                    if let Some(Value::Array(fields)) = object.get_mut("fields") {
                        for field in fields.iter_mut().filter_map(|it| it.get_mut("type")) {
                            fill(field, &namespace, types);
                        }
                    }
                    return;
                }
                Some("array") => "items",
                Some("map") => "values",
                Some("enum" | "fixed") => return,
                _ => "type",
            };
            if let Some(inner) = object.get_mut(inner) {
                fill(inner, namespace, types);
            }
        }
        _ => {}
    }
}

/// A type that is not declared yet. One is declared once, and referred to after that.
fn take(name: &str, namespace: &str, types: &mut Types) -> Option<Value> {
    let within = match namespace {
        "" => None,
        _ if name.contains('.') => None,
        namespace => types.remove(&format!("{namespace}.{name}")),
    };
    let mut declared = within.or_else(|| types.remove(name))?;
    if let Value::Object(object) = &mut declared
        && !object.contains_key("namespace")
        && !object["name"]
            .as_str()
            .is_some_and(|name| name.contains('.'))
    {
        // Where it stands now it would be in the namespace of what is around it.
        object.insert("namespace".to_owned(), "".into());
    }
    Some(declared)
}

/// The namespace of what stands in a record.
fn namespace_of(object: &serde_json::Map<String, Value>, outer: &str) -> String {
    let text = |key| object.get(key).and_then(Value::as_str);
    let name = text("name").unwrap_or_default();
    match (name.rsplit_once('.'), text("namespace")) {
        (Some((namespace, _)), _) => namespace.to_owned(),
        (None, Some(namespace)) => namespace.to_owned(),
        (None, None) => outer.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_declaration_stands_where_its_name_is_first_used() {
        let schema = json!({ "type": "record", "name": "shop.Order", "fields": [
            { "name": "to", "type": "Address" },
            { "name": "more", "type": { "type": "array", "items": ["null", "shop.Address"] } },
            { "name": "by", "type": { "type": "map", "values": "Person" } },
        ]});
        let address = json!({ "type": "record", "name": "Address", "namespace": "shop", "fields": [
            { "name": "country", "type": "shop.Country" },
        ]});
        let country = json!({ "type": "enum", "name": "shop.Country", "symbols": ["DE", "FR"] });
        let person = json!({ "type": "record", "name": "Person", "fields": [] });
        let types = [
            ("shop.Address", address.clone()),
            ("shop.Country", country.clone()),
            ("Person", person),
        ];
        let types = types.map(|(name, it)| (name.to_owned(), it));
        let alone = stand_alone(&schema.to_string(), types.into()).unwrap();
        let alone: Value = serde_json::from_str(&alone).unwrap();
        let fields = &alone["fields"];
        let mut expected = address;
        expected["fields"][0]["type"] = country;
        assert_eq!(fields[0]["type"], expected);
        assert_eq!(fields[1]["type"]["items"][1], "shop.Address");
        assert_eq!(fields[2]["type"]["values"]["namespace"], "");
    }

    #[test]
    fn references_are_followed_once_and_are_not_endless() {
        let reference = |version| Reference {
            name: "N".to_owned(),
            subject: "s".to_owned(),
            version,
        };
        let mut open = Open::default();
        assert!(open.add(vec![reference(1), reference(1)]));
        assert_eq!(open.next(), Some(reference(1)));
        assert!(open.add(vec![reference(1)]));
        assert_eq!(open.next(), None);
        assert!(!open.add((0..=100).map(reference).collect()));
    }
}
