use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

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
#[derive(Debug)]
pub struct Failure {
    error: BoxError,
    permanent: bool,
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
        Self { error, permanent }
    }

    /// An error that trying again won't mend.
    pub fn permanent(error: impl Into<BoxError>) -> Self {
        Self {
            error: error.into(),
            permanent: true,
        }
    }

    /// A panic, which counts as an error worth another try.
    pub(crate) fn from_panic(panic: &(dyn Any + Send)) -> Self {
        let text = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        Self {
            error: format!("the handler panicked: {text}").into(),
            permanent: false,
        }
    }

    /// A handler that took longer than it may, which counts as an error worth another try.
    pub(crate) fn late(limit: Duration) -> Self {
        let message = format!("the handler did not finish within {limit:?}");
        Self::new(Error::new(ErrorKind::Timeout, message))
    }

    /// The same failure, for another event that it concerns: its text without its type.
    pub(crate) fn copy(&self) -> Self {
        Self {
            error: self.to_string().into(),
            permanent: self.permanent,
        }
    }

    /// Whether trying again makes no sense.
    pub fn is_permanent(&self) -> bool {
        self.permanent
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
