//! The quick way to read attributes as they usually stand: one flat object without blanks and
//! escapes.
//!
//! Whatever is written otherwise is left to the general reader, every error included: this one
//! says what the other would say, or nothing. The tests hold the two against each other.

use std::borrow::Cow;

use super::{Members, Value};
use crate::Timestamp;

/// The members, if they are written the usual way and are sound each by itself.
pub(super) fn parse(json: &[u8]) -> Option<Members<'_>> {
    if has_unusual(json) {
        return None;
    }
    let text = std::str::from_utf8(json).ok()?;
    let mut rest = text.strip_prefix('{')?.strip_suffix('}')?;
    let mut members = Members::default();
    loop {
        let (name, after) = string(rest)?;
        let (value, after) = value(after.strip_prefix(':')?)?;
        if name == "data" {
            return None;
        }
        members.set(name, value).ok()?;
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Some(members),
            None => return None,
        }
    }
}

/// A point in time in UTC, as `2026-02-03T04:05:06.789Z`, since 1970.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    let (fixed, fraction) = text.as_bytes().split_at_checked(19)?;
    let number = |from: usize, to: usize| digits(&fixed[from..to]);
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let divided = [fixed[4], fixed[7], fixed[10], fixed[13], fixed[16]] == *b"--T::";
    let in_day = hour < 24 && minute < 60 && second < 60;
    if !divided || !in_day || year < 1970 {
        return None;
    }
    let days = days(year, month, day)?;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Timestamp::new(seconds, nanoseconds(fraction)?).ok()
}

/// Whether there is an escape or a control character anywhere. Looks at every byte, so that it
/// is done many at a time.
fn has_unusual(json: &[u8]) -> bool {
    json.iter().fold(false, |found, byte| {
        found | (*byte < b' ') | (*byte == b'\\')
    })
}

/// A string without escapes, and what is behind it.
fn string(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('"')?;
    let end = inner.bytes().position(|byte| byte == b'"')?;
    Some((&inner[..end], &inner[end + 1..]))
}

fn value(text: &str) -> Option<(Value<'_>, &str)> {
    if let Some((text, after)) = string(text) {
        return Some((Value::Text(Cow::Borrowed(text)), after));
    }
    for (word, value) in [
        ("true", Value::Boolean(true)),
        ("false", Value::Boolean(false)),
        ("null", Value::Null),
    ] {
        if let Some(after) = text.strip_prefix(word) {
            return Some((value, after));
        }
    }
    let end = text.find(',').unwrap_or(text.len());
    let (number, after) = text.split_at(end);
    Some((Value::Integer(integer(number)?), after))
}

/// A number that is in the range of 32 bits by its length. JSON has no leading zeros and no `+`.
fn integer(text: &str) -> Option<i32> {
    let positive = text.strip_prefix('-').unwrap_or(text);
    let leads_with_zero = positive.starts_with('0') && text != "0";
    if leads_with_zero || positive.is_empty() || positive.len() > 9 {
        return None;
    }
    let number = i32::try_from(digits(positive.as_bytes())?).ok()?;
    Some(if text.len() == positive.len() {
        number
    } else {
        -number
    })
}

/// A number of a few digits and nothing else.
fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |number, byte| match byte {
        b'0'..=b'9' => Some(number * 10 + i64::from(byte - b'0')),
        _ => None,
    })
}

/// `Z`, or a fraction of a second before it.
fn nanoseconds(text: &[u8]) -> Option<i32> {
    let fraction = text.strip_suffix(b"Z")?;
    if fraction.is_empty() {
        return Some(0);
    }
    let fraction = fraction.strip_prefix(b".")?;
    if !(1..=9).contains(&fraction.len()) {
        return None;
    }
    let number = i32::try_from(digits(fraction)?).ok()?;
    let missing = u32::try_from(9 - fraction.len()).ok()?;
    Some(number * 10_i32.pow(missing))
}

/// The days from 1970-01-01 to a day of the years 1970 to 9999.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let february = if leap { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before = usize::try_from(month.checked_sub(1)?).ok()?;
    if !(1..=*months.get(before)?).contains(&day) {
        return None;
    }
    let years = year - 1;
    // The leap years before this one, less those before 1970.
    let leaps = years / 4 - years / 100 + years / 400 - 477;
    let in_year: i64 = months[..before].iter().sum();
    Some((year - 1970) * 365 + leaps + in_year + day - 1)
}

#[cfg(test)]
mod tests {
    use super::super::{parse as parse_any, read_attributes, read_time_of_any_shape};
    use super::*;

