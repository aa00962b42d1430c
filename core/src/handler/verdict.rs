use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::ErrorClass;
use crate::validation::Fault;
use crate::{BoxError, Error, ErrorKind};

/// What a handler decides about an event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It is done.
    Ack,
    /// Try again, after a pause. Counts as an attempt, like an error.
    Retry {
        /// The pause. `None`: the backoff of the subscription's retry settings.
        after: Option<Duration>,
    },
    /// It can't be handled: put it away as a dead letter.
    DeadLetter {
        /// Why, for whoever looks at the dead letter.
        reason: String,
    },
    /// It is not wanted: acknowledge it, and count it as dropped.
    Drop,
}

/// What came of a handler: a verdict, or a failure that the retry settings decide about.
pub type Handled = Result<Verdict, Failure>;

/// What a handler may return.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not turn into a verdict",
    label = "not a verdict",
    note = "return `()`, a `Verdict`, or a `Result` of these whose error is an error type"
)]
pub trait IntoVerdict {
    /// The verdict, or the failure.
    ///
    /// # Errors
    ///
    /// The handler's own error.
    fn into_verdict(self) -> Handled;
}

impl IntoVerdict for () {
    fn into_verdict(self) -> Handled {
        Ok(Verdict::Ack)
    }
}

impl IntoVerdict for Verdict {
    fn into_verdict(self) -> Handled {
        Ok(self)
    }
}

impl<T: IntoVerdict, E: Into<BoxError>> IntoVerdict for Result<T, E> {
    fn into_verdict(self) -> Handled {
        match self {
            Ok(value) => value.into_verdict(),
            Err(error) => Err(Failure::new(error)),
        }
    }
}

/// Why a handler failed, and whether trying again makes sense.
#[derive(Debug, Clone)]
pub struct Failure {
    error: Arc<dyn StdError + Send + Sync + 'static>,
    kind: FailureKind,
    after: Option<Duration>,
}

/// What sort of failure put an event away, or lets it be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The handler's error, worth another try.
    Transient,
    /// The handler's error, which trying again won't mend.
    Permanent,
    /// The handler panicked. Worth another try.
    Panic,
    /// The handler took longer than `handler_timeout`. Worth another try.
    Timeout,
    /// The handler's verdict said so.
    Verdict,
    /// It is no event.
    Undecodable,
    /// No handler takes it.
    Unhandled,
    /// The processes that handled it ended without an outcome.
    ProcessEnded,
    /// It is not what its contract says.
    Invalid,
}

impl FailureKind {
    const NAMES: [(Self, &'static str); 9] = [
        (Self::Transient, "transient"),
        (Self::Permanent, "permanent"),
        (Self::Panic, "panic"),
        (Self::Timeout, "timeout"),
        (Self::Verdict, "verdict"),
        (Self::Undecodable, "undecodable"),
        (Self::Unhandled, "unhandled"),
        (Self::ProcessEnded, "process-ended"),
        (Self::Invalid, "invalid"),
    ];

    /// Its name in headers.
    pub fn as_str(self) -> &'static str {
        let known = Self::NAMES.iter().find(|(kind, _)| *kind == self);
        known.map_or("", |(_, name)| name)
    }

