use std::fmt;

use super::{Route, RouteTable};
use crate::config::Origin;
use crate::{Pattern, Text, Topic};

/// Why an event type goes where it goes: what `polybus routes explain` prints.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Explanation {
    /// The event type.
    pub event_type: Text,
    /// The route that takes it. `None` if none does.
    pub decision: Option<RouteMatch>,
    /// The routes that would take it if the ones before them were not there, in this order. The
    /// default is the last.
    pub losers: Vec<RouteMatch>,
}

/// A route that takes an event type.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteMatch {
    /// The route's pattern. `None` for the default.
    pub pattern: Option<Pattern>,
    /// The transport's name.
    pub transport: Text,
    /// The topic of the event type. `None` if the topic needs a segment of it that is empty.
    pub topic: Option<Topic>,
    /// Where the route was set.
    pub origin: Origin,
}

impl RouteTable {
    /// Every route that takes an event type: the one that wins, and those that lose to it.
    pub fn explain(&self, event_type: &str) -> Explanation {
        let routes = self.by_pattern.find_all(event_type);
        let routes = routes.into_iter().map(|(_, index)| &self.routes[*index]);
        let mut matches = routes
            .chain(&self.default)
            .map(|route| RouteMatch::new(route, event_type));
        Explanation {
            event_type: event_type.into(),
            decision: matches.next(),
            losers: matches.collect(),
        }
    }
}

impl RouteMatch {
    fn new(route: &Route, event_type: &str) -> Self {
        Self {
            pattern: route.pattern.clone(),
            transport: route.transport.clone(),
            topic: route.topic.fill(event_type).ok(),
            origin: route.origin.clone(),
        }
    }
}

impl fmt::Display for Explanation {
    /// ```text
    /// user.created: transport `redis`, topic `user-events`, by `user.*` (polybus.toml:9)
    ///   loses: transport `kafka`, topic `everything`, by `*` (polybus.toml:14)
    /// ```
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.decision {
            Some(decision) => write!(f, "{}: {decision}", self.event_type)?,
            None => write!(f, "{}: no route takes it", self.event_type)?,
        }
        let mut losers = self.losers.iter();
        losers.try_for_each(|loser| write!(f, "\n  loses: {loser}"))
    }
}

impl fmt::Display for RouteMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transport `{}`, ", self.transport)?;
        match &self.topic {
            Some(topic) => write!(f, "topic `{topic}`, by ")?,
            None => f.write_str("no topic, as a segment is empty, by ")?,
        }
        match &self.pattern {
            Some(pattern) => write!(f, "`{pattern}`")?,
            None => f.write_str("the default")?,
        }
        match &self.origin {
            Origin::Code => Ok(()),
            origin => write!(f, " ({origin})"),
        }
    }
}
