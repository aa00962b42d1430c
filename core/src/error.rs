//! The one error type of polybus.

use std::error::Error as StdError;
use std::fmt;

use crate::validation::{Fault, Report};
use crate::{Event, Text};

/// A boxed error of any type, as users' handlers return it.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// The result type of polybus.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where, whether it took effect, and what to do about it.
///
/// One word wide: a `Result<(), Error>` costs no more than a pointer.
///
/// `Display` prints what happened in its first line and then, indented by two spaces, one
/// line for each note and for the advice. The cause is in [`source`](StdError::source).
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    effect: Effect,
    retryable: bool,
    message: String,
    operation: Option<&'static str>,
    transport: Option<Text>,
    topic: Option<Text>,
    notes: Vec<String>,
    source: Option<BoxError>,
    report: Option<Box<Report>>,
}

/// The class of an [`Error`]: what a program may branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The config file or a setting made in code is wrong.
    Config,
    /// A pattern of event types is malformed.
    InvalidPattern,
    /// A transport's `kind` is not registered.
    UnknownTransport,
    /// The transport's `kind`, the codec or the schema registry exists, but its cargo feature is not
    /// compiled in.
    MissingFeature,
    /// No route takes the event's type.
    NoRoute,
    /// No route can ever reach a handler.
    UnreachableHandler,
    /// An attribute of an event is missing or malformed, or the event is not what its contract says.
    InvalidEvent,
    /// An event, or a transaction, is over a size limit.
    TooLarge,
    /// An event of a transaction travels on another transport than the transaction.
    MixedTransports,
    /// A value could not be written as bytes.
    Encode,
    /// Bytes could not be read as a value.
    Decode,
    /// The server can't be reached.
    Connect,
    /// The server refused who we are or what we may do.
    Unauthorized,
    /// The topic does not exist.
    TopicNotFound,
    /// A bounded queue, or the server's memory, is full.
    Full,
    /// A circuit breaker is open: the transport kept failing and is not asked for now.
    CircuitOpen,
    /// A deadline passed.
    Timeout,
    /// The bus, a publisher or a subscription is closed.
    Closed,
    /// An acknowledgement came after the event had been given to another member.
    Stale,
    /// What was to be changed is at work: a group with members.
    InUse,
    /// What was asked would delete events or can't be undone, and was not done.
    Refused,
    /// The transport can't do what was asked.
    Unsupported,
    /// The server or its client failed in another way.
    Transport,
    /// A handler failed.
    Handler,
}

impl ErrorKind {
    /// Whether an error of this kind usually goes away by itself.
    fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Connect | Self::Timeout | Self::Full | Self::Transport | Self::CircuitOpen
        )
    }
}

/// Whether an operation that failed left something behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Certainly nothing happened.
    NotApplied,
    /// It may have happened: a timeout, or a cut after sending.
    Unknown,
}

