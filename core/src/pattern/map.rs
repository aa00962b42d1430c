use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;

use super::{Pattern, Segment};
use crate::Text;

/// Values by pattern, looked up by event type: the most specific pattern wins, then the one
/// that was inserted first.
///
/// A look-up walks a tree of segments: its cost goes by the patterns that share their
/// beginnings with the type, not by how many there are.
#[derive(Clone)]
pub struct PatternMap<T> {
    entries: Vec<(Pattern, T)>,
    nodes: Vec<Node>,
}

/// A place in the tree: the segments on the way to it have been taken.
#[derive(Clone, Default)]
struct Node {
    literals: HashMap<Text, usize>,
    one: Option<usize>,
    many: Option<usize>,
    /// The node stands behind a `*`, which may take more.
    repeats: bool,
    entry: Option<usize>,
}

impl<T> PatternMap<T> {
    /// An empty map.
    pub fn new() -> Self {
        Self {
            entries: Vec::new(),
            nodes: vec![Node::default()],
        }
    }

    /// Adds a value. The value of an equal pattern stays, and the new one comes back with it.
    ///
    /// # Errors
    ///
    /// The value of the map under the same pattern, and `value`.
    pub fn insert(&mut self, pattern: Pattern, value: T) -> Result<(), (&T, T)> {
        let node = pattern
            .segments()
            .iter()
            .fold(0, |node, segment| self.child(node, segment));
        if let Some(entry) = self.nodes[node].entry {
            return Err((&self.entries[entry].1, value));
        }
        self.nodes[node].entry = Some(self.entries.len());
        self.entries.push((pattern, value));
        Ok(())
    }

    /// The most specific pattern that takes an event type, and its value.
    pub fn find(&self, event_type: &str) -> Option<(&Pattern, &T)> {
        let entry = self
            .candidates(event_type)
            .min_by(|left, right| self.precedence(*left, *right))?;
        Some(self.entry(entry))
    }

    /// Every pattern that takes an event type with its value, the most specific first.
    pub fn find_all(&self, event_type: &str) -> Vec<(&Pattern, &T)> {
        let mut entries: Vec<_> = self.candidates(event_type).collect();
        entries.sort_by(|left, right| self.precedence(*left, *right));
        entries.into_iter().map(|entry| self.entry(entry)).collect()
    }

    /// Every pattern that covers another ([`Pattern::covers`]) with its value, the most specific
    /// first.
    pub fn covering(&self, pattern: &Pattern) -> Vec<(&Pattern, &T)> {
        // What takes all types of a pattern takes its text as well: as a type, `+` and `*` are
        // words that no literal is equal to.
        let mut entries = self.find_all(pattern.as_str());
        entries.retain(|(wide, _)| wide.covers(pattern));
        entries
    }

    /// Patterns and values in the order of insertion.
    pub fn iter(&self) -> impl Iterator<Item = (&Pattern, &T)> {
        self.entries.iter().map(|(pattern, value)| (pattern, value))
    }

    /// The number of patterns.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn entry(&self, entry: usize) -> (&Pattern, &T) {
        let (pattern, value) = &self.entries[entry];
        (pattern, value)
    }

    /// Which of two entries wins, the winner being less.
    fn precedence(&self, left: usize, right: usize) -> Ordering {
        let specificity = self.entries[left].0.cmp_specificity(&self.entries[right].0);
        specificity.then(left.cmp(&right))
    }

    /// All entries that take an event type, in no order: goes through the tree as a
    /// nondeterministic automaton, all places at once.
    fn candidates(&self, event_type: &str) -> impl Iterator<Item = usize> {
        let mut places = vec![0];
        let mut next = Vec::new();
        for word in event_type.split('.') {
            for place in places.drain(..) {
                let node = &self.nodes[place];
                next.extend(node.literals.get(word));
                next.extend(node.one);
                next.extend(node.many);
                next.extend(node.repeats.then_some(place));
            }
            next.sort_unstable();
            next.dedup();
            std::mem::swap(&mut places, &mut next);
        }
        places.into_iter().filter_map(|node| self.nodes[node].entry)
    }

    fn child(&mut self, node: usize, segment: &Segment) -> usize {
        let new = self.nodes.len();
        let parent = &mut self.nodes[node];
        let child = match segment {
            Segment::Literal(word) => *parent.literals.entry(word.clone()).or_insert(new),
            Segment::One => *parent.one.get_or_insert(new),
            Segment::Many => *parent.many.get_or_insert(new),
        };
        if child == new {
            self.nodes.push(Node {
                repeats: *segment == Segment::Many,
                ..Node::default()
            });
        }
        child
    }
}

impl<T> Default for PatternMap<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for PatternMap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
