use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use super::{Failure, FailureKind};

/// What a classifier says of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// It may go away: the event is tried again.
    Transient,
    /// Trying again won't mend it: the event becomes a dead letter at once.
    Permanent,
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
                Some(ErrorClass::Transient) => return failure.with_kind(FailureKind::Transient),
                Some(ErrorClass::Permanent) => return failure.with_kind(FailureKind::Permanent),
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
    fn a_panic_is_no_error_to_classify() {
        let mut classifiers = Classifiers::default();
        classifiers.add(|_: &Error| ErrorClass::Permanent);
        let late = Failure::late(std::time::Duration::from_secs(1));
        assert_eq!(classifiers.classify(late).kind(), FailureKind::Timeout);
    }
}
