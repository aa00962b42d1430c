use std::fmt;

use serde::{Deserialize, Serialize};

use crate::event::EventId;
use crate::{Effect, Error, ErrorKind, Event, Text};

/// How many faults a report lists; what has more is not mended one by one.
const MOST_FAULTS: usize = 100;

/// One thing that is wrong with an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Fault {
    /// Where, as a JSON pointer ([RFC 6901](https://www.rfc-editor.org/rfc/rfc6901)) into the event as
    /// structured mode writes it: `/data/email`, `/type`. Empty: the event as a whole.
    pub pointer: String,
    /// What is wrong there. Without the value, which may be private.
    pub message: String,
    /// The keyword of the JSON Schema that says so, as `format`. `None`: a rule says so, or the envelope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyword: Option<Text>,
}

/// The rules of types that say again what a keyword of the type's schema says: `#[garde(email)]` is `format`
/// in the schema that schemars derives. By how what garde says begins.
const SAID_TWICE: [(&str, &str); 11] = [
    ("format", "not a valid "),
    ("minLength", "length is lower than "),
    ("maxLength", "length is greater than "),
    ("minItems", "length is lower than "),
    ("maxItems", "length is greater than "),
    ("minProperties", "length is lower than "),
    ("maxProperties", "length is greater than "),
    ("minimum", "lower than "),
    ("maximum", "greater than "),
    ("pattern", "does not match pattern "),
    ("pattern", "does not contain "),
];

impl Fault {
    /// A fault at a place of the event.
    pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            message: message.into(),
            keyword: None,
        }
    }

    #[cfg(feature = "schema")]
    pub(crate) fn with_keyword(mut self, keyword: &str) -> Self {
        self.keyword = Some(keyword.into());
        self
    }

    /// Whether another fault is the same, though it may say it in other words.
    fn says_again(&self, other: &Self) -> bool {
        if self.pointer != other.pointer {
            return false;
        }
        let twice = |keyword: &Text| {
            let mut rules = SAID_TWICE.iter();
            rules.any(|(by, said)| keyword == by && self.message.starts_with(said))
        };
        self.message == other.message || other.keyword.as_ref().is_some_and(twice)
    }

    /// A fault at a place of the data: `/email`.
    pub fn in_data(pointer: impl fmt::Display, message: impl Into<String>) -> Self {
        Self::new(format!("/data{pointer}"), message)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pointer.as_str() {
            "" => f.write_str(&self.message),
            pointer => write!(f, "{pointer}: {}", self.message),
        }
    }
}

/// Adds what the rules of a type found to what was found before, unless that says it already.
pub(crate) fn add_own(faults: &mut Vec<Fault>, own: Vec<Fault>) {
    let before = faults.len();
    for fault in own {
        if !faults[..before].iter().any(|other| fault.says_again(other)) {
            faults.push(fault);
        }
    }
}

/// A path as Rust writes it, `items[0].name`, as a JSON pointer.
#[cfg(feature = "garde")]
pub(crate) fn pointer_of(path: &str) -> String {
    let parts = path.split(['.', '[']).filter(|part| !part.is_empty());
    let parts = parts.map(|part| part.trim_end_matches(']'));
    parts.map(|part| format!("/{part}")).collect()
}

/// What a check of an event found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The event's type.
    pub event_type: Text,
    /// The event's id.
    pub id: EventId,
    /// What is wrong with it, at most a hundred faults.
    pub faults: Vec<Fault>,
}

impl Report {
    /// What was found of an event.
    pub(crate) fn of(event: &Event, mut faults: Vec<Fault>) -> Self {
        faults.truncate(MOST_FAULTS);
        Self {
            event_type: event.event_type().into(),
            id: event.id().into(),
            faults,
        }
    }

    /// What is wrong with something that can't be made an event, or checked.
    pub(crate) fn of_none(event_type: Text, error: &Error) -> Self {
        let fault = Fault::new("", error.message());
        let faults = error.report().map(|report| report.faults.clone());
        Self {
            event_type,
            id: "".into(),
            faults: faults.unwrap_or_else(|| vec![fault]),
        }
    }

    /// Whether nothing is wrong.
    pub fn is_valid(&self) -> bool {
        self.faults.is_empty()
    }

    /// The report as a result.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`](ErrorKind::InvalidEvent), which lists every fault and has the
    /// [report](Error::report), if something is wrong.
    pub fn into_result(self) -> crate::Result<()> {
        match self.is_valid() {
            true => Ok(()),
            false => Err(self.into_error("validate")),
        }
    }

    pub(crate) fn into_error(self, operation: &'static str) -> Error {
        let what = "the event is not what its contract says";
        let mut error = Error::new(ErrorKind::InvalidEvent, what)
            .with_operation(operation)
            .with_effect(Effect::NotApplied)
            .with_note(format!(
                "event of type `{}`, id `{}`",
                self.event_type, self.id
            ));
        for fault in &self.faults {
            error = error.with_note(fault.to_string());
        }
        error.with_report(self)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` with id `{}`", self.event_type, self.id)?;
        if self.is_valid() {
            return f.write_str(" is valid");
        }
        f.write_str(" is not valid")?;
        let mut faults = self.faults.iter();
        faults.try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}
