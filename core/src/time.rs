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

/// Reads a time stamp as [`Timestamp`] does. What it prints itself, as in every event that
/// polybus wrote, is read in a fifth of the time.
pub(crate) fn parse_timestamp(text: &str) -> Result<Timestamp, jiff::Error> {
    match parse_utc(text.as_bytes()) {
        Some(time) => Ok(time),
        None => text.parse(),
    }
}

/// `2026-11-21T08:30:00.123Z`. Anything else, a leap day among it, is left to the general parser.
fn parse_utc(text: &[u8]) -> Option<Timestamp> {
    let (clock, rest) = text.split_first_chunk::<19>()?;
    let marks = [4, 7, 10, 13, 16].map(|index| clock[index]);
    if marks != *b"--T::" {
        return None;
    }
    let field = |range: std::ops::Range<usize>| number(&clock[range]);
    let (year, month, day) = (field(0..4)?, field(5..7)?, field(8..10)?);
    let (hour, minute, second) = (field(11..13)?, field(14..16)?, field(17..19)?);
    let longest = match month {
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let right = year >= 1 && (1..=12).contains(&month) && (1..=longest).contains(&day);
    if !right || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let nanoseconds = match rest.strip_suffix(b"Z")? {
        [] => 0,
        [b'.', digits @ ..] if (1..=9).contains(&digits.len()) => {
            let missing = u32::try_from(9 - digits.len()).ok()?;
            number(digits)? * 10_i64.pow(missing)
        }
        _ => return None,
    };
    // Years that begin in March have their leap day at the end.
    let (year, month) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    // 719,468 days before 1970 the first of March of the year 0.
    let days = 365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Timestamp::new(seconds, i32::try_from(nanoseconds).ok()?).ok()
}

/// Writes a time stamp as [`Timestamp`] does, in a fifth of the time.
pub(crate) fn write_timestamp(time: Timestamp, write: impl FnOnce(&str)) {
    let mut text = [0; UTC_LENGTH];
    match write_utc(time, &mut text) {
        Some(text) => write(text),
        None => write(&time.to_string()),
    }
}

/// The length of `2026-11-21T08:30:00.123456789Z`.
const UTC_LENGTH: usize = 30;

/// A time stamp of the years from 0 to 9999.
fn write_utc(time: Timestamp, text: &mut [u8; UTC_LENGTH]) -> Option<&str> {
    const DAY: i64 = 86_400;
    // Before 1970 the parts of a second are counted backwards.
    let nanosecond = u32::try_from(time.subsec_nanosecond()).ok()?;
    let (days, second) = (
        time.as_second().div_euclid(DAY),
        time.as_second().rem_euclid(DAY),
    );
    // Years that begin in March have their leap day at the end, and cycles of 400 of them have all
    // the same number of days. 719,468 of them passed before 1970.
    let days = u64::try_from(days + 719_468).ok()?;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = 400 * cycle + year + next;
    if year > 9_999 {
        return None;
    }
    let second = u64::try_from(second).ok()?;
    text[..19].copy_from_slice(b"0000-00-00T00:00:00");
    for (end, length, value) in [
        (4, 4, year),
        (7, 2, month),
        (10, 2, day),
        (13, 2, second / 3_600),
        (16, 2, second / 60 % 60),
        (19, 2, second % 60),
    ] {
        write_digits(&mut text[end - length..end], value);
    }
    let mut end = 19;
    if nanosecond > 0 {
        text[19] = b'.';
        write_digits(&mut text[20..29], u64::from(nanosecond));
        end = 29;
        while text[end - 1] == b'0' {
            end -= 1;
        }
    }
    text[end] = b'Z';
    std::str::from_utf8(&text[..=end]).ok()
}

fn write_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + i64::from(digit - b'0'))
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
    fn every_day_is_read_as_the_general_parser_does() {
        let day = 86_400;
        for number in -719_000_i64..100_000 {
            let second = number * day + (number * 7_919).rem_euclid(day);
            let nanosecond = [0, 1, 120_000_000, 123_456_789][number.unsigned_abs() as usize % 4];
            let Ok(time) = Timestamp::new(second, nanosecond) else {
                continue;
            };
            let text = time.to_string();
            assert_eq!(parse_timestamp(&text).unwrap(), time, "{text}");
            write_timestamp(time, |written| assert_eq!(written, text));
            if let Some(read) = parse_utc(text.as_bytes()) {
                assert_eq!(read, time, "{text}");
            }
        }
        assert!(parse_utc(b"2026-11-21T08:30:00.5Z").is_some());
        assert!(parse_utc(b"2026-12-31T23:59:59Z").is_some());
    }

    #[test]
    fn a_time_is_written_as_it_prints_itself() {
        let seconds = [
            Timestamp::MIN.as_second(),
            -62_167_219_201,
            -62_167_219_200,
            -1,
            0,
            951_782_399,
            951_868_800,
            1_763_712_339,
            253_402_200_000,
            Timestamp::MAX.as_second() - 1,
        ];
        for second in seconds {
            for nanosecond in [0, 1, 999_999_999, 500_000_000, 1_000, 120_300_000] {
                for time in [
                    Timestamp::new(second, nanosecond),
                    Timestamp::new(second, -nanosecond),
                ] {
                    let Ok(time) = time else { continue };
                    let text = time.to_string();
                    write_timestamp(time, |written| assert_eq!(written, text));
                }
            }
        }
        let mut text = [0; UTC_LENGTH];
        let usual = Timestamp::new(1_763_712_339, 120_300_000).unwrap();
        assert_eq!(
            write_utc(usual, &mut text),
            Some("2025-11-21T08:05:39.1203Z")
        );
    }

    #[test]
    fn what_is_read_quickly_is_what_the_general_parser_reads() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let mut quick = 0;
        for _ in 0..20_000 {
            let (year, month, day) = (1968 + next(150), next(14), next(33));
            let (hour, minute, second) = (next(25), next(61), next(61));
            let fraction = ["", ".5", ".789", ".000000001", ".1234567890", "."][next(6) as usize];
            let zone = ["Z", "Z", "Z", "z", "+01:00", ""][next(6) as usize];
            let text = format!(
                "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{zone}"
            );
            if let Some(time) = parse_utc(text.as_bytes()) {
                quick += 1;
                assert_eq!(Ok(time), text.parse().map_err(drop), "{text}");
            }
        }
        assert!(quick > 2_000, "only {quick} of the times were read quickly");
        for text in ["9999-12-30T22:00:00Z", "9999-12-31T23:59:59Z"] {
            if let Some(time) = parse_utc(text.as_bytes()) {
                assert_eq!(Ok(time), text.parse().map_err(drop), "{text}");
            }
        }
    }

    #[test]
    fn what_is_spelled_otherwise_is_left_to_the_general_parser() {
        for text in [
            "2026-11-21T08:30:00+01:00",
            "2026-11-21t08:30:00z",
            "2024-02-29T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-31T00:00:00Z",
            "2026-00-10T00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-12-31T23:59:60Z",
            "2026-11-21T08:30:00.Z",
            "2026-11-21T08:30:00.1234567890Z",
            "2026-11-21T08:30:00",
            "2026-11-21",
            "+026-11-21T08:30:00Z",
            "",
        ] {
            assert_eq!(parse_utc(text.as_bytes()), None, "{text}");
            let parsed = parse_timestamp(text).ok();
            assert_eq!(parsed, text.parse().ok(), "{text}");
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
