//! TOML as a tree.

use std::ops::Range;

use ::toml::Spanned;
use ::toml::de::{DeTable, DeValue, Error as TomlError};

use super::Origin;
use super::tree::{Node, Table, Value};
use crate::{Error, Result, Text};

/// Reads a document. `file` is what its places are called.
///
/// # Errors
///
/// [`ErrorKind::Config`](crate::ErrorKind::Config) with file and line. The text of the line does
/// not show: it may be secret.
pub(super) fn read(text: &str, file: &str) -> Result<Node> {
    let reader = Reader::new(text, file);
    let document = DeTable::parse(text).map_err(|error| reader.error(&error))?;
    let table = reader.table(document.into_inner())?;
    Ok(Node::new(Value::Table(table), reader.origin_of_file()))
}

/// Reads the value of an environment variable as a TOML value. `None` if it is none.
pub(super) fn read_value(text: &str, origin: &Origin) -> Option<Value> {
    let value = DeValue::parse(text).ok()?;
    let reader = Reader {
        origins: Origins::One(origin),
    };
    Some(reader.node(value).ok()?.value)
}

struct Reader<'a> {
    origins: Origins<'a>,
}

/// What the places in a text are called.
enum Origins<'a> {
    /// All of them are this place.
    One(&'a Origin),
    /// Lines of a file.
    Lines { file: Text, line_ends: Vec<usize> },
}

impl<'a> Reader<'a> {
    fn new(text: &str, file: &str) -> Self {
        let ends = text.match_indices('\n').map(|(position, _)| position);
        Self {
            origins: Origins::Lines {
                file: file.into(),
                line_ends: ends.collect(),
            },
        }
    }

    fn origin(&self, span: &Range<usize>) -> Origin {
        match &self.origins {
            Origins::One(origin) => (*origin).clone(),
            Origins::Lines { file, line_ends } => {
                Origin::file(file, 1 + line_ends.partition_point(|end| *end < span.start))
            }
        }
    }

    fn origin_of_file(&self) -> Origin {
        match &self.origins {
            Origins::One(origin) => (*origin).clone(),
            Origins::Lines { file, .. } => Origin::file(file, 0),
        }
    }

    /// Takes the message alone: the error's own text and its `Debug` quote the line.
    fn error(&self, error: &TomlError) -> Error {
        let origin = error
            .span()
            .map_or_else(|| self.origin_of_file(), |span| self.origin(&span));
        origin.error("", &format!("not TOML: {}", error.message()))
    }

    fn table(&self, table: DeTable<'_>) -> Result<Table> {
        let mut entries: Vec<_> = table.into_iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut table = Table::default();
        for (key, value) in entries {
            let mut node = self.node(value)?;
            node.origin = self.origin(&key.span());
            table.push(key.get_ref().as_ref(), node);
        }
        Ok(table)
    }

    fn node(&self, value: Spanned<DeValue<'_>>) -> Result<Node> {
        let origin = self.origin(&value.span());
        let value = match value.into_inner() {
            DeValue::String(text) => Value::String(text.into_owned()),
            // Only text has a place for a point in time in every format.
            DeValue::Datetime(time) => Value::String(time.to_string()),
            DeValue::Boolean(value) => Value::Boolean(value),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map(Value::Integer)
                .map_err(|_| origin.error("", "a whole number is over 64 bits"))?,
            DeValue::Float(number) => number
                .as_str()
                .parse()
                .map(Value::Float)
                .map_err(|_| origin.error("", "a number can't be read"))?,
            DeValue::Array(values) => Value::Array(
                values
                    .into_iter()
                    .map(|value| self.node(value))
                    .collect::<Result<_>>()?,
            ),
            DeValue::Table(table) => Value::Table(self.table(table)?),
        };
        Ok(Node::new(value, origin))
    }
}
