//! The topics that a config speaks of: those it declares, those of routes, and those that go with
//! them.

use std::collections::BTreeMap;

use super::RouteTable;
use crate::config::{Config, TopicConfig};
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

impl RouteTable {
    /// The topics of each transport that the config speaks of, sorted by name, with the defaults
    /// filled in:
    ///
    /// - those under `[topics]`;
    /// - those of the routes and of the default, but for templates that depend on the event type;
    /// - for each subscription of the config, the dead-letter topics and those of long pauses that
    ///   go with these.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a topic on a transport that there is not, and
    /// for one that may be on several transports and has no route.
    pub fn wanted_topics(&self, config: &Config) -> Result<BTreeMap<Text, Vec<WantedTopic>>> {
        let mut wanted: BTreeMap<Text, BTreeMap<Text, WantedTopic>> = BTreeMap::new();
        for (name, declared) in &config.topics {
            for transport in self.transports_of(config, name, declared)? {
                let prefix = config.topic_prefix(&transport);
                let topic = prefix.apply(name);
                let spec = with_defaults(&declared.spec, config, &topic);
                let of_transport = wanted.entry(transport).or_default();
                of_transport.insert(
                    spec.name.clone(),
                    WantedTopic {
                        spec,
                        declared: true,
                    },
                );
            }
        }
        let bare = TopicSpec::new("");
        for (transport, topic) in self.named_topics() {
            let prefix = config.topic_prefix(&transport);
            let of_transport = wanted.entry(transport).or_default();
            for topic in companions(config, &topic, &prefix)
                .into_iter()
                .chain([topic])
            {
                let spec = with_defaults(&bare, config, &topic);
                let topic = WantedTopic {
                    spec,
                    declared: false,
                };
                of_transport.entry(topic.spec.name.clone()).or_insert(topic);
            }
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

/// The topics that go with one, for the subscriptions of the config: its dead letters and what waits
/// for long pauses to end. None for one that is such a topic itself.
fn companions(config: &Config, topic: &Topic, prefix: &TopicPrefix) -> Vec<Topic> {
    let settings = config.subscriptions.values();
    if settings
        .clone()
        .any(|it| it.dead_letter.covers(topic, prefix))
    {
        return Vec::new();
    }
    let of_one = settings.flat_map(|settings| {
        let group = config.service.group_of(settings);
        let delayed = settings.retry.delayed.iter().flat_map(move |delayed| {
            let pauses = delayed.pauses.iter();
            pauses.map(move |pause| delayed.topic.fill(topic, prefix, group, *pause))
        });
        delayed.chain(settings.dead_letter.topic(topic, prefix))
    });
    of_one.collect()
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
