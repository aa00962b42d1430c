//! Time stamps and durations.

use std::time::Duration;

use jiff::SignedDuration;

use crate::{Error, ErrorKind, Result};

/// A point in time with nanoseconds, in UTC. Prints and parses as RFC 3339.
pub use jiff::Timestamp;

/// Reads a duration as config files and method arguments spell it: `"200ms"`, `"30s"`,
/// `"1m 30s"`, `"7d"` (a day is 24 hours).
///
/// # Errors
///
/// [`ErrorKind::Config`] if `text` is no duration, or a negative one.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let days = |text: &str| {
        let (days, rest) = text.split_once('d')?;
        let days = days.trim().parse::<u64>().ok()?;
        Some((
            Duration::from_secs(days.checked_mul(86_400)?),
            rest.trim().to_owned(),
        ))
    };
    let (whole_days, rest) = days(text).unwrap_or((Duration::ZERO, text.trim().to_owned()));
    if rest.is_empty() && !whole_days.is_zero() {
        return Ok(whole_days);
    }
    rest.parse::<SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .and_then(|duration| duration.checked_add(whole_days))
        .ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("`{text}` is not a duration"))
                .with_note("write a number and a unit: `200ms`, `30s`, `5m`, `1h`, `7d`")
        })
}

/// What can be given where a duration is asked for: a [`Duration`], or text as
/// [`parse_duration`] reads it.
pub trait IntoDuration {
    /// The duration.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if it is text that is no duration.
    fn into_duration(self) -> Result<Duration>;
}

impl IntoDuration for Duration {
    fn into_duration(self) -> Result<Duration> {
        Ok(self)
    }
}

impl IntoDuration for &str {
    fn into_duration(self) -> Result<Duration> {
        parse_duration(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, millis) in [
            ("200ms", 200),
            ("30s", 30_000),
            ("1m 30s", 90_000),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
            ("1d 1s", 86_401_000),
            ("0s", 0),
        ] {
            assert_eq!(
                parse_duration(text).unwrap(),
                Duration::from_millis(millis),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_advice() {
        for text in ["", "5", "-1s", "soon", "d", "1x", "99999999999999999999d"] {
            let error = parse_duration(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
            assert!(error.to_string().contains("200ms"), "{error}");
        }
    }
}
