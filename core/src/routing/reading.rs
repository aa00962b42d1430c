use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;

use super::template::Opened;
use super::{Route, RouteTable};
use crate::topic::TopicPattern;
use crate::{Error, ErrorKind, Pattern, Result, Text, Topic};

/// What a subscription reads on one transport.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reading {
    /// The transport's name.
    pub transport: Text,
    /// The topics whose names are known.
    pub topics: Vec<Topic>,
    /// Those whose names are not: of routes whose topic depends on the event type, for handlers
    /// of many types. One that is known too may fit a pattern.
    pub patterns: Vec<TopicPattern>,
}

impl RouteTable {
    /// Where to read what handlers take, for handlers of these patterns: one entry for each
    /// transport, in the order of their names, without duplicates.
    ///
    /// For an event type this is the topic that [`resolve`](Self::resolve) gives. For a pattern
    /// with wildcards these are the topics of every route that can carry a type it takes, the
    /// default included.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnreachableHandler`] for a pattern that no route can reach.
    pub fn reading(&self, interests: &[Pattern]) -> Result<Vec<Reading>> {
        let mut readings = Readings::default();
        for interest in interests {
            if interest.is_literal() {
                let event_type = interest.as_str();
                let route = self.route_of(event_type);
                let route = route.ok_or_else(|| self.unreachable(interest))?;
                let resolved = self.resolve_by(route, event_type)?;
                readings.add_topic(&resolved.transport, &resolved.topic);
                continue;
            }
            let routes = self.routes_of(interest);
            if routes.is_empty() {
                return Err(self.unreachable(interest));
            }
            for route in routes {
                readings.add(route, interest);
            }
        }
        let mut readings = readings.into_vec();
        for reading in &mut readings {
            for topic in &mut reading.topics {
                *topic = self.partitioned.topic(&reading.transport, topic.clone());
            }
        }
        Ok(readings)
    }

    /// The routes that can carry a type which a pattern takes. A route can't if a more specific
    /// one takes all those types before it.
    fn routes_of(&self, interest: &Pattern) -> Vec<&Route> {
        let takes_all = self.by_pattern.covering(interest);
        let reachable = |route: &&Route| {
            let Some(pattern) = &route.pattern else {
                return takes_all.is_empty();
            };
            let comes_before = |(other, _): &(&Pattern, _)| other.cmp_specificity(pattern).is_lt();
            pattern.intersects(interest) && !takes_all.iter().any(comes_before)
        };
        let routes = self.routes.iter().chain(&self.default);
        routes.filter(reachable).collect()
    }

    fn unreachable(&self, interest: &Pattern) -> Error {
        let what = format!("no route can ever reach the handler of `{interest}`");
        Error::new(ErrorKind::UnreachableHandler, what)
            .with_note(self.list_routes())
            .with_note(format!(
                "add a route for `{interest}`, or remove the handler"
            ))
    }
}

/// By transport. The sets hold what the lists hold.
#[derive(Default)]
struct Readings(BTreeMap<Text, (Unique<Topic>, Unique<TopicPattern>)>);

impl Readings {
    fn add(&mut self, route: &Route, interest: &Pattern) {
        match route.topic.open(route.pattern.as_ref(), interest) {
            Opened::Topic(topic) => self.add_topic(&route.transport, &topic),
            Opened::Pattern(pattern) => {
                self.0
                    .entry(route.transport.clone())
                    .or_default()
                    .1
                    .add(&pattern);
            }
        }
    }

    fn add_topic(&mut self, transport: &Text, topic: &Topic) {
        self.0.entry(transport.clone()).or_default().0.add(topic);
    }

    fn into_vec(self) -> Vec<Reading> {
        let readings = self.0.into_iter();
        readings
            .map(|(transport, (topics, patterns))| Reading {
                transport,
                topics: topics.list,
                patterns: patterns.list,
            })
            .collect()
    }
}

/// A list without duplicates, in the order of the first appearance.
struct Unique<T> {
    list: Vec<T>,
    seen: HashSet<T>,
}

impl<T: Clone + Eq + Hash> Unique<T> {
    fn add(&mut self, item: &T) {
        if self.seen.insert(item.clone()) {
            self.list.push(item.clone());
        }
    }
}

impl<T> Default for Unique<T> {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            seen: HashSet::new(),
        }
    }
}
