//! Whether all that a writer's schema describes is valid by a reader's.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::Break;
use super::expand::{Schema, as_schema, expand, type_of};

/// How many breaks are listed.
const MOST_BREAKS: usize = 100;

/// Lower bounds: what a reader demands, and what a writer may write all the same.
const LEAST: [(&str, &str); 3] = [
    ("minLength", "may be shorter than"),
    ("minItems", "may have fewer elements than"),
    ("minProperties", "may have fewer properties than"),
];

/// Upper bounds.
const MOST: [(&str, &str); 3] = [
    ("maxLength", "may be longer than"),
    ("maxItems", "may have more elements than"),
    ("maxProperties", "may have more properties than"),
];

/// What a reader may demand that can only be compared for being the same.
const SAME: [&str; 15] = [
    "pattern",
    "format",
    "multipleOf",
    "uniqueItems",
    "contentEncoding",
    "contentMediaType",
    "contains",
    "propertyNames",
    "patternProperties",
    "dependentRequired",
    "dependentSchemas",
    "not",
    "if",
    "unevaluatedProperties",
    "unevaluatedItems",
];

/// What the reader does not take of what the writer writes.
pub(super) fn breaks(writer: &Value, reader: &Value) -> Vec<Break> {
    let mut comparison = Comparison {
        writer,
        reader,
        open: HashSet::new(),
    };
    let mut breaks = comparison.compare(writer, reader, "");
    let mut seen = HashSet::new();
    breaks.retain(|it| seen.insert((it.pointer.clone(), it.message.clone())));
    breaks.truncate(MOST_BREAKS);
    breaks
}

fn broken(at: &str, message: impl Into<String>) -> Vec<Break> {
    vec![Break {
        pointer: at.to_owned(),
        message: message.into(),
    }]
}

/// Two schemas with their definitions.
struct Comparison<'a> {
    writer: &'a Value,
    reader: &'a Value,
    /// Pairs that are being compared further out: schemas that refer to themselves end there.
    open: HashSet<(String, String)>,
}

impl Comparison<'_> {
    fn compare(&mut self, writer: &Value, reader: &Value, at: &str) -> Vec<Break> {
        if reader == &Value::Bool(true) || as_schema(reader).is_some_and(Map::is_empty) {
            return Vec::new();
        }
        let refers = |schema: &Value| schema.get("$ref").is_some();
        let pair =
            (refers(writer) || refers(reader)).then(|| (writer.to_string(), reader.to_string()));
        if let Some(pair) = &pair
            && !self.open.insert(pair.clone())
        {
            return Vec::new();
        }
        let expanded = expand(self.writer, writer)
            .and_then(|writer| Ok((writer, expand(self.reader, reader)?)));
        let breaks = match expanded {
            Err(why) => broken(at, why),
            Ok((writers, readers)) => {
                let taken = writers
                    .iter()
                    .map(|writer| self.taken(writer, &readers, at));
                taken.flatten().collect()
            }
        };
        if let Some(pair) = pair {
            self.open.remove(&pair);
        }
        breaks
    }

    /// What keeps one alternative of the writer from being taken by one of the reader's: of the one
    /// that is nearest to taking it.
    fn taken(&mut self, writer: &Schema, readers: &[Schema], at: &str) -> Vec<Break> {
        let mut nearest: Option<Vec<Break>> = None;
        for reader in readers {
            let breaks = self.alternative(writer, reader, at);
            if breaks.is_empty() {
                return breaks;
            }
            // That it is of another type says less than what is wrong within.
            let rank = |breaks: &[Break]| (breaks[0].pointer == at, breaks.len());
            if nearest.as_ref().is_none_or(|it| rank(&breaks) < rank(it)) {
                nearest = Some(breaks);
            }
        }
        nearest.unwrap_or_else(|| broken(at, "is not allowed"))
    }

    fn alternative(&mut self, writer: &Schema, reader: &Schema, at: &str) -> Vec<Break> {
        if let Some(why) = outside(writer, reader) {
            return broken(at, why);
        }
        if writer.contains_key("const") {
            return Vec::new();
        }
        let mut breaks = bounds(writer, reader, at);
        breaks.extend(self.properties(writer, reader, at));
        breaks.extend(self.elements(writer, reader, at));
        breaks
    }

    fn properties(&mut self, writer: &Schema, reader: &Schema, at: &str) -> Vec<Break> {
        let mut breaks = Vec::new();
        let (none, any) = (Map::new(), Value::Bool(true));
        let (written, read) = (named(writer, &none), named(reader, &none));
        let others = reader.get("additionalProperties").unwrap_or(&any);
        for (name, schema) in written {
            let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
            match read.get(name) {
                Some(taken) => breaks.extend(self.compare(schema, taken, &at)),
                None if others == &Value::Bool(false) => {
                    breaks.extend(broken(&at, "is a property that is not taken"));
                }
                None => breaks.extend(self.compare(schema, others, &at)),
            }
        }
        // Without the keyword, a writer writes only what its schema names.
        if let Some(further) = writer.get("additionalProperties") {
            breaks.extend(self.compare(further, others, &format!("{at}/*")));
        }
        let required = |schema: &Schema| -> HashSet<String> {
            let names = schema.get("required").and_then(Value::as_array);
            let names = names.into_iter().flatten().filter_map(Value::as_str);
            names.map(str::to_owned).collect()
        };
        let is_object = type_of(writer).is_none_or(|kind| kind == "object");
        let mut missing: Vec<_> = required(reader)
            .difference(&required(writer))
            .filter(|_| is_object)
            .cloned()
            .collect();
        missing.sort_unstable();
        for name in missing {
            let at = format!("{at}/{name}");
            breaks.extend(broken(&at, "is required, and may be missing"));
        }
        breaks
    }

    fn elements(&mut self, writer: &Schema, reader: &Schema, at: &str) -> Vec<Break> {
        if type_of(writer).is_some_and(|kind| kind != "array") {
            return Vec::new();
        }
        let any = Value::Bool(true);
        let first = |schema: &Schema| {
            let first = schema.get("prefixItems").and_then(Value::as_array);
            first.cloned().unwrap_or_default()
        };
        let (written, read) = (first(writer), first(reader));
        let rest = |schema: &Schema| schema.get("items").unwrap_or(&any).clone();
        let (written_rest, read_rest) = (rest(writer), rest(reader));
        let most = writer.get("maxItems").and_then(Value::as_u64);
        let most = most.map_or(usize::MAX, |most| {
            usize::try_from(most).unwrap_or(usize::MAX)
        });
        let firsts = written.len().max(read.len());
        let mut breaks = Vec::new();
        for index in 0..firsts.min(most) {
            let of = written.get(index).unwrap_or(&written_rest);
            let by = read.get(index).unwrap_or(&read_rest);
            breaks.extend(self.compare(of, by, &format!("{at}/{index}")));
        }
        if firsts < most {
            breaks.extend(self.compare(&written_rest, &read_rest, &format!("{at}/*")));
        }
        breaks
    }
}