impl Error {
    /// An error without effect; retryable if errors of its kind usually go away by themselves
    /// ([`Connect`](ErrorKind::Connect), [`Timeout`](ErrorKind::Timeout),
    /// [`Full`](ErrorKind::Full), [`Transport`](ErrorKind::Transport),
    /// [`CircuitOpen`](ErrorKind::CircuitOpen)).
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            effect: Effect::NotApplied,
            retryable: kind.is_transient(),
            message: message.into(),
            operation: None,
            transport: None,
            topic: None,
            notes: Vec::new(),
            source: None,
            report: None,
        }))
    }

    /// The same error once more, for a second holder: its cause is a note.
    pub(crate) fn duplicate(&self) -> Self {
        let inner = &self.0;
        let cause = inner.source.as_ref().map(|cause| format!("cause: {cause}"));
        Self(Box::new(Inner {
            kind: inner.kind,
            effect: inner.effect,
            retryable: inner.retryable,
            message: inner.message.clone(),
            operation: inner.operation,
            transport: inner.transport.clone(),
            topic: inner.topic.clone(),
            notes: inner.notes.iter().cloned().chain(cause).collect(),
            source: None,
            report: inner.report.clone(),
        }))
    }

    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the operation may have taken effect all the same.
    pub fn effect(&self) -> Effect {
        self.0.effect
    }

    /// Whether the same call may succeed later, unchanged.
    pub fn retryable(&self) -> bool {
        self.0.retryable
    }

    /// What happened, in one line, without context, notes and cause.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The operation that failed, as `publish` or `subscribe`.
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// The transport it happened on, by its name in the config.
    pub fn transport(&self) -> Option<&str> {
        self.0.transport.as_deref()
    }

    /// The topic it happened on.
    pub fn topic(&self) -> Option<&str> {
        self.0.topic.as_deref()
    }

    /// Where it happened and what to do about it, one line each.
    pub fn notes(&self) -> &[String] {
        &self.0.notes
    }

    /// What a check of the event found, if the error is that it is not valid. The notes list its faults
    /// too.
    pub fn report(&self) -> Option<&Report> {
        self.0.report.as_deref()
    }

    /// Sets whether the operation may have taken effect.
    #[must_use]
    pub fn with_effect(mut self, effect: Effect) -> Self {
        self.0.effect = effect;
        self
    }

    /// Sets whether the same call may succeed later.
    #[must_use]
    pub fn with_retryable(mut self, retryable: bool) -> Self {
        self.0.retryable = retryable;
        self
    }

    /// Names the operation.
    #[must_use]
    pub fn with_operation(mut self, operation: &'static str) -> Self {
        self.0.operation = Some(operation);
        self
    }

    /// Names the transport.
    #[must_use]
    pub fn with_transport(mut self, transport: impl Into<Text>) -> Self {
        self.0.transport = Some(transport.into());
        self
    }

    /// Names the topic.
    #[must_use]
    pub fn with_topic(mut self, topic: impl Into<Text>) -> Self {
        self.0.topic = Some(topic.into());
        self
    }

    /// Adds a line: where it happened, or what to do about it.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.0.notes.push(note.into());
        self
    }

    /// An event in which something is wrong, for rules of a program's own that say where and what.
    pub fn invalid(event: &Event, faults: Vec<Fault>) -> Self {
        Report::of(event, faults).into_error("validate")
    }

    #[must_use]
    pub(crate) fn with_report(mut self, report: Report) -> Self {
        self.0.report = Some(Box::new(report));
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        f.write_str(&inner.message)?;
        let mut separator = " (";
        let mut part = |f: &mut fmt::Formatter<'_>, name: &str, value: &str| {
            write!(f, "{separator}{name} `{value}`")?;
            separator = ", ";
            Ok(())
        };
        if let Some(operation) = inner.operation {
            part(f, "operation", operation)?;
        }
        if let Some(transport) = &inner.transport {
            part(f, "transport", transport)?;
        }
        if let Some(topic) = &inner.topic {
            part(f, "topic", topic)?;
        }
        if separator == ", " {
            f.write_str(")")?;
        }
        inner
            .notes
            .iter()
            .try_for_each(|note| write!(f, "\n  {note}"))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, "\n  caused by: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_word_wide() {
        assert_eq!(size_of::<Result<(), Error>>(), size_of::<usize>());
    }

    #[test]
    fn display_says_what_where_and_what_to_do() {
        let error = Error::new(ErrorKind::TopicNotFound, "the topic does not exist")
            .with_operation("publish")
            .with_transport("kafka")
            .with_topic("deals")
            .with_note("create it, or call `topics().ensure()`");
        assert_eq!(
            error.to_string(),
            "the topic does not exist (operation `publish`, transport `kafka`, topic `deals`)\
             \n  create it, or call `topics().ensure()`"
        );
    }

    #[test]
    fn only_transient_kinds_are_retryable_by_themselves() {
        assert!(Error::new(ErrorKind::Timeout, "late").retryable());
        assert!(!Error::new(ErrorKind::Config, "wrong").retryable());
        assert!(
            !Error::new(ErrorKind::Timeout, "late")
                .with_retryable(false)
                .retryable()
        );
    }
}
