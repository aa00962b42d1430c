//! Routes: which event types travel on which transport, in which topic.

mod compile;
mod explain;
mod partitioned;
mod reading;
mod template;
mod topics;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::RandomState;

pub use explain::{Explanation, RouteMatch};
pub(crate) use partitioned::Partitioned;
pub use reading::Reading;
pub use topics::{Running, WantedTopic};

use crate::codec::Codec;
use crate::config::Origin;
use crate::pattern::PatternMap;
use crate::topic::TopicPattern;
use crate::{Error, ErrorKind, Pattern, Result, Text, Topic};
use template::{Opened, TopicTemplate};

/// How many event types a table remembers the way of. Programs have fewer; a publisher that
/// makes types up must not fill the memory.
const REMEMBERED_TYPES: usize = 4096;

/// How many routes an error lists.
const LISTED_ROUTES: usize = 20;

/// The routes of a config, checked and compiled.
///
/// The most specific pattern that takes an event type wins
/// ([`Pattern::cmp_specificity`]), and of equally specific ones the first in the config. What
/// no route takes goes to the default, if the config has one.
#[derive(Debug)]
pub struct RouteTable {
    /// In the order of the config.
    routes: Vec<Route>,
    /// Indices of `routes`.
    by_pattern: PatternMap<usize>,
    default: Option<Route>,
    partitioned: Partitioned,
    file: Option<Text>,
    remembered: RwLock<HashMap<Text, Arc<Resolved>, RandomState>>,
}

/// The way of an event type.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resolved {
    /// The transport's name.
    pub transport: Text,
    /// The topic.
    pub topic: Topic,
    /// The pattern of the route. `None` for the default.
    pub pattern: Option<Pattern>,
    /// The index of the route in the config. `None` for the default.
    pub route: Option<usize>,
    /// How data is written on the route.
    pub codec: Codec,
    /// Whether the schemas of the data stand in a [registry](crate::registry).
    pub schema_registry: bool,
}

/// A route, or the default, which has no pattern.
#[derive(Debug)]
struct Route {
    index: Option<usize>,
    pattern: Option<Pattern>,
    transport: Text,
    topic: TopicTemplate,
    codec: Codec,
    schema_registry: bool,
    origin: Origin,
    /// The way of every type, if the topic does not depend on it.
    fixed: Option<Arc<Resolved>>,
}

impl RouteTable {
    /// The way of an event type.
    ///
    /// The first time costs a walk through the patterns that share their beginning with the
    /// type. After that it is one look-up in a hash map, without allocation, for up to 4096
    /// types; types beyond those are walked for each time.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoRoute`] if no route takes the type and there is no default;
    /// [`ErrorKind::InvalidEvent`] if the type is empty, or the topic's name needs a segment of the type that is empty.
    pub fn resolve(&self, event_type: &str) -> Result<Arc<Resolved>> {
        // A panic can't leave the map half changed, so a poisoned lock is as good as any.
        let remembered = self
            .remembered
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(resolved) = remembered.get(event_type) {
            return Ok(Arc::clone(resolved));
        }
        let full = remembered.len() >= REMEMBERED_TYPES;
        drop(remembered);
        let route = self
            .route_of(event_type)
            .ok_or_else(|| self.no_route(event_type))?;
        let resolved = self.resolve_by(route, event_type)?;
        if !full {
            self.remember(event_type, &resolved);
        }
        Ok(resolved)
    }

    /// A topic with its number of partitions, if a route says it, and without one if none does.
    pub fn topic(&self, transport: &str, topic: &Topic) -> Topic {
        self.partitioned.topic(transport, topic.clone())
    }

    /// The topic of a route, or the pattern of its topics where they depend on the event type.
    pub(crate) fn topics(&self, index: usize) -> std::result::Result<Topic, TopicPattern> {
        let route = &self.routes[index];
        let pattern = route.pattern.as_ref().expect("only the default has none");
        match route.topic.open(Some(pattern), pattern) {
            Opened::Topic(topic) => {
                Ok(self.partitioned.topic(&self.routes[index].transport, topic))
            }
            Opened::Pattern(pattern) => Err(pattern),
        }
    }

    /// The routes, by their index in the config, that bring events to a topic.
    pub fn leading_to(&self, transport: &str, topic: &str) -> impl Iterator<Item = usize> {
        let leads = move |route: &&Route| {
            let (Some(index), true) = (route.index, route.transport == transport) else {
                return false;
            };
            match self.topics(index) {
                Ok(fixed) => fixed.name() == topic,
                Err(open) => open.matches(topic),
            }
        };
        self.routes
            .iter()
            .filter(leads)
            .filter_map(|route| route.index)
    }

    fn resolve_by(&self, route: &Route, event_type: &str) -> Result<Arc<Resolved>> {
        match &route.fixed {
            Some(resolved) => Ok(Arc::clone(resolved)),
            None => {
                let topic = route.topic.fill(event_type)?;
                let topic = self.partitioned.topic(&route.transport, topic);
                Ok(Arc::new(route.way(topic)))
            }
        }
    }

    fn route_of(&self, event_type: &str) -> Option<&Route> {
        match self.by_pattern.find(event_type) {
            Some((_, index)) => Some(&self.routes[*index]),
            None => self.default.as_ref(),
        }
    }

    fn remember(&self, event_type: &str, resolved: &Arc<Resolved>) {
        let mut remembered = self
            .remembered
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if remembered.len() < REMEMBERED_TYPES {
            remembered.insert(event_type.into(), Arc::clone(resolved));
        }
    }

    fn no_route(&self, event_type: &str) -> Error {
        if event_type.is_empty() {
            let message = "an event needs a `type` that is not empty";
            return Error::new(ErrorKind::InvalidEvent, message);
        }
        let wanted = match event_type.split_once('.') {
            Some((first, _)) => format!("{first}.*"),
            None => event_type.to_owned(),
        };
        Error::new(ErrorKind::NoRoute, format!("no route takes `{event_type}`"))
            .with_note(self.list_routes())
            .with_note(format!(
                "add a route for `{wanted}`, or set `default` under [routing]"
            ))
    }

    /// `routes in polybus.toml: `user.*` (line 9), `deal.*` (line 14)`.
    fn list_routes(&self) -> String {
        let file = match &self.file {
            Some(file) => format!(" in {file}"),
            None => String::new(),
        };
        if self.routes.is_empty() {
            return format!("there are no routes{file}");
        }
        let listed = self.routes.iter().take(LISTED_ROUTES);
        let mut listed: Vec<_> = listed
            .map(|route| format!("{} ({})", route.name(), route.origin.within_file()))
            .collect();
        if self.routes.len() > LISTED_ROUTES {
            listed.push(format!("{} more", self.routes.len() - LISTED_ROUTES));
        }
        format!("routes{file}: {}", listed.join(", "))
    }
}

impl Route {
    fn way(&self, topic: Topic) -> Resolved {
        Resolved {
            transport: self.transport.clone(),
            topic,
            pattern: self.pattern.clone(),
            route: self.index,
            codec: self.codec,
            schema_registry: self.schema_registry,
        }
    }

    fn name(&self) -> String {
        match &self.pattern {
            Some(pattern) => format!("`{pattern}`"),
            None => "the default".to_owned(),
        }
    }
}
