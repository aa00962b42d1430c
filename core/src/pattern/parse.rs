//! Reading a pattern, and teaching the spelling to who comes from another system.

use super::Segment;
use crate::{Error, ErrorKind, Result, Text};

pub(super) fn segments(pattern: &str) -> Result<Box<[Segment]>> {
    if pattern.is_empty() {
        return Err(
            Error::new(ErrorKind::InvalidPattern, "the pattern is empty")
                .with_note("write `*` for every event type"),
        );
    }
    pattern
        .split('.')
        .map(|word| segment(word, pattern))
        .collect()
}

fn segment(word: &str, pattern: &str) -> Result<Segment> {
    let wrong = |what: String, advice: String| {
        let message = format!("`{pattern}` is not a pattern: {what}");
        Err(Error::new(ErrorKind::InvalidPattern, message).with_note(advice))
    };
    match word {
        "*" => Ok(Segment::Many),
        "+" => Ok(Segment::One),
        "" => wrong(
            "a segment between its dots is empty".to_owned(),
            "write a word, `+` (exactly one segment) or `*` (one or more) between two dots, and \
             no dot at either end"
                .to_owned(),
        ),
        "**" | "#" | ">" => wrong(
            format!("`{word}` is not a wildcard here"),
            format!(
                "write `{}`: `*` takes one or more segments, `+` exactly one",
                respell(pattern)
            ),
        ),
        _ if word.contains(['*', '+']) => wrong(
            format!("`{word}` has a wildcard within a word"),
            "a wildcard stands for whole segments between dots: `*` for one or more, `+` for \
             exactly one, as in `user.*`"
                .to_owned(),
        ),
        _ if word.trim() != word => wrong(
            format!("the segment `{word}` begins or ends with a space"),
            "remove the space".to_owned(),
        ),
        _ => Ok(Segment::Literal(Text::new(word))),
    }
}

/// The pattern with the many-segment wildcards of other systems spelled as ours.
fn respell(pattern: &str) -> String {
    let words = pattern.split('.').map(|word| match word {
        "**" | "#" | ">" => "*",
        word => word,
    });
    words.collect::<Vec<_>>().join(".")
}