fn named<'a>(schema: &'a Schema, none: &'a Schema) -> &'a Schema {
    let properties = schema.get("properties").and_then(as_schema);
    properties.unwrap_or(none)
}

/// Why the type or the value is one that the reader does not take.
fn outside(writer: &Schema, reader: &Schema) -> Option<String> {
    let wanted = match (reader.get("const"), type_of(reader)) {
        (Some(wanted), _) => {
            return (writer.get("const") != Some(wanted)).then(|| match writer.get("const") {
                Some(value) => format!("may be {value}, which is not taken"),
                None => format!("may be other than {wanted}"),
            });
        }
        (None, Some(wanted)) => wanted,
        (None, None) => return None,
    };
    let Some(found) = type_of(writer) else {
        return Some(format!("may be of any type, and not only {wanted}"));
    };
    let fits = found == wanted || (found == "integer" && wanted == "number");
    (!fits).then(|| format!("may be of type {found}, which is not taken"))
}

fn bounds(writer: &Schema, reader: &Schema, at: &str) -> Vec<Break> {
    let number = |schema: &Schema, name: &str| schema.get(name).and_then(Value::as_f64);
    let mut breaks = Vec::new();
    for (name, may) in LEAST {
        if let Some(least) = number(reader, name)
            && number(writer, name).unwrap_or(0.0) < least
        {
            breaks.extend(broken(at, format!("{may} {least}")));
        }
    }
    for (name, may) in MOST {
        if let Some(most) = number(reader, name)
            && number(writer, name).is_none_or(|it| it > most)
        {
            breaks.extend(broken(at, format!("{may} {most}")));
        }
    }
    let of_writer = |name: &str, open: &str| (number(writer, name), number(writer, open));
    let (least, above) = of_writer("minimum", "exclusiveMinimum");
    let (most, below) = of_writer("maximum", "exclusiveMaximum");
    let under = |bound: f64| !(least >= Some(bound) || above >= Some(bound));
    let over = |bound: f64| {
        let within = |it: Option<f64>| it.is_some_and(|it| it <= bound);
        !(within(most) || within(below))
    };
    let of_reader = |name: &str| number(reader, name);
    let checks = [
        (
            of_reader("minimum").filter(|it| under(*it)),
            "may be less than",
        ),
        (
            of_reader("exclusiveMinimum").filter(|it| under(*it) || least == Some(*it)),
            "may be no more than",
        ),
        (
            of_reader("maximum").filter(|it| over(*it)),
            "may be more than",
        ),
        (
            of_reader("exclusiveMaximum").filter(|it| over(*it) || most == Some(*it)),
            "may be no less than",
        ),
    ];
    for (bound, may) in checks {
        if let Some(bound) = bound {
            breaks.extend(broken(at, format!("{may} {bound}")));
        }
    }
    let is_number = matches!(type_of(writer), Some("integer" | "number"));
    for name in SAME {
        // Formats of numbers are names of Rust types.
        let silent = name == "format" && is_number;
        if let Some(demanded) = reader.get(name).filter(|_| !silent)
            && writer.get(name) != Some(demanded)
        {
            let what = format!("`{name}` is another, so that not everything may be taken");
            breaks.extend(broken(at, what));
        }
    }
    breaks
}
