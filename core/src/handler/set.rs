use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::RandomState;

use super::batch::{self, ErasedBatchHandler};
use super::{BatchHandler, ErasedHandler, Handler, erase};
use crate::event::{Contract, SchemasOf, TypeInfo, with_origin};
use crate::pattern::PatternMap;
use crate::version::{self, Migrations};
use crate::{Error, ErrorKind, Event, Pattern, Result, Text};

/// How many event types a set remembers the pattern of, as the route table does of routes.
const REMEMBERED_TYPES: usize = 4096;

/// The handlers of a subscription. The most specific one takes an event.
pub struct HandlerSet {
    /// Every handler's patterns; an event type is a literal one.
    by_pattern: PatternMap<usize>,
    /// The usual way: one hash probe for the types of typed handlers.
    by_type: HashMap<Text, Versions, RandomState>,
    /// What the patterns had for types that were looked for before.
    remembered: RwLock<HashMap<Text, Option<usize>, RandomState>>,
    handlers: Vec<Registered>,
    migrations: Option<Arc<Migrations>>,
    transactional: bool,
    /// What each handler takes first.
    names: Vec<Text>,
    contracts: Vec<Contract>,
}

/// The handlers of one event type, each for a major version of its data. Most types have one.
#[derive(Default)]
struct Versions(Vec<(u64, usize)>);

impl Versions {
    /// The handler of a version: of its major; else of the next later one, to which steps may lead;
    /// else of the latest.
    fn find(&self, version: Option<&str>) -> Option<usize> {
        let [.., (_, latest)] = self.0[..] else {
            return None;
        };
        if self.0.len() == 1 {
            return Some(latest);
        }
        let Some(major) = version.and_then(version::major) else {
            return Some(latest);
        };
        let mut at_least = self.0.iter().filter(|(known, _)| *known >= major);
        Some(at_least.next().map_or(latest, |(_, index)| *index))
    }

    /// Adds a handler, in the order of versions. `false` if there is one for this version.
    fn add(&mut self, version: &str, index: usize) -> bool {
        let major = version::major(version).unwrap_or_default();
        match self.0.binary_search_by_key(&major, |(known, _)| *known) {
            Ok(_) => false,
            Err(place) => {
                self.0.insert(place, (major, index));
                true
            }
        }
    }
}

/// What was found last: events of one type come in rows, and a comparison costs less than a look-up.
#[derive(Debug, Default)]
pub(crate) struct LastFound {
    event_type: Text,
    version: Option<Text>,
    index: Option<usize>,
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
    origin: Option<Text>,
    types: Vec<(&'static TypeInfo, usize)>,
    migrations: Option<Arc<Migrations>>,
    patterns: Vec<(Result<Pattern>, usize)>,
    handlers: Vec<Registered>,
    transactional: bool,
    contracts: Vec<Contract>,
}

impl HandlerSetBuilder {
    /// No handlers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what stands before the event types of typed handlers, those that follow: the
    /// service's origin. Patterns are of the whole type.
    pub fn with_origin(mut self, origin: Option<Text>) -> Self {
        self.origin = origin;
        self
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
        self.transactional |= H::TRANSACTIONAL;
        let index = self.push(Registered::One(erase(handler, state)));
        self.add_types(H::TYPES, H::SCHEMAS, index);
    }

    /// Adds a handler for the event types that a pattern takes.
    pub fn on_pattern<H, S, Args>(&mut self, pattern: &str, handler: H, state: S)
    where
        H: Handler<Args, S>,
        S: Send + Sync + 'static,
        Args: 'static,
    {
        self.transactional |= H::TRANSACTIONAL;
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
        self.add_types(H::TYPES, H::SCHEMAS, index);
    }

    fn add_types(&mut self, types: &'static [TypeInfo], schemas: SchemasOf, index: usize) {
        let contracts = Contract::all(types, schemas, self.origin.as_deref());
        self.contracts.extend(contracts);
        self.types.extend(types.iter().map(|info| (info, index)));
    }

