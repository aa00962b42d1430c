//! The topics that a config speaks of: those it declares, those of routes, and those that go with
//! them.

use std::collections::BTreeMap;

use super::RouteTable;
use crate::config::{Config, SubscriptionConfig, TopicConfig};
use crate::topic::TopicPrefix;
use crate::transport::TopicSpec;
use crate::{Result, Text, Topic};

/// A topic that a config speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WantedTopic {
    /// What it is to be like, under its name on the server.
    pub spec: TopicSpec,
    /// Whether the config declares it, under `[topics]`.
    pub declared: bool,
}

impl WantedTopic {
    fn new(spec: &TopicSpec, config: &Config, topic: &Topic, declared: bool) -> Self {
        let mut spec = with_defaults(spec, config, topic);
        spec.partitions = topic.partitions().or(spec.partitions);
        Self { spec, declared }
    }
}

/// A subscription that runs, so that it is known what it reads.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Running {
    /// The subscription's name.
    pub name: Text,
    /// Its consumer group.
    pub group: Text,
    /// Its settings.
    pub settings: SubscriptionConfig,
    /// The topics that it reads, with their transports.
    pub topics: Vec<(Text, Topic)>,
}

impl Running {
    /// A subscription that reads some topics.
    pub fn new(
        name: impl Into<Text>,
        group: impl Into<Text>,
        settings: SubscriptionConfig,
        topics: Vec<(Text, Topic)>,
    ) -> Self {
        Self {
            name: name.into(),
            group: group.into(),
            settings,
            topics,
        }
    }
}

impl RouteTable {
    /// The topics of each transport that the config speaks of, sorted by name, with the defaults
    /// filled in:
    ///
    /// - those under `[topics]`;
    /// - those of the routes and of the default, but for templates that depend on the event type;
    /// - the dead-letter topics and those of long pauses that go with these: for a subscription that
    ///   runs with those that it reads, for one that is only in the config with those of all routes,
    ///   as it is not known which it will read.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a topic on a transport that there is not, and
    /// for one that may be on several transports and has no route.
    pub fn wanted_topics(
        &self,
        config: &Config,
        running: &[Running],
    ) -> Result<BTreeMap<Text, Vec<WantedTopic>>> {
        let mut wanted: BTreeMap<Text, BTreeMap<Text, WantedTopic>> = BTreeMap::new();
        for (name, declared) in &config.topics {
            for transport in self.transports_of(config, name, declared)? {
                let prefix = config.topic_prefix(&transport);
                let topic = prefix.apply(name);
                let topic = self.topic(&transport, &topic);
                let topic = WantedTopic::new(&declared.spec, config, &topic, true);
                let of_transport = wanted.entry(transport).or_default();
                of_transport.insert(topic.spec.name.clone(), topic);
            }
        }
        let bare = TopicSpec::new("");
        let named = self.named_topics();
        let companions = companions(config, running, &named);
        for (transport, topic) in named.into_iter().chain(companions) {
            let of_transport = wanted.entry(transport).or_default();
            let topic = WantedTopic::new(&bare, config, &topic, false);
            of_transport.entry(topic.spec.name.clone()).or_insert(topic);
        }
        let wanted = wanted.into_iter();
        Ok(wanted
            .map(|(transport, topics)| (transport, topics.into_values().collect()))
            .collect())
    }

    /// The topics of routes, and of the default, whose names do not depend on the event type, with
    /// their transports. A topic of several routes is named once.
    pub fn named_topics(&self) -> Vec<(Text, Topic)> {
        let mut topics: Vec<(Text, Topic)> = Vec::new();
        for route in self.routes.iter().chain(&self.default) {
            let literal = route
                .pattern
                .as_ref()
                .filter(|pattern| pattern.is_literal());
            let topic = match (&route.fixed, literal) {
                (Some(fixed), _) => fixed.topic.clone(),
                // A template, and one event type that fills it.
                (None, Some(event_type)) => match route.topic.fill(event_type.as_str()) {
                    Ok(topic) => topic,
                    Err(_) => continue,
                },
                (None, None) => continue,
            };
            let named = (route.transport.clone(), topic);
            if !topics.contains(&named) {
                topics.push(named);
            }
        }
        topics
    }

    fn transports_of(
        &self,
        config: &Config,
        name: &Text,
        declared: &TopicConfig,
    ) -> Result<Vec<Text>> {
        let place = format!("topics.{name:?}");
        if let Some(transport) = &declared.transport {
            let path = format!("{place}.transport");
            super::compile::check_transport_name(transport, &declared.origin, &path, config)?;
            return Ok(vec![transport.clone()]);
        }
        let routed = self.named_topics().into_iter();
        let routed = routed
            .filter(|(transport, topic)| config.topic_prefix(transport).apply(name) == *topic);
        let routed: Vec<Text> = routed.map(|(transport, _)| transport).collect();
        match (&routed[..], config.transports.len()) {
            ([], 1) => Ok(config.transports.keys().cloned().collect()),
            ([], _) => {
                let known: Vec<_> = config.transports.keys().map(Text::as_str).collect();
                let error = declared
                    .origin
                    .error(&place, "no route leads to this topic");
                Err(error.with_note(format!(
                    "say on which transport it is: `transport = \"..\"` (known: {})",
                    known.join(", ")
                )))
            }
            _ => Ok(routed),
        }
    }
}

/// The topics that go with those that are read: dead letters, and what waits for long pauses to end.
fn companions(config: &Config, running: &[Running], named: &[(Text, Topic)]) -> Vec<(Text, Topic)> {
    let idle = config.subscriptions.iter();
    let idle = idle.filter(|(name, _)| running.iter().all(|it| it.name != **name));
    let idle = idle.map(|(_, settings)| (config.service.group_of(settings), settings, named));
    let running = running.iter();
    let running = running.map(|it| (&it.group, &it.settings, &it.topics[..]));
    let of_one = idle.chain(running).flat_map(|(group, settings, topics)| {
        topics.iter().flat_map(move |(transport, topic)| {
            let prefix = config.topic_prefix(transport);
            let found = companions_of(topic, &prefix, group, settings);
            found.into_iter().map(|it| (transport.clone(), it))
        })
    });
    of_one.collect()
}

/// None for a topic that is such a one itself.
fn companions_of(
    topic: &Topic,
    prefix: &TopicPrefix,
    group: &str,
    settings: &SubscriptionConfig,
) -> Vec<Topic> {
    if settings.dead_letter.covers(topic, prefix) {
        return Vec::new();
    }
    let delayed = settings.retry.delayed.iter().flat_map(|delayed| {
        let pauses = delayed.pauses.iter();
        pauses.map(|pause| delayed.topic.fill(topic, prefix, group, *pause))
    });
    let letters = settings.dead_letter.topic(topic, prefix);
    delayed.chain(letters).collect()
}

fn with_defaults(spec: &TopicSpec, config: &Config, topic: &Topic) -> TopicSpec {
    let defaults = &config.topic_defaults;
    let mut spec = TopicSpec {
        name: topic.name().into(),
        partitions: spec.partitions.or(defaults.partitions),
        replication: spec.replication.or(defaults.replication),
        settings: spec.settings.or(&defaults.settings),
        groups: spec.groups.clone(),
    };
    if spec.groups.is_empty() {
        spec.groups.clone_from(&defaults.groups);
    }
    spec
}
