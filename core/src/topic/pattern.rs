use std::fmt;

/// Topics whose names are not known beforehand: fixed text with open parts, as a topic template
/// leaves it whose values are not all given.
///
/// ```
/// use polybus_core::topic::{TopicPart, TopicPattern};
///
/// let pattern = TopicPattern::new([TopicPart::Fixed("events.".into()), TopicPart::Segment]);
/// assert!(pattern.matches("events.user"));
/// assert!(!pattern.matches("events.user.created"));
/// assert_eq!(pattern.to_regex(), r"^events\.[^.]+$");
/// assert_eq!(pattern.to_glob(), "events.*");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TopicPattern(Vec<TopicPart>);

/// A part of a [`TopicPattern`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TopicPart {
    /// This text.
    Fixed(String),
    /// One segment: at least one character, none of them a dot.
    Segment,
    /// A whole event type: at least one character.
    Any,
}

impl TopicPattern {
    /// A pattern of parts.
    pub fn new(parts: impl IntoIterator<Item = TopicPart>) -> Self {
        Self(parts.into_iter().collect())
    }

    /// Whether a topic's name fits.
    pub fn matches(&self, name: &str) -> bool {
        matches(&self.0, name)
    }

    /// As a POSIX extended regular expression, anchored at both ends.
    pub fn to_regex(&self) -> String {
        let parts = self.0.iter().map(|part| match part {
            TopicPart::Fixed(text) => escape(text, r"\.+*?()|[]{}^$"),
            TopicPart::Segment => "[^.]+".to_owned(),
            TopicPart::Any => ".+".to_owned(),
        });
        format!("^{}$", parts.collect::<String>())
    }

    /// As a glob of Redis' `SCAN MATCH`, which takes more than the pattern does: check what it
    /// finds with [`matches`](Self::matches).
    pub fn to_glob(&self) -> String {
        let parts = self.0.iter().map(|part| match part {
            TopicPart::Fixed(text) => escape(text, r"\*?[]^"),
            TopicPart::Segment | TopicPart::Any => "*".to_owned(),
        });
        parts.collect()
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            TopicPart::Fixed(text) => f.write_str(text),
            TopicPart::Segment => f.write_str("+"),
            TopicPart::Any => f.write_str("*"),
        })
    }
}

fn escape(text: &str, special: &str) -> String {
    let escaped = text.chars().flat_map(|character| {
        let backslash = special.contains(character).then_some('\\');
        backslash.into_iter().chain([character])
    });
    escaped.collect()
}

fn matches(parts: &[TopicPart], name: &str) -> bool {
    let Some((first, rest)) = parts.split_first() else {
        return name.is_empty();
    };
    let open_until = match first {
        TopicPart::Fixed(text) => {
            return name
                .strip_prefix(text.as_str())
                .is_some_and(|name| matches(rest, name));
        }
        TopicPart::Segment => name.find('.').unwrap_or(name.len()),
        TopicPart::Any => name.len(),
    };
    let ends = name
        .char_indices()
        .map(|(start, character)| start + character.len_utf8());
    ends.take_while(|end| *end <= open_until)
        .any(|end| matches(rest, &name[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(text: &str) -> TopicPart {
        TopicPart::Fixed(text.to_owned())
    }

    #[test]
    fn open_parts_take_at_least_one_character() {
        let pattern = TopicPattern::new([fixed("a."), TopicPart::Segment, fixed(".z")]);
        for (name, fits) in [
            ("a.b.z", true),
            ("a.bcd.z", true),
            ("a..z", false),
            ("a.b.c.z", false),
            ("a.b.zz", false),
            ("x.b.z", false),
        ] {
            assert_eq!(pattern.matches(name), fits, "{name}");
        }
        assert!(TopicPattern::new([fixed("all-"), TopicPart::Any]).matches("all-user.created"));
        assert!(!TopicPattern::new([fixed("all-"), TopicPart::Any]).matches("all-"));
    }

    #[test]
    fn fixed_text_is_escaped() {
        let pattern = TopicPattern::new([fixed("a.b*[c]"), TopicPart::Any]);
        assert_eq!(pattern.to_regex(), r"^a\.b\*\[c\].+$");
        assert_eq!(pattern.to_glob(), r"a.b\*\[c\]*");
    }
}
