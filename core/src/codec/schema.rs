//! Schemas of data, as registries keep them.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::fmt;
#[cfg(feature = "avro")]
use std::sync::OnceLock;
use std::sync::{PoisonError, RwLock};

use crate::EventData;

/// The language that a schema is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SchemaFormat {
    /// An Avro schema in JSON.
    Avro,
    /// A `.proto` file.
    Protobuf,
    /// A JSON Schema.
    Json,
}

/// The schema of data.
pub struct DataSchema {
    format: SchemaFormat,
    text: String,
    /// Which message of a `.proto` file, by its index among its neighbours, from the outermost inwards.
    message: Vec<u32>,
    /// The full name of the message.
    message_name: Option<String>,
    #[cfg(feature = "avro")]
    avro: OnceLock<Result<super::avro::Compiled, String>>,
}

impl DataSchema {
    /// A schema by its text.
    pub fn new(format: SchemaFormat, text: impl Into<String>) -> Self {
        Self {
            format,
            text: text.into(),
            message: vec![0],
            message_name: None,
            #[cfg(feature = "avro")]
            avro: OnceLock::new(),
        }
    }

    /// A message of a `.proto` file, named as there, with dots before the messages inside of others. The
    /// first one of the file if it has none of that name: a registry refuses what is wrong.
    pub fn of_message(file: impl Into<String>, name: &str) -> Self {
        let mut schema = Self::new(SchemaFormat::Protobuf, file);
        if let Some(message) = find_message(&schema.text, name) {
            schema.message = message;
        }
        let words = words(&schema.text);
        let package = words.iter().position(|word| *word == "package");
        let package: String = package.map_or(String::new(), |at| {
            let path = words[at + 1..].iter().take_while(|word| **word != ";");
            path.copied().chain(["."]).collect()
        });
        schema.message_name = Some(package + name);
        schema
    }

    /// The JSON Schema of an event type of a Rust type, as a registry is told it. Made once.
    pub(crate) fn of_json<T: EventData>(name: &str) -> Option<&'static Self> {
        // Those of a type are as many as its event types: what is kept for good is bounded by the program.
        static KNOWN: RwLock<BTreeMap<(TypeId, &'static str), &'static DataSchema>> =
            RwLock::new(BTreeMap::new());
        let info = T::TYPES.iter().find(|info| info.name == name)?;
        let key = (TypeId::of::<T>(), info.name);
        // A panic can't leave the map half changed.
        let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(schema) = known.get(&key) {
            return Some(schema);
        }
        drop(known);
        let json = T::schema_of(name)?;
        let mut schema = Self::new(SchemaFormat::Json, json.to_string());
        schema.message_name = json["title"].as_str().map(str::to_owned);
        let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
        Some(
            known
                .entry(key)
                .or_insert_with(|| Box::leak(Box::new(schema))),
        )
    }

    /// The language it is written in.
    pub fn format(&self) -> SchemaFormat {
        self.format
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Which message of a `.proto` file, by its index among its neighbours, from the outermost inwards.
    pub fn message(&self) -> &[u32] {
        &self.message
    }

    /// The full name of the record or message, or the title of a JSON Schema, if it has one.
    pub fn name(&self) -> Option<&str> {
        match self.format {
            #[cfg(feature = "avro")]
            SchemaFormat::Avro => self.avro().ok()?.name.as_deref(),
            _ => self.message_name.as_deref(),
        }
    }

    /// The schema, compiled the first time that it is asked for.
    #[cfg(feature = "avro")]
    pub(super) fn avro(&self) -> Result<&super::avro::Compiled, crate::BoxError> {
        let compiled = self
            .avro
            .get_or_init(|| super::avro::Compiled::parse(&self.text));
        compiled.as_ref().map_err(|error| error.clone().into())
    }
}

impl fmt::Debug for DataSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataSchema")
            .field("format", &self.format)
            .field("bytes", &self.text.len())
            .finish_non_exhaustive()
    }
}

/// The place of a message in a `.proto` file. What stands in comments and strings does not count.
fn find_message(file: &str, name: &str) -> Option<Vec<u32>> {
    let wanted: Vec<&str> = name.split('.').collect();
    // Of each open brace: the message's name and index, if it is one, and how many messages it holds.
    let mut open: Vec<(Option<(&str, u32)>, u32)> = vec![(None, 0)];
    let words = words(file);
    let mut words = words.iter().copied().peekable();
    let mut declared = None;
    while let Some(word) = words.next() {
        match word {
            "message" => declared = words.peek().copied(),
            "{" => {
                let message = declared.take().map(|name| {
                    let outer = open.last_mut().expect("the file itself stays open");
                    outer.1 += 1;
                    (name, outer.1 - 1)
                });
                open.push((message, 0));
                let path: Option<Vec<_>> = open[1..].iter().map(|(message, _)| *message).collect();
                if let Some(path) = path
                    && path
                        .iter()
                        .map(|(name, _)| *name)
                        .eq(wanted.iter().copied())
                {
                    return Some(path.into_iter().map(|(_, index)| index).collect());
                }
            }
            "}" if open.len() > 1 => drop(open.pop()),
            ";" => declared = None,
            _ => {}
        }
    }
    None
}

/// Words and punctuation, without comments and strings.
fn words(file: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = file;
    while let Some(first) = rest.chars().next() {
        let end = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if matches!(first, '"' | '\'') {
            string_end(rest, first)
        } else if first.is_alphanumeric() || first == '_' {
            let inside = |letter: char| letter.is_alphanumeric() || letter == '_';
            let end = rest.find(|letter| !inside(letter)).unwrap_or(rest.len());
            words.push(&rest[..end]);
            end
        } else {
            if !first.is_whitespace() {
                words.push(&rest[..first.len_utf8()]);
            }
            first.len_utf8()
        };
        rest = &rest[end..];
    }
    words
}

/// Where a string ends that begins with a quote.
fn string_end(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}