    /// The one of a name.
    pub fn parse(name: &str) -> Option<Self> {
        let known = Self::NAMES.iter().find(|(_, known)| *known == name);
        known.map(|(kind, _)| *kind)
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Failure {
    /// A handler's error. Permanent if it is a [`Permanent`], or an [`Error`] of polybus that is
    /// not [retryable](Error::retryable); else worth another try.
    pub fn new(error: impl Into<BoxError>) -> Self {
        let error = error.into();
        let permanent = error.is::<Permanent>()
            || error
                .downcast_ref::<Error>()
                .is_some_and(|error| !error.retryable());
        let kind = if permanent {
            FailureKind::Permanent
        } else {
            FailureKind::Transient
        };
        Self::of_kind(error, kind)
    }

    /// An error that trying again won't mend.
    pub fn permanent(error: impl Into<BoxError>) -> Self {
        Self::of_kind(error.into(), FailureKind::Permanent)
    }

    fn of_kind(error: BoxError, kind: FailureKind) -> Self {
        let error = Arc::from(error);
        let after = None;
        Self { error, kind, after }
    }

    /// An event that was refused before its handler saw it.
    pub(crate) fn refused(error: Error) -> Self {
        let kind = match error.report() {
            Some(_) => FailureKind::Invalid,
            None => FailureKind::Permanent,
        };
        Self::of_kind(error.into(), kind)
    }

    /// A panic, which counts as an error worth another try.
    pub(crate) fn from_panic(panic: &(dyn Any + Send)) -> Self {
        let text = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        let error = format!("the handler panicked: {text}").into();
        Self::of_kind(error, FailureKind::Panic)
    }

    /// A handler that took longer than it may, which counts as an error worth another try.
    pub(crate) fn late(limit: Duration) -> Self {
        let message = format!("the handler did not finish within {limit:?}");
        let error = Error::new(ErrorKind::Timeout, message);
        Self::of_kind(error.into(), FailureKind::Timeout)
    }

    /// Whether trying again makes no sense.
    pub fn is_permanent(&self) -> bool {
        matches!(self.kind, FailureKind::Permanent | FailureKind::Invalid)
    }

    /// What is wrong with the event, if that is why.
    pub(crate) fn faults(&self) -> &[Fault] {
        let error = self.error.downcast_ref::<Error>();
        let report = error.and_then(Error::report);
        report.map_or(&[], |report| &report.faults)
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// The pause before the next attempt, if its error asked for one.
    pub fn after(&self) -> Option<Duration> {
        self.after
    }

    /// The same failure, as a classifier sees it.
    #[must_use]
    pub(crate) fn of_class(mut self, class: ErrorClass) -> Self {
        (self.kind, self.after) = match class {
            ErrorClass::Transient => (FailureKind::Transient, None),
            ErrorClass::TransientFor(pause) => (FailureKind::Transient, Some(pause)),
            ErrorClass::Permanent => (FailureKind::Permanent, None),
        };
        self
    }

    /// The error.
    pub fn error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.error
    }
}

impl fmt::Display for Failure {
    /// The error and its causes, in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        let mut cause = self.error.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Marks an error as one that trying again won't mend: the event becomes a dead letter at once.
///
/// ```
/// use polybus_core::handler::Permanent;
///
/// async fn charge() -> Result<(), polybus_core::BoxError> {
///     let amount: u32 = "seven".parse().map_err(Permanent::new)?;
/// #   let _ = amount;
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Permanent(BoxError);

impl Permanent {
    /// Marks an error.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for Permanent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Permanent {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_worth_another_try_unless_it_says_otherwise() {
        let permanent = |error: BoxError| Failure::new(error).is_permanent();
        assert!(!permanent("late".into()));
        assert!(permanent(Permanent::new("wrong").into()));
        assert!(permanent(Error::new(ErrorKind::Decode, "garbage").into()));
        assert!(!permanent(Error::new(ErrorKind::Connect, "down").into()));
    }

    #[test]
    fn a_failure_prints_its_causes() {
        let inner = Error::new(ErrorKind::Connect, "down");
        let outer = Error::new(ErrorKind::Handler, "no mail sent").with_source(inner);
        assert_eq!(Failure::new(outer).to_string(), "no mail sent: down");
    }

    #[test]
    fn unit_and_ok_acknowledge() {
        assert_eq!(().into_verdict().unwrap(), Verdict::Ack);
        assert_eq!(Ok::<(), BoxError>(()).into_verdict().unwrap(), Verdict::Ack);
        assert_eq!(
            Ok::<_, BoxError>(Verdict::Drop).into_verdict().unwrap(),
            Verdict::Drop
        );
    }
}
