use std::collections::HashMap;
use std::fmt;

use super::{ErasedHandler, Handler, erase};
use crate::{Error, ErrorKind, Pattern, Result};

/// The handlers of a subscription. The most specific one takes an event.
pub struct HandlerSet {
    by_type: HashMap<&'static str, usize>,
    /// The most specific first.
    by_pattern: Vec<(Pattern, usize)>,
    handlers: Vec<Box<dyn ErasedHandler>>,
}

/// Collects the handlers of a subscription.
#[derive(Default)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct HandlerSetBuilder {
    types: Vec<(&'static str, usize)>,
    patterns: Vec<(Result<Pattern>, usize)>,
    handlers: Vec<Box<dyn ErasedHandler>>,
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
        let index = self.push(handler, state);
        self.types.extend(H::TYPES.iter().map(|info| (info.name, index)));
    }

    /// Adds a handler for the event types that a pattern takes.
    pub fn on_pattern<H, S, Args>(&mut self, pattern: &str, handler: H, state: S)
    where
        H: Handler<Args, S>,
        S: Send + Sync + 'static,
        Args: 'static,
    {
        let index = self.push(handler, state);
        self.patterns.push((Pattern::parse(pattern), index));
    }

    fn push<H, S, Args>(&mut self, handler: H, state: S) -> usize
    where
        H: Handler<Args, S>,
        S: Send + Sync + 'static,
        Args: 'static,
    {
        self.handlers.push(erase(handler, state));
        self.handlers.len() - 1
    }

    /// The handlers, compiled.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidPattern`] for a malformed pattern; [`ErrorKind::Config`] if there is no
    /// handler, or two for the same event type or pattern.
    pub fn build(self) -> Result<HandlerSet> {
        if self.handlers.is_empty() {
            return Err(Error::new(ErrorKind::Config, "the subscription has no handler")
                .with_note("add one with `on`, `on_pattern` or `on_any`"));
        }
        let mut by_type = HashMap::new();
        for (name, index) in self.types {
            if by_type.insert(name, index).is_some() {
                return Err(two_handlers(name));
            }
        }
        let mut by_pattern: Vec<(Pattern, usize)> = Vec::with_capacity(self.patterns.len());
        for (pattern, index) in self.patterns {
            let pattern = pattern?;
            if by_pattern.iter().any(|(known, _)| *known == pattern) {
                return Err(two_handlers(pattern.as_str()));
            }
            by_pattern.push((pattern, index));
        }
        by_pattern.sort_by(|(left, _), (right, _)| left.cmp_specificity(right));
        Ok(HandlerSet { by_type, by_pattern, handlers: self.handlers })
    }
}

fn two_handlers(pattern: &str) -> Error {
    Error::new(ErrorKind::Config, format!("two handlers of one subscription take `{pattern}`"))
        .with_note("keep one, or use two subscriptions with a group each")
}

impl HandlerSet {
    /// What the handlers take: event types as literal patterns, then patterns.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidPattern`] if a type's name is not one that a route could name.
    pub fn interests(&self) -> Result<Vec<Pattern>> {
        let mut types: Vec<_> = self.by_type.keys().collect();
        types.sort_unstable();
        let types = types.into_iter().map(|name| Pattern::parse(name));
        types.chain(self.by_pattern.iter().map(|(pattern, _)| Ok(pattern.clone()))).collect()
    }

    /// The most specific handler for an event type.
    pub(crate) fn find(&self, event_type: &str) -> Option<&dyn ErasedHandler> {
        let index = self.by_type.get(event_type).copied().or_else(|| {
            let fits = |(pattern, _): &&(Pattern, usize)| pattern.matches(event_type);
            self.by_pattern.iter().find(fits).map(|(_, index)| *index)
        })?;
        Some(&*self.handlers[index])
    }
}

impl fmt::Debug for HandlerSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patterns = self.by_pattern.iter().map(|(pattern, _)| pattern.as_str());
        f.debug_set().entries(self.by_type.keys()).entries(patterns).finish()
    }
}

impl fmt::Debug for HandlerSetBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerSetBuilder").field("handlers", &self.handlers.len()).finish()
    }
}