    /// Sets the steps between versions of data.
    pub fn migrations(&mut self, migrations: Arc<Migrations>) {
        self.migrations = Some(migrations).filter(|steps| !steps.is_empty());
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
    /// handler, two for the same pattern, or for the same major version of an event type; for steps between
    /// versions that lead to no handler.
    pub fn build(self) -> Result<HandlerSet> {
        if self.handlers.is_empty() {
            return Err(
                Error::new(ErrorKind::Config, "the subscription has no handler")
                    .with_note("add one with `on`, `on_pattern` or `on_any`"),
            );
        }
        if let Some(migrations) = &self.migrations {
            let types: Vec<TypeInfo> = self.types.iter().map(|(info, _)| **info).collect();
            migrations.check(&types)?;
        }
        let mut by_type = HashMap::with_hasher(RandomState::default());
        let mut by_pattern = PatternMap::new();
        let mut names = vec![Text::default(); self.handlers.len()];
        for (info, index) in self.types {
            let name = with_origin(self.origin.as_deref(), info.name);
            let versions: &mut Versions = by_type.entry(name.clone()).or_default();
            let is_first = versions.0.is_empty();
            if !versions.add(info.version, index) {
                return Err(two_handlers(&name));
            }
            if names[index].is_empty() {
                names[index].clone_from(&name);
            }
            if is_first && by_pattern.insert(Pattern::parse(&name)?, index).is_err() {
                return Err(two_handlers(&name));
            }
        }
        for (pattern, index) in self.patterns {
            let pattern = pattern?;
            if names[index].is_empty() {
                names[index] = pattern.as_str().into();
            }
            if by_pattern.insert(pattern.clone(), index).is_err() {
                return Err(two_handlers(pattern.as_str()));
            }
        }
        Ok(HandlerSet {
            by_pattern,
            by_type,
            remembered: RwLock::default(),
            handlers: self.handlers,
            migrations: self.migrations,
            transactional: self.transactional,
            names,
            contracts: self.contracts,
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

    /// What is known of the event types that typed handlers take.
    pub fn contracts(&self) -> &[Contract] {
        &self.contracts
    }

    /// The most specific handler for an event, and its index.
    pub(crate) fn find(&self, event: &Event) -> Option<(usize, &Registered)> {
        let event_type = event.event_type();
        let versions = self.by_type.get(event_type);
        let by_type = versions.and_then(|versions| versions.find(event.data_version()));
        let index = by_type.or_else(|| self.by_pattern(event_type))?;
        Some((index, &self.handlers[index]))
    }

    /// As [`find`](Self::find), for many events in a row.
    pub(crate) fn find_next(
        &self,
        event: &Event,
        last: &mut LastFound,
    ) -> Option<(usize, &Registered)> {
        let (event_type, version) = (event.type_text(), event.version_text());
        if last.event_type != *event_type || last.version.as_ref() != version {
            *last = LastFound {
                event_type: event_type.clone(),
                version: version.cloned(),
                index: self.find(event).map(|(index, _)| index),
            };
        }
        last.index.map(|index| (index, &self.handlers[index]))
    }

    /// What the handler of an event type takes: the type or pattern it was registered for.
    pub(crate) fn takes(&self, event_type: &str) -> Option<&str> {
        let found = self.by_pattern.find(event_type);
        found.map(|(pattern, _)| pattern.as_str())
    }

    /// A name of each handler that lasts: its pattern, or the first of its event types.
    pub(crate) fn names(&self) -> &[Text] {
        &self.names
    }

    fn by_pattern(&self, event_type: &str) -> Option<usize> {
        // A panic can't leave the map half changed.
        let remembered = self.remembered.read();
        let remembered = remembered.unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = remembered.get(event_type) {
            return *index;
        }
        drop(remembered);
        let index = self.by_pattern.find(event_type).map(|(_, index)| *index);
        let remembered = self.remembered.write();
        let mut remembered = remembered.unwrap_or_else(PoisonError::into_inner);
        if remembered.len() < REMEMBERED_TYPES {
            remembered.insert(event_type.into(), index);
        }
        index
    }

    /// A handler by its index.
    pub(crate) fn registered(&self, index: usize) -> &Registered {
        &self.handlers[index]
    }

    /// The steps between versions of data.
    pub(crate) fn migrations(&self) -> Option<&Arc<Migrations>> {
        self.migrations.as_ref()
    }

    /// Whether one of the handlers takes part in a transaction.
    pub fn is_transactional(&self) -> bool {
        self.transactional
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Data that two versions are known of.
    struct Versioned<const MAJOR: usize>;

    impl<const MAJOR: usize> crate::EventData for Versioned<MAJOR> {
        const TYPES: &'static [TypeInfo] = match MAJOR {
            1 => &[TypeInfo::new("counted.versioned", "1.0.0")],
            _ => &[TypeInfo::new("counted.versioned", "2.0.0")],
        };

        fn type_info(&self) -> &'static TypeInfo {
            &Self::TYPES[0]
        }
    }

    impl<'de, const MAJOR: usize> serde::Deserialize<'de> for Versioned<MAJOR> {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Ok(Self)
        }
    }

    async fn take<const MAJOR: usize>(_: crate::handler::Payload<Versioned<MAJOR>>) {}

    #[test]
    fn an_event_finds_its_handler_whatever_came_before_it() {
        let mut builder = HandlerSetBuilder::new();
        builder.on(take::<1>, ());
        builder.on(take::<2>, ());
        builder.on_pattern("counted.*", || async {}, ());
        let handlers = builder.build().unwrap();
        let event = |(event_type, version): (&'static str, Option<&'static str>)| {
            let event = Event::builder(event_type).source("test");
            let event = match version {
                Some(version) => event.data_version(version),
                None => event,
            };
            event.build().unwrap()
        };
        let kinds = [
            ("counted.up", None),
            ("counted.versioned", Some("1.2.0")),
            ("counted.versioned", Some("2.0.0")),
            ("counted.versioned", None),
            ("other", None),
        ]
        .map(event);
        let mut last = LastFound::default();
        for one in &kinds {
            for other in &kinds {
                for event in [one, other, other] {
                    let found = handlers.find_next(event, &mut last).map(|(index, _)| index);
                    let alone = handlers.find(event).map(|(index, _)| index);
                    assert_eq!(found, alone, "{event:?}");
                }
            }
        }
        let found = kinds.map(|event| handlers.find(&event).map(|(index, _)| index));
        assert_eq!(found, [Some(2), Some(0), Some(1), Some(1), None]);
    }
}
