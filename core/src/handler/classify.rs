use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Failure, FailureKind};

/// What a classifier says of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// It may go away: the event is tried again, after the pause of the subscription's retry
    /// settings.
    Transient,
    /// It may go away: the event is tried again after this pause, as with
    /// [`Verdict::Retry`](super::Verdict::Retry).
    TransientFor(Duration),
    /// Trying again won't mend it: the event becomes a dead letter at once.
    Permanent,
}

/// An error type that knows itself which of its errors are worth another try. A subscription goes by
/// it that names the type with `retryable`; it is a [classifier](Classifiers) that stands with the
/// type.
///
/// ```
/// use std::time::Duration;
/// use polybus_core::handler::{Classifiers, ErrorClass, Retryable};
///
/// #[derive(Debug)]
/// enum MailError {
///     NoSuchAddress,
///     ServerIsDown,
///     TooManyMails,
/// }
/// # impl std::fmt::Display for MailError {
/// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("no mail") }
/// # }
/// # impl std::error::Error for MailError {}
///
/// impl Retryable for MailError {
///     fn class(&self) -> ErrorClass {
///         match self {
///             Self::NoSuchAddress => ErrorClass::Permanent, // a dead letter at once
///             Self::ServerIsDown => ErrorClass::Transient,
///             Self::TooManyMails => ErrorClass::TransientFor(Duration::from_secs(30)),
///         }
///     }
/// }
///
/// let mut classifiers = Classifiers::default();
/// classifiers.add(MailError::class); // what `bus.subscribe(..).retryable::<MailError>()` does
/// ```
pub trait Retryable: StdError {
    /// What becomes of the event that failed with this error.
    fn class(&self) -> ErrorClass;
}

type Classifier = dyn Fn(&(dyn StdError + 'static)) -> Option<ErrorClass> + Send + Sync;

/// Says which errors of handlers are worth another try, by their type. The first one that knows
/// the error, or one of its causes, decides; where none does, [`Failure::new`] has.
#[derive(Clone, Default)]
pub struct Classifiers(Vec<Arc<Classifier>>);

impl Classifiers {
    /// Adds a classifier for errors of a type.
    pub fn add<E: StdError + 'static>(
        &mut self,
        classify: impl Fn(&E) -> ErrorClass + Send + Sync + 'static,
    ) {
        self.0
            .push(Arc::new(move |error| error.downcast_ref().map(&classify)));
    }

    /// The failure as the classifiers see it.
    pub(crate) fn classify(&self, failure: Failure) -> Failure {
        let by_type = matches!(
            failure.kind(),
            FailureKind::Transient | FailureKind::Permanent
        );
        if self.0.is_empty() || !by_type {
            return failure;
        }
        let mut cause: Option<&(dyn StdError + 'static)> = Some(failure.error());
        while let Some(error) = cause {
            let mut classes = self.0.iter().filter_map(|classify| classify(error));
            match classes.next() {
                Some(class) => return failure.of_class(class),
                None => cause = error.source(),
            }
        }
        failure
    }
}

impl fmt::Debug for Classifiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Classifiers").field(&self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, ErrorKind};

    #[derive(Debug)]
    struct Caused(std::num::ParseIntError);

    impl fmt::Display for Caused {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("not charged")
        }
    }

    impl StdError for Caused {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    impl Retryable for Caused {
        fn class(&self) -> ErrorClass {
            ErrorClass::TransientFor(Duration::from_secs(7))
        }
    }

    fn by_kind() -> Classifiers {
        let mut classifiers = Classifiers::default();
        classifiers.add(|error: &std::num::ParseIntError| {
            let _ = error;
            ErrorClass::Permanent
        });
        classifiers.add(|error: &Error| match error.kind() {
            ErrorKind::Decode => ErrorClass::Transient,
            _ => ErrorClass::Permanent,
        });
        classifiers
    }

    #[test]
    fn the_type_of_an_error_or_of_its_cause_decides() {
        let number = || "x".parse::<u32>().unwrap_err();
        let decode = || Error::new(ErrorKind::Decode, "garbage");
        let permanent = |failure| by_kind().classify(failure).is_permanent();
        assert!(permanent(Failure::new(number())));
        assert!(permanent(Failure::new(Error::new(
            ErrorKind::Connect,
            "down"
        ))));
        assert!(!permanent(Failure::new(decode())));
        assert!(!permanent(Failure::new("late")), "nobody knows it");
        assert!(permanent(Failure::new(Caused(number()))));
    }

    #[test]
    fn an_error_type_may_ask_for_a_pause() {
        let mut classifiers = by_kind();
        classifiers.add(Caused::class);
        let caused = || Caused("x".parse::<u32>().unwrap_err());
        let failure = classifiers.classify(Failure::new(caused()));
        assert_eq!(failure.kind(), FailureKind::Transient);
        assert_eq!(failure.after(), Some(Duration::from_secs(7)));
        let other = classifiers.classify(Failure::new("late"));
        assert_eq!(other.after(), None);
    }

    #[test]
    fn a_panic_is_no_error_to_classify() {
        let mut classifiers = Classifiers::default();
        classifiers.add(|_: &Error| ErrorClass::Permanent);
        let late = Failure::late(std::time::Duration::from_secs(1));
        assert_eq!(classifiers.classify(late).kind(), FailureKind::Timeout);
    }
}
