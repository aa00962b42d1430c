use std::fmt;

use crate::pattern::Segment;
use crate::text::format_text;
use crate::topic::{TopicPart, TopicPattern, TopicPrefix};
use crate::{Error, ErrorKind, Pattern, Result, Text, Topic};

/// The name of a topic with places for parts of the event type.
#[derive(Debug)]
pub(super) struct TopicTemplate {
    text: Text,
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Fixed(Text),
    /// `{type}`
    Type,
    /// `{n}`, counted from 0.
    Segment(usize),
}

impl TopicTemplate {
    /// Reads a template, in which `{{` and `}}` stand for braces. `Err` is what is wrong and what to
    /// do about it.
    pub(super) fn parse(text: &str) -> Result<Self, (String, &'static str)> {
        const ADVICE: &str =
            "`{type}` is the event type, `{1}` its first segment, `{{` and `}}` are braces";
        if text.is_empty() {
            return Err(("is empty".to_owned(), "name the topic"));
        }
        let mut parts = Vec::new();
        let mut fixed = String::new();
        let mut rest = text;
        while let Some(brace) = rest.find(['{', '}']) {
            let (before, from_brace) = rest.split_at(brace);
            fixed.push_str(before);
            let escaped = ["{{", "}}"]
                .into_iter()
                .find(|it| from_brace.starts_with(it));
            if let Some(escaped) = escaped {
                fixed.push_str(&escaped[..1]);
                rest = &from_brace[escaped.len()..];
                continue;
            }
            if !fixed.is_empty() {
                parts.push(Part::Fixed(fixed.as_str().into()));
                fixed.clear();
            }
            let inner = from_brace.strip_prefix('{').and_then(|s| s.split_once('}'));
            let Some((name, after)) = inner else {
                let brace = &from_brace[..1];
                return Err((
                    format!("`{text}` has a `{brace}` without its other half"),
                    ADVICE,
                ));
            };
            let part = Part::placeholder(name).ok_or_else(|| {
                (
                    format!("`{text}` has an unknown placeholder `{{{name}}}`"),
                    ADVICE,
                )
            })?;
            parts.push(part);
            rest = after;
        }
        fixed.push_str(rest);
        if !fixed.is_empty() {
            parts.push(Part::Fixed(fixed.into()));
        }
        Ok(Self {
            text: text.into(),
            parts,
        })
    }

    /// The template with a prefix before the names.
    pub(super) fn with_prefix(mut self, prefix: &TopicPrefix) -> Self {
        let prefix = prefix.as_str();
        if prefix.is_empty() || self.text.starts_with(prefix) {
            return self;
        }
        let first = match self.parts.first() {
            Some(Part::Fixed(text)) => text.clone(),
            _ => Text::default(),
        };
        if !first.is_empty() {
            self.parts.remove(0);
        }
        self.parts
            .insert(0, Part::Fixed(format_text!("{prefix}{first}")));
        self.text = format_text!("{prefix}{}", self.text);
        self
    }

    /// The highest number of a segment that the template takes, counted from 1; 0 if it takes
    /// none.
    pub(super) fn needs(&self) -> usize {
        let segments = self.parts.iter().map(|part| match part {
            Part::Segment(index) => index + 1,
            Part::Fixed(_) | Part::Type => 0,
        });
        segments.max().unwrap_or_default()
    }

    /// The topic, if it is the same for all types.
    pub(super) fn fixed(&self) -> Option<Topic> {
        match &self.parts[..] {
            [Part::Fixed(text)] => Some(Topic::new(text.clone())),
            _ => None,
        }
    }

    /// The topic of an event type.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidEvent`] if a segment that the template takes is empty.
    pub(super) fn fill(&self, event_type: &str) -> Result<Topic> {
        let mut name = String::new();
        for part in &self.parts {
            match part {
                Part::Fixed(text) => name.push_str(text),
                Part::Type => name.push_str(event_type),
                Part::Segment(index) => match event_type.split('.').nth(*index) {
                    Some(segment) if !segment.is_empty() => name.push_str(segment),
                    _ => return Err(self.lacks(event_type, *index)),
                },
            }
        }
        Ok(Topic::new(name))
    }

    /// The topics of all types that fit both patterns: a topic where they are pinned, else a
    /// pattern. A route without a pattern takes everything.
    pub(super) fn open(&self, route: Option<&Pattern>, interest: &Pattern) -> Opened {
        let patterns = || route.into_iter().chain([interest]);
        let mut parts = Vec::new();
        for part in &self.parts {
            match part {
                Part::Fixed(text) => parts.push(TopicPart::Fixed(text.to_string())),
                Part::Segment(index) => parts.push(
                    patterns()
                        .find_map(|pattern| pinned(pattern, *index))
                        .map_or(TopicPart::Segment, |word| {
                            TopicPart::Fixed(word.to_string())
                        }),
                ),
                Part::Type => {
                    let narrow = match route {
                        Some(route) if interest.covers(route) => route,
                        _ => interest,
                    };
                    parts.extend(shape(narrow));
                }
            }
        }
        Opened::new(parts)
    }

    fn lacks(&self, event_type: &str, index: usize) -> Error {
        Error::new(
            ErrorKind::InvalidEvent,
            format!(
                "segment {} of the event type `{event_type}` is empty",
                index + 1
            ),
        )
        .with_note(format!("the topic `{}` of its route needs it", self.text))
    }
}

impl Part {
    fn placeholder(name: &str) -> Option<Self> {
        if name == "type" {
            return Some(Self::Type);
        }
        let digits = name.chars().all(|c| c.is_ascii_digit());
        let number = digits.then(|| name.parse::<usize>().ok())??;
        Some(Self::Segment(number.checked_sub(1)?))
    }
}

impl fmt::Display for TopicTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a template stands for when not all of the event type is known.
pub(super) enum Opened {
    Topic(Topic),
    Pattern(TopicPattern),
}

impl Opened {
    /// Joins neighbouring texts, so that equal patterns are equal.
    fn new(parts: Vec<TopicPart>) -> Self {
        let mut joined: Vec<TopicPart> = Vec::new();
        for part in parts {
            match (joined.last_mut(), part) {
                (Some(TopicPart::Fixed(text)), TopicPart::Fixed(more)) => text.push_str(&more),
                (_, part) => joined.push(part),
            }
        }
        match &mut joined[..] {
            [TopicPart::Fixed(text)] => Self::Topic(Topic::new(std::mem::take(text))),
            _ => Self::Pattern(TopicPattern::new(joined)),
        }
    }
}

/// The word that stands at a position of every type that fits, if the pattern says it: no `*`
/// comes before it.
fn pinned(pattern: &Pattern, index: usize) -> Option<&Text> {
    let (before, from) = pattern.segments().split_at_checked(index)?;
    match from.first()? {
        Segment::Literal(word) if !before.contains(&Segment::Many) => Some(word),
        _ => None,
    }
}

/// A pattern of event types as one of names.
fn shape(pattern: &Pattern) -> Vec<TopicPart> {
    let mut parts = Vec::new();
    for segment in pattern.segments() {
        if !parts.is_empty() {
            parts.push(TopicPart::Fixed(".".to_owned()));
        }
        parts.push(match segment {
            Segment::Literal(word) => TopicPart::Fixed(word.to_string()),
            Segment::One => TopicPart::Segment,
            Segment::Many => TopicPart::Any,
        });
    }
    parts
}
