//! JSON Schemas as parts of a document.

use serde_json::{Map, Value};

/// Where the definitions of a schema stand.
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];

/// A schema that was a document of its own, as a part of another: its definitions move to
/// `#/components/schemas/<prefix>.<name>`, and what refers to them with them. `own` is where the schema itself
/// will stand.
pub(super) fn embed(
    mut schema: Value,
    own: &str,
    prefix: &str,
    components: &mut Map<String, Value>,
) -> Value {
    if let Value::Object(object) = &mut schema {
        object.remove("$schema");
        object.remove("$id");
        for key in DEFINITIONS {
            let Some(Value::Object(definitions)) = object.remove(key) else {
                continue;
            };
            for (name, mut definition) in definitions {
                redirect(&mut definition, own, prefix);
                components.insert(place(prefix, &name), definition);
            }
        }
    }
    redirect(&mut schema, own, prefix);
    schema
}

fn place(prefix: &str, name: &str) -> String {
    super::servers::id(&format!("{prefix}.{name}"))
}

/// Leads what refers to a definition, or to the whole, to its new place.
fn redirect(value: &mut Value, own: &str, prefix: &str) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(target) if key == "$ref" => {
                        if let Some(new) = new_place(target, own, prefix) {
                            *target = new;
                        }
                    }
                    value => redirect(value, own, prefix),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|it| redirect(it, own, prefix)),
        _ => {}
    }
}

fn new_place(target: &str, own: &str, prefix: &str) -> Option<String> {
    if target == "#" {
        return Some(own.to_owned());
    }
    let mut names = DEFINITIONS.iter();
    let name = names.find_map(|key| target.strip_prefix(&format!("#/{key}/")))?;
    Some(format!("#/components/schemas/{}", place(prefix, name)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn definitions_move_to_the_components_and_references_follow() {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "properties": { "a": { "$ref": "#/$defs/A" }, "next": { "$ref": "#" } },
            "$defs": { "A": { "anyOf": [{ "$ref": "#/$defs/B" }] }, "B": { "type": "string" } },
        });
        let mut components = Map::new();
        let embedded = embed(schema, "#/own", "user.created", &mut components);
        assert_eq!(
            embedded,
            json!({ "properties": {
                "a": { "$ref": "#/components/schemas/user.created.A" },
                "next": { "$ref": "#/own" },
            }})
        );
        let a = json!({ "anyOf": [{ "$ref": "#/components/schemas/user.created.B" }] });
        assert_eq!(components["user.created.A"], a);
        assert_eq!(components.len(), 2);
    }
}