    /// Numbers that look random and are the same in each run.
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self, below: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % below as u64) as usize
        }

        fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
            from[self.next(from.len())]
        }
    }

    const NAMES: [&str; 14] = [
        "specversion",
        "id",
        "source",
        "type",
        "subject",
        "time",
        "datacontenttype",
        "dataschema",
        "partitionkey",
        "dataversion",
        "other",
        "data",
        "data_base64",
        "Bad-Name",
    ];

    const VALUES: [&str; 26] = [
        r#""1.0""#,
        r#""a""#,
        r#""deals/7""#,
        r#""""#,
        r#""ü🗝""#,
        r#""a\"b""#,
        r#""a\u0041""#,
        r#""2026-02-03T04:05:06.789Z""#,
        r#""2026-02-03T04:05:06+01:00""#,
        r#""2026-02-30T00:00:00Z""#,
        r#""a,b:{}""#,
        "true",
        "false",
        "null",
        "0",
        "-0",
        "7",
        "-7",
        "007",
        "999999999",
        "9999999999",
        "1.5",
        "1e3",
        "[]",
        "{}",
        " 1",
    ];

    fn object(numbers: &mut Numbers) -> String {
        let mut members =
            vec![r#""specversion":"1.0","id":"i","source":"s","type":"t""#.to_owned()];
        for _ in 0..numbers.next(5) {
            let (name, value) = (numbers.pick(&NAMES), numbers.pick(&VALUES));
            members.push(format!("\"{name}\":{value}"));
        }
        if numbers.next(4) == 0 {
            members.remove(0);
        }
        format!("{{{}}}", members.join(","))
    }

    /// Takes out, doubles or replaces a byte.
    fn damage(text: &str, numbers: &mut Numbers) -> Vec<u8> {
        let mut bytes = text.as_bytes().to_vec();
        let place = numbers.next(bytes.len());
        match numbers.next(3) {
            0 => drop(bytes.remove(place)),
            1 => bytes.insert(place, bytes[place]),
            _ => bytes[place] = b"\"\\{}:, \n\xff0-tZ"[numbers.next(13)],
        }
        bytes
    }

    /// What the general reader says. What the quick one does not know counts as the same.
    fn check(json: &[u8]) -> bool {
        let Some(quick) = parse(json) else {
            return false;
        };
        let general = parse_any(json).unwrap_or_else(|error| {
            panic!(
                "only the quick one reads {}: {error}",
                String::from_utf8_lossy(json)
            )
        });
        let told = |members: Members<'_>| members.into_event(None).map_err(|it| it.to_string());
        assert_eq!(
            told(quick),
            told(general),
            "{}",
            String::from_utf8_lossy(json)
        );
        true
    }

    #[test]
    fn the_quick_reader_says_what_the_general_one_says_or_nothing() {
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        let mut quick = 0;
        for _ in 0..5_000 {
            let object = object(&mut numbers);
            quick += usize::from(check(object.as_bytes()));
            check(&damage(&object, &mut numbers));
        }
        assert!(quick > 500, "only {quick} of the objects were read quickly");
        for json in [
            "",
            "{",
            "}",
            "{}",
            "[]",
            "\"",
            "{\"a\":\"}",
            "{\"a\"}",
            "{\"a\":1,}",
        ] {
            assert!(!check(json.as_bytes()), "{json}");
        }
    }

    #[test]
    fn what_we_write_is_read_quickly() {
        let event = crate::Event::builder("deal.closed")
            .source("s")
            .subject("x")
            .key("k");
        let event = event
            .extension("count", -7)
            .extension("test", true)
            .build()
            .unwrap();
        let mut json = Vec::new();
        super::super::write_attributes(&event, &mut json);
        assert!(parse(&json).is_some());
        assert_eq!(read_attributes(&json, None).unwrap(), event);
    }

    #[test]
    fn times_are_what_the_library_reads() {
        let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
        let mut quick = 0;
        for _ in 0..20_000 {
            let (year, month, day) = (1968 + numbers.next(150), numbers.next(14), numbers.next(33));
            let (hour, minute, second) = (numbers.next(25), numbers.next(61), numbers.next(61));
            let fraction = numbers.pick(&["", ".5", ".789", ".000000001", ".1234567890", "."]);
            let zone = numbers.pick(&["Z", "Z", "Z", "z", "+01:00", ""]);
            let text = format!(
                "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{zone}"
            );
            if let Some(time) = time(&text) {
                quick += 1;
                assert_eq!(Ok(time), read_time_of_any_shape(&text), "{text}");
            }
        }
        assert!(quick > 2_000, "only {quick} of the times were read quickly");
        for text in [
            "9999-12-30T22:00:00Z",
            "9999-12-31T23:59:59Z",
            "2000-02-29T00:00:00Z",
        ] {
            if let Some(time) = time(text) {
                assert_eq!(Ok(time), read_time_of_any_shape(text), "{text}");
            }
        }
    }
}
