//! Reading what the server answers, without trusting its shape.

use std::fmt;

use polybus_core::transport::Position;

use crate::client::Value;

/// The id of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct EntryId {
    pub(crate) milliseconds: u64,
    pub(crate) sequence: u64,
}

impl EntryId {
    pub(crate) const fn new(milliseconds: u64, sequence: u64) -> Self {
        Self {
            milliseconds,
            sequence,
        }
    }

    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let middle = text.iter().position(|byte| *byte == b'-')?;
        let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse().ok();
        Some(Self {
            milliseconds: number(&text[..middle])?,
            sequence: number(&text[middle + 1..])?,
        })
    }

    pub(crate) fn position(self, partition: u32) -> Position {
        Position::with_sequence(partition, self.milliseconds, self.sequence)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.milliseconds, self.sequence)
    }
}

/// An entry as it came. A deleted one has no fields.
pub(crate) struct Entry {
    pub(crate) id: EntryId,
    pub(crate) fields: Option<Vec<Value>>,
}

/// The elements of an array.
pub(crate) fn array(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) | Value::Set(items) => Some(items),
        _ => None,
    }
}

pub(crate) fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

pub(crate) fn text(value: &Value) -> Option<String> {
    Some(String::from_utf8_lossy(bytes(value)?).into_owned())
}

pub(crate) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        other => std::str::from_utf8(bytes(other)?).ok()?.parse().ok(),
    }
}

pub(crate) fn entry_id(value: &Value) -> Option<EntryId> {
    EntryId::parse(bytes(value)?)
}

/// `[id, [field, value, ...]]`
pub(crate) fn entry(value: Value) -> Option<Entry> {
    let mut items = array(value)?.into_iter();
    let id = entry_id(&items.next()?)?;
    let fields = array(items.next()?);
    Some(Entry { id, fields })
}

/// A value by its name in a flat list of names and values, or in a map.
pub(crate) fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let named = |candidate: &Value| bytes(candidate) == Some(name.as_bytes());
    match value {
        Value::Map(pairs) => pairs
            .iter()
            .find(|(known, _)| named(known))
            .map(|(_, value)| value),
        Value::Array(items) => items
            .chunks_exact(2)
            .find(|pair| named(&pair[0]))
            .map(|pair| &pair[1]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_and_written() {
        for (text, id) in [
            ("0-0", Some(EntryId::new(0, 0))),
            (
                "1763712339000-12",
                Some(EntryId::new(1_763_712_339_000, 12)),
            ),
            (
                "18446744073709551615-18446744073709551615",
                Some(EntryId::new(u64::MAX, u64::MAX)),
            ),
            ("", None),
            ("1", None),
            ("-", None),
            ("1-", None),
            ("1-2-3", None),
            ("x-1", None),
            ("18446744073709551616-0", None),
        ] {
            assert_eq!(EntryId::parse(text.as_bytes()), id, "{text}");
            if let Some(id) = id {
                assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn an_answer_of_another_shape_is_no_entry() {
        let id = || Value::BulkString(b"1-0".to_vec());
        assert!(entry(Value::Array(vec![id(), Value::Array(vec![])])).is_some());
        assert!(
            entry(Value::Array(vec![id(), Value::Nil]))
                .unwrap()
                .fields
                .is_none()
        );
        assert!(entry(Value::Array(vec![id()])).is_none());
        assert!(entry(Value::Array(vec![Value::Nil, Value::Nil])).is_none());
        assert!(entry(Value::Nil).is_none());
        assert!(entry(id()).is_none());
    }
}
