//! A schema as its alternatives, each of one type and flat: without references and combinations.

use serde_json::{Map, Value};

/// A flat schema.
pub(super) type Schema = Map<String, Value>;

/// How many alternatives one schema may have, and how deep references may lead.
const MOST_ALTERNATIVES: usize = 4096;
const DEEPEST: usize = 32;

/// Keywords that say nothing about what is valid.
const SILENT: [&str; 13] = [
    "$schema",
    "$id",
    "$anchor",
    "$defs",
    "definitions",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
];

/// The alternatives of a schema.
///
/// # Errors
///
/// Why it can't be compared.
pub(super) fn expand(root: &Value, schema: &Value) -> Result<Vec<Schema>, String> {
    let mut alternatives = Vec::new();
    for alternative in combine(root, schema, 0)? {
        split(&alternative, &mut alternatives);
        if alternatives.len() > MOST_ALTERNATIVES {
            return Err("has too many alternatives to be compared".to_owned());
        }
    }
    Ok(alternatives)
}

/// Follows references and combinations.
fn combine(root: &Value, schema: &Value, depth: usize) -> Result<Vec<Schema>, String> {
    if depth > DEEPEST {
        return Err("leads back to itself, or is too deep to be compared".to_owned());
    }
    let Value::Object(keywords) = schema else {
        let any = schema != &Value::Bool(false);
        return Ok(if any { vec![Map::new()] } else { Vec::new() });
    };
    let is_own = |name: &str| {
        !SILENT.contains(&name) && !["$ref", "allOf", "anyOf", "oneOf"].contains(&name)
    };
    let own = keywords.iter().filter(|(name, _)| is_own(name));
    let own = own.map(|(name, value)| (name.clone(), value.clone()));
    let mut alternatives = vec![own.collect::<Schema>()];
    if let Some(reference) = keywords.get("$ref").and_then(Value::as_str) {
        let target = find(root, reference)
            .ok_or_else(|| format!("refers to `{reference}`, which is not in its schema"))?;
        alternatives = product(&alternatives, &combine(root, target, depth + 1)?)?;
    }
    for part in list(keywords, "allOf") {
        alternatives = product(&alternatives, &combine(root, part, depth + 1)?)?;
    }
    for name in ["anyOf", "oneOf"] {
        if !keywords.contains_key(name) {
            continue;
        }
        let mut choices = Vec::new();
        for choice in list(keywords, name) {
            choices.extend(combine(root, choice, depth + 1)?);
        }
        alternatives = product(&alternatives, &choices)?;
    }
    Ok(alternatives)
}

fn list<'a>(keywords: &'a Schema, name: &str) -> &'a [Value] {
    let list = keywords.get(name).and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

fn find<'a>(root: &'a Value, reference: &str) -> Option<&'a Value> {
    let pointer = reference.strip_prefix('#')?;
    root.pointer(pointer)
}

/// Each of the one with each of the other, as far as they don't exclude each other.
fn product(left: &[Schema], right: &[Schema]) -> Result<Vec<Schema>, String> {
    if left.len().saturating_mul(right.len()) > MOST_ALTERNATIVES {
        return Err("has too many alternatives to be compared".to_owned());
    }
    let pairs = left
        .iter()
        .flat_map(|left| right.iter().map(move |right| (left, right)));
    let merged = pairs.map(|(left, right)| merge(left, right));
    Ok(merged.flatten().collect())
}

/// What both say. `None` if nothing is valid by both.
fn merge(left: &Schema, right: &Schema) -> Option<Schema> {
    let mut merged = left.clone();
    for (name, value) in right {
        let Some(known) = merged.get_mut(name) else {
            merged.insert(name.clone(), value.clone());
            continue;
        };
        if known == value {
            continue;
        }
        match (name.as_str(), &mut *known, value) {
            ("properties", Value::Object(known), Value::Object(further)) => {
                for (name, schema) in further {
                    let both = match known.get(name) {
                        Some(known) if known != schema => {
                            serde_json::json!({ "allOf": [known, schema] })
                        }
                        _ => schema.clone(),
                    };
                    known.insert(name.clone(), both);
                }
            }
            ("required", Value::Array(known), Value::Array(further)) => {
                known.extend(further.iter().cloned());
            }
            ("type", known, further) => {
                let both: Vec<Value> = all_types(known)
                    .into_iter()
                    .filter(|it| all_types(further).contains(it))
                    .collect();
                *known = Value::Array(both);
                if known.as_array().is_some_and(Vec::is_empty) {
                    return None;
                }
            }
            ("const", ..) => return None,
            (name, known, value) if name.starts_with("min") || name == "exclusiveMinimum" => {
                if value.as_f64() > known.as_f64() {
                    *known = value.clone();
                }
            }
            (name, known, value) if name.starts_with("max") || name == "exclusiveMaximum" => {
                if value.as_f64() < known.as_f64() {
                    *known = value.clone();
                }
            }
            // Both hold: what differs from either of them is no more known to be the same.
            (_, known, value) => *known = serde_json::json!({ "allOf": [&*known, value] }),
        }
    }
    Some(merged)
}

fn all_types(types: &Value) -> Vec<Value> {
    match types {
        Value::Array(types) => types.clone(),
        one => vec![one.clone()],
    }
}

/// One schema for each value of an enumeration, or for each type.
fn split(schema: &Schema, alternatives: &mut Vec<Schema>) {
    let one = |value: &Value| Schema::from_iter([("const".to_owned(), value.clone())]);
    if let Some(value) = schema.get("const") {
        return alternatives.push(one(value));
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return alternatives.extend(values.iter().map(one));
    }
    let Some(types) = schema.get("type").map(all_types) else {
        return alternatives.push(schema.clone());
    };
    for kind in types {
        let mut schema = schema.clone();
        schema.insert("type".to_owned(), kind);
        alternatives.push(schema);
    }
}

/// The type of a flat schema. `None`: any.
pub(super) fn type_of(schema: &Schema) -> Option<&str> {
    match schema.get("const") {
        Some(Value::Null) => Some("null"),
        Some(Value::Bool(_)) => Some("boolean"),
        Some(Value::Number(number)) if number.is_f64() => Some("number"),
        Some(Value::Number(_)) => Some("integer"),
        Some(Value::String(_)) => Some("string"),
        Some(Value::Array(_)) => Some("array"),
        Some(Value::Object(_)) => Some("object"),
        None => schema.get("type")?.as_str(),
    }
}

/// The keywords of a value that is an object.
pub(super) fn as_schema(value: &Value) -> Option<&Schema> {
    value.as_object()
}
