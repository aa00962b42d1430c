//! Patterns of event types.

mod map;
mod parse;
mod relation;

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer};

pub use map::PatternMap;

use crate::{Error, Result, Text};

/// A pattern of event types: dot-separated segments, each a literal, `*` (one or more whole
/// segments) or `+` (exactly one). Parsed once, cheap to clone.
///
/// ```
/// use polybus_core::Pattern;
///
/// let pattern = Pattern::parse("user.*")?;
/// assert!(pattern.matches("user.created"));
/// assert!(pattern.matches("user.profile.updated"));
/// assert!(!pattern.matches("user"));
/// assert!(Pattern::parse("order.+.failed")?.matches("order.payment.failed"));
/// # Ok::<(), polybus_core::Error>(())
/// ```
///
/// Two patterns are equal if their texts are.
#[derive(Clone)]
pub struct Pattern(Arc<Inner>);

struct Inner {
    text: Text,
    segments: Box<[Segment]>,
}

/// A segment of a [`Pattern`]. The order is that of specificity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    /// This word.
    Literal(Text),
    /// `+`: any one segment.
    One,
    /// `*`: one or more segments.
    Many,
}

impl Segment {
    /// Whether the segment can take this word as one of its own.
    fn takes(&self, word: &str) -> bool {
        match self {
            Self::Literal(literal) => literal == word,
            Self::One | Self::Many => true,
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Literal(_) => 0,
            Self::One => 1,
            Self::Many => 2,
        }
    }
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidPattern`](crate::ErrorKind::InvalidPattern), with the right spelling,
    /// for an empty pattern or segment, for a wildcard within a word, and for the wildcards of
    /// other systems: `**`, `#` and `>`.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(Self(Arc::new(Inner {
            text: Text::new(text),
            segments: parse::segments(text)?,
        })))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Whether an event type fits. Allocates nothing and takes at most the product of both
    /// numbers of segments in steps.
    pub fn matches(&self, event_type: &str) -> bool {
        relation::matches(self.segments(), event_type)
    }

    /// Whether some event type fits both patterns.
    pub fn intersects(&self, other: &Self) -> bool {
        relation::intersect(self.segments(), other.segments())
    }

    /// Whether every event type that fits `other` fits this pattern too.
    ///
    /// Conservative: `true` is certain, while a few pairs of the same meaning in different
    /// spelling (`*.+` and `+.*`) give `false`.
    pub fn covers(&self, other: &Self) -> bool {
        relation::covers(self.segments(), other.segments())
    }

    /// Whether the pattern has no wildcard, and so is an event type.
    pub fn is_literal(&self) -> bool {
        let literal = |segment: &Segment| matches!(segment, Segment::Literal(_));
        self.segments().iter().all(literal)
    }

    /// Compares how specific two patterns are: the more specific is less, so that sorting puts
    /// it first. Segment by segment a literal comes before `+` before `*`; then the longer
    /// comes first.
    ///
    /// Different patterns may be equally specific, as `user.*` and `deal.*` are.
    pub fn cmp_specificity(&self, other: &Self) -> Ordering {
        let (own, others) = (self.segments(), other.segments());
        let common = own.len().min(others.len());
        let ranks = own[..common].iter().map(Segment::rank);
        ranks
            .cmp(others[..common].iter().map(Segment::rank))
            .then(others.len().cmp(&own.len()))
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.0.segments
    }
}

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({})", self.0.text)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}
