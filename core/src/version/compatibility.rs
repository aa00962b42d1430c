//! Whether data of one schema can be read by another.

mod compare;
mod expand;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::Value;

use compare::breaks;

/// Which way a change of a schema must leave open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Compatibility {
    /// What reads the new schema reads data of the old one: consumers are updated first.
    Backward,
    /// What reads the old schema reads data of the new one: producers are updated first.
    Forward,
    /// Both. What versions of one major promise each other, and the default.
    #[default]
    Full,
}

impl fmt::Display for Compatibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backward => "backward",
            Self::Forward => "forward",
            Self::Full => "full",
        })
    }
}

/// One difference of two schemas that breaks a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Break {
    /// Where in the data, as a JSON pointer; `*` is every element of an array, and every property
    /// without a name of its own.
    pub pointer: String,
    /// What data the reader does not take.
    pub message: String,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pointer.as_str() {
            "" => f.write_str(&self.message),
            pointer => write!(f, "{pointer}: {}", self.message),
        }
    }
}

/// What became of the readers when a schema changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changes {
    /// Where what reads the new schema fails on data of the old one.
    pub backward: Vec<Break>,
    /// Where what reads the old schema fails on data of the new one.
    pub forward: Vec<Break>,
}

impl Changes {
    /// Whether nothing breaks that way.
    pub fn are(&self, compatibility: Compatibility) -> bool {
        let (backward, forward) = (self.backward.is_empty(), self.forward.is_empty());
        match compatibility {
            Compatibility::Backward => backward,
            Compatibility::Forward => forward,
            Compatibility::Full => backward && forward,
        }
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut part = |what: &str, breaks: &[Break]| {
            if breaks.is_empty() {
                return writeln!(f, "{what}: yes");
            }
            writeln!(f, "{what}: no")?;
            breaks.iter().try_for_each(|it| writeln!(f, "  {it}"))
        };
        part("backward (new readers, old data)", &self.backward)?;
        part("forward (old readers, new data)", &self.forward)
    }
}

/// Compares two JSON Schemas of the data of an event type.
///
/// A schema is taken for what its writers write: properties that it does not name are not written,
/// though they may be read. So a property can be added and, where it is not required, removed. What
/// can't be judged, as two patterns of text that differ, counts as a break. Definitions of the same
/// schema are followed (`$ref`), others are not. `title`, `description`, `default`, `examples` and
/// `format` on numbers say nothing about what is valid and may change.
///
/// ```
/// use polybus_core::version::{Compatibility, compare_schemas};
/// use serde_json::json;
///
/// let old = json!({ "type": "object", "properties": { "email": { "type": "string" } },
///     "required": ["email"] });
/// let new = json!({ "type": "object", "properties": { "email": { "type": "string" },
///     "age": { "type": "integer" } }, "required": ["email", "age"] });
/// let changes = compare_schemas(&old, &new);
/// assert!(changes.are(Compatibility::Forward), "who knows no age passes over it");
/// assert!(!changes.are(Compatibility::Backward));
/// assert_eq!(changes.backward[0].to_string(), "/age: is required, and may be missing");
/// ```
pub fn compare_schemas(old: &Value, new: &Value) -> Changes {
    Changes {
        backward: breaks(old, new),
        forward: breaks(new, old),
    }
}
