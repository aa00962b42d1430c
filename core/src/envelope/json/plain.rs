//! The quick way to read attributes as they usually stand: one flat object without blanks and
//! escapes.
//!
//! Whatever is written otherwise is left to the general reader, every error included: this one
//! says what the other would say, or nothing. The tests hold the two against each other.

use std::borrow::Cow;

use super::{Members, Value};

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

#[cfg(test)]
mod tests {
    use super::super::{parse as parse_any, read_attributes};
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
}
