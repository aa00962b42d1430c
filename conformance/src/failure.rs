//! Why a case failed, and where in the case.

use std::fmt;
use std::panic::Location;

/// What a case and its steps return.
pub(crate) type Check<T = ()> = Result<T, Failure>;

/// A broken promise, told so that the transport's author knows which.
#[derive(Debug, Clone)]
pub(crate) struct Failure(String);

impl Failure {
    /// A failure with the place in the suite that noticed it.
    #[track_caller]
    pub(crate) fn new(what: impl fmt::Display) -> Self {
        let place = Location::caller();
        let file = place.file().rsplit('/').next().unwrap_or_default();
        Self(format!("{what}\n  noticed at {file}:{}", place.line()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(&format!("\n  caused by: {error}"));
            cause = error.source();
        }
        Self::new(text)
    }
}

/// Returns a [`Failure`] unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::failure::Failure::new(format!($($message)+)));
        }
    };
}

pub(crate) use ensure;
