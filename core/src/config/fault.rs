use std::fmt;

use serde::de::{Error as DeserializeError, Expected, Unexpected};

use super::Origin;
use super::tree::{Node, Path};
use crate::Error;

/// Whether messages may show the values that are wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// Yes: settings of the bus itself.
    Values,
    /// No: settings of a transport, among which are secrets.
    Nothing,
}

/// What is wrong with a value, and where once that is known.
#[derive(Debug)]
pub(super) struct Fault {
    reason: Reason,
    place: Option<Place>,
}

#[derive(Debug)]
enum Reason {
    /// What a reader of the value said. May quote the value.
    Said(String),
    Unexpected {
        found: &'static str,
        value: Option<String>,
        expected: String,
    },
    UnknownKey {
        key: String,
        known: &'static [&'static str],
    },
    UnknownVariant {
        found: String,
        known: &'static [&'static str],
    },
    Missing(&'static str),
    Twice(&'static str),
}

struct Place {
    path: String,
    origin: Origin,
    /// The texts at the place, which a message must not show if they may be secret.
    texts: Vec<String>,
    from_environment: bool,
}

impl Fault {
    /// Gives the fault its place, unless it has one: the innermost counts.
    pub(super) fn at(mut self, node: &Node, path: &Path<'_>) -> Self {
        self.place.get_or_insert_with(|| Place {
            path: path.to_string(),
            origin: node.origin.clone(),
            texts: node.texts().into_iter().map(str::to_owned).collect(),
            from_environment: node.environment.is_some(),
        });
        self
    }

    pub(super) fn into_error(self, shown: Shown) -> Error {
        let place = self.place.unwrap_or_default();
        let show = shown == Shown::Values && !place.from_environment;
        let mut path = place.path;
        if let Reason::Missing(key) = self.reason {
            path = Path::Key(&Path::Start(&path), key).to_string();
        }
        let text = match &self.reason {
            Reason::Said(text) if !show => hide(text, place.texts),
            reason => reason.describe(show),
        };
        // As `Error` prints itself: what happened, then a line for each note.
        let mut lines = text.lines();
        let what = lines.next().unwrap_or_default();
        let error = place.origin.error(&path, what);
        lines.fold(error, |error, note| error.with_note(note.trim()))
    }
}

impl Default for Place {
    fn default() -> Self {
        Self {
            path: String::new(),
            origin: Origin::Code,
            texts: Vec::new(),
            from_environment: false,
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("path", &self.path)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl Reason {
    fn describe(&self, show: bool) -> String {
        match self {
            Self::Said(text) => text.clone(),
            Self::Unexpected {
                found,
                value,
                expected,
            } => match value {
                Some(value) if show => format!("must be {expected}, not `{value}`"),
                _ => format!("must be {expected}, not {found}"),
            },
            Self::UnknownKey { key, known } => {
                format!("unknown key; {}{}", list(known), did_you_mean(key, known))
            }
            Self::UnknownVariant { found, known } if show => {
                let advice = did_you_mean(found, known);
                format!("`{found}` is unknown; {}{advice}", list(known))
            }
            Self::UnknownVariant { known, .. } => format!("the value is unknown; {}", list(known)),
            Self::Missing(_) => "is missing".to_owned(),
            Self::Twice(key) => format!("`{key}` is set twice"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason.describe(false))
    }
}

impl std::error::Error for Fault {}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            place: None,
        }
    }
}

impl DeserializeError for Fault {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Reason::Said(text.to_string()).into()
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Reason::unexpected(found, expected).into()
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Reason::unexpected(found, expected).into()
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Reason::Said(format!("has {length} entries, must be {expected}")).into()
    }

    fn unknown_variant(found: &str, known: &'static [&'static str]) -> Self {
        let found = found.to_owned();
        Reason::UnknownVariant { found, known }.into()
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        let key = key.to_owned();
        Reason::UnknownKey { key, known }.into()
    }

    fn missing_field(key: &'static str) -> Self {
        Reason::Missing(key).into()
    }

    fn duplicate_field(key: &'static str) -> Self {
        Reason::Twice(key).into()
    }
}

impl Reason {
    fn unexpected(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let (kind, value) = match found {
            Unexpected::Bool(value) => ("a truth value", Some(value.to_string())),
            Unexpected::Unsigned(number) => ("this number", Some(number.to_string())),
            Unexpected::Signed(number) => ("this number", Some(number.to_string())),
            Unexpected::Float(number) => ("this number", Some(number.to_string())),
            Unexpected::Char(text) => ("this text", Some(text.to_string())),
            Unexpected::Str(text) => ("this text", Some(text.to_owned())),
            Unexpected::Seq => ("an array", None),
            Unexpected::Map => ("a table", None),
            _ => ("a value of another type", None),
        };
        Self::Unexpected {
            found: kind,
            value,
            expected: plain(&expected.to_string()),
        }
    }
}

/// What serde and derived code call a type, in the words of a config file.
fn plain(expected: &str) -> String {
    let plain = match expected {
        "a boolean" => "`true` or `false`",
        "usize" | "u64" => "a whole number from 0 up",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a string" | "a borrowed string" => "a string",
        "a sequence" => "an array",
        "a map" => "a table",
        _ if expected.starts_with("struct ") => "a table",
        _ if expected.starts_with("enum ") => "a string",
        _ => expected,
    };
    plain.to_owned()
}

fn list(known: &[&str]) -> String {
    if known.is_empty() {
        "there are none here".to_owned()
    } else {
        format!("known: {}", known.join(", "))
    }
}

/// A line of advice if one of the known words is near.
fn did_you_mean(word: &str, known: &[&str]) -> String {
    nearest(word, known.iter().copied())
        .map(|near| format!("\ndid you mean `{near}`?"))
        .unwrap_or_default()
}

/// The word that `word` is most likely a misspelling of: at most a third of it differs.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let distances = known
        .into_iter()
        .map(|known| (strsim::osa_distance(&word, &known.to_lowercase()), known));
    let (distance, nearest) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance * 3 <= word.chars().count().max(3)).then_some(nearest)
}

/// Takes every text that may be secret out of what a reader said.
fn hide(said: &str, mut texts: Vec<String>) -> String {
    // The longest first: a shorter one may be part of it.
    texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
    texts
        .iter()
        .filter(|text| !text.trim().is_empty())
        .fold(said.to_owned(), |said, text| {
            let said = replace(&said, text);
            // As `{:?}` prints it.
            replace(&said, &text.escape_debug().to_string())
        })
}

/// Replaces a text, a short one only where it stands alone: `a` is part of most words.
fn replace(said: &str, text: &str) -> String {
    let within = |neighbour: Option<char>| neighbour.is_some_and(char::is_alphanumeric);
    let mut replaced = String::new();
    let mut rest = 0;
    for (start, text) in said.match_indices(text) {
        let end = start + text.len();
        let part = within(said[..start].chars().next_back()) || within(said[end..].chars().next());
        if text.len() >= 4 || !part {
            replaced.push_str(&said[rest..start]);
            replaced.push_str("...");
            rest = end;
        }
    }
    replaced + &said[rest..]
}
