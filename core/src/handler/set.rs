use std::collections::HashMap;
use std::fmt;
use std::sync::{PoisonError, RwLock};

use foldhash::fast::RandomState;

use super::batch::{self, ErasedBatchHandler};
use super::{BatchHandler, ErasedHandler, Handler, erase};
use crate::pattern::PatternMap;
use crate::{Error, ErrorKind, Pattern, Result, Text};

/// How many event types a set remembers the handler of, as the route table does of routes.
const REMEMBERED_TYPES: usize = 4096;

/// The handlers of a subscription. The most specific one takes an event.
pub struct HandlerSet {
    /// Every handler's patterns; an event type is a literal one.
    by_pattern: PatternMap<usize>,
    /// The usual way: one hash probe for a type that was looked for before.
    known: RwLock<HashMap<Text, Option<usize>, RandomState>>,
    handlers: Vec<Registered>,
}

/// A handler of a subscription.
pub(crate) enum Registered {
    /// Takes one event at a time.
    One(Box<dyn ErasedHandler>),
    /// Takes several at once.
    Batch(Box<dyn ErasedBatchHandler>),
}

/// Collects the handlers of a subscription.
#[derive(Default)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct HandlerSetBuilder {
    types: Vec<(&'static str, usize)>,
    patterns: Vec<(Result<Pattern>, usize)>,
    handlers: Vec<Registered>,
}

impl HandlerSetBuilder {
    /// No handlers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler for the event types of its `Payload<T>`. One without does not compile.
    pub fn on<H, S, Args>(&mut self, handler: H, state: S)
    where
        H: Handler<Args, S>,
        S: Send + Sync + 'static,
        Args: 'static,
    {
        const {
            assert!(
                !H::TYPES.is_empty(),
                "a handler for `on` needs an argument `Payload<T>`; use `on_pattern` or `on_any` without one"
            );
        }
        let index = self.push(Registered::One(erase(handler, state)));
        self.types
            .extend(H::TYPES.iter().map(|info| (info.name, index)));
    }

    /// Adds a handler for the event types that a pattern takes.
    pub fn on_pattern<H, S, Args>(&mut self, pattern: &str, handler: H, state: S)
    where
        H: Handler<Args, S>,
        S: Send + Sync + 'static,
        Args: 'static,
    {
        let index = self.push(Registered::One(erase(handler, state)));
        self.patterns.push((Pattern::parse(pattern), index));
    }

    /// Adds a batch handler for the event types of its `Batch<T>`. One without, or with two, does
    /// not compile.
    pub fn on_batch<H, S, Args>(&mut self, handler: H, state: S)
    where
        H: BatchHandler<Args, S>,
        S: Send + Sync + 'static,
        Args: 'static,
    {
        const {
            assert!(
                H::BATCHES == 1,
                "a batch handler needs one argument `Batch<T>`"
            );
        }
        let index = self.push(Registered::Batch(batch::erase(handler, state)));
        self.types
            .extend(H::TYPES.iter().map(|info| (info.name, index)));
    }

    fn push(&mut self, handler: Registered) -> usize {
        self.handlers.push(handler);
        self.handlers.len() - 1
    }

    /// The handlers, compiled.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidPattern`] for a malformed pattern or event type; [`ErrorKind::Config`] if there is no
    /// handler, or two for the same event type or pattern.
    pub fn build(self) -> Result<HandlerSet> {
        if self.handlers.is_empty() {
            return Err(
                Error::new(ErrorKind::Config, "the subscription has no handler")
                    .with_note("add one with `on`, `on_pattern` or `on_any`"),
            );
        }
        let types = self
            .types
            .into_iter()
            .map(|(name, index)| (Pattern::parse(name), index));
        let mut by_pattern = PatternMap::new();
        for (pattern, index) in types.chain(self.patterns) {
            let pattern = pattern?;
            if by_pattern.insert(pattern.clone(), index).is_err() {
                return Err(two_handlers(pattern.as_str()));
            }
        }
        Ok(HandlerSet {
            by_pattern,
            known: RwLock::default(),
            handlers: self.handlers,
        })
    }
}

fn two_handlers(pattern: &str) -> Error {
    Error::new(
        ErrorKind::Config,
        format!("two handlers of one subscription take `{pattern}`"),
    )
    .with_note("keep one, or use two subscriptions with a group each")
}

impl HandlerSet {
    /// What the handlers take: event types as literal patterns, then patterns.
    pub fn interests(&self) -> Vec<Pattern> {
        self.by_pattern
            .iter()
            .map(|(pattern, _)| pattern.clone())
            .collect()
    }

    /// The most specific handler for an event type, and its index.
    pub(crate) fn find(&self, event_type: &str) -> Option<(usize, &Registered)> {
        let index = match self.remembered(event_type) {
            Some(found) => found,
            None => self.look_up(event_type),
        };
        index.map(|index| (index, &self.handlers[index]))
    }

    fn remembered(&self, event_type: &str) -> Option<Option<usize>> {
        // A panic can't leave the map half changed.
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(event_type).copied()
    }

    fn look_up(&self, event_type: &str) -> Option<usize> {
        let found = self.by_pattern.find(event_type).map(|(_, index)| *index);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < REMEMBERED_TYPES {
            known.insert(event_type.into(), found);
        }
        found
    }

    /// A handler by its index.
    pub(crate) fn registered(&self, index: usize) -> &Registered {
        &self.handlers[index]
    }

    /// Whether one of the handlers takes several events at once.
    pub fn has_batches(&self) -> bool {
        let is_batch = |handler: &Registered| matches!(handler, Registered::Batch(_));
        self.handlers.iter().any(is_batch)
    }
}

impl fmt::Debug for HandlerSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.by_pattern.iter().map(|(pattern, _)| pattern.as_str()))
            .finish()
    }
}

impl fmt::Debug for HandlerSetBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerSetBuilder")
            .field("handlers", &self.handlers.len())
            .finish()
    }
}
