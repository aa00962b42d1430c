//! Which topics the routes, or what is declared under `[topics]`, say to be divided into partitions.

use super::template::TopicTemplate;
use crate::config::{Config, Origin};
use crate::{Error, Result, Text, Topic};

/// The most partitions that a topic can have: each is read by a connection of its own on Redis.
const MOST: u32 = 1_024;

/// The topics whose number of partitions is known, by their transport.
#[derive(Debug, Clone, Default)]
pub(crate) struct Partitioned(Vec<(Text, Topic)>);

impl Partitioned {
    /// Those of a config, which may be one that was not checked yet.
    pub(crate) fn of(config: &Config) -> Self {
        let uses = uses(config);
        let declared = uses.iter().filter_map(|it| {
            let topic = it.topic.as_ref()?;
            let partitions = it.partitions.or_else(|| Some(declared(config, it)?.0))?;
            Some((it.transport.clone(), topic.with_partitions(partitions)))
        });
        Self(declared.collect())
    }

    /// The topic with its number of partitions, if that is known, and without one if not.
    pub(crate) fn topic(&self, transport: &str, topic: Topic) -> Topic {
        let is_named = |(on, known): &&(Text, Topic)| on == transport && *known == topic;
        match self.0.iter().find(is_named) {
            Some((_, known)) => known.clone(),
            None if topic.partitions().is_some() => Topic::new(topic.name()),
            None => topic,
        }
    }
}

/// A number of partitions that can't be, or that two routes to one topic do not agree on.
pub(super) fn check(config: &Config) -> Result<()> {
    let uses = uses(config);
    for (index, one) in uses.iter().enumerate() {
        if let Some(partitions) = one.partitions {
            one.check_alone(partitions)?;
        }
        let Some(topic) = &one.topic else { continue };
        if let (Some(partitions), Some((other, origin))) = (one.partitions, declared(config, one))
            && partitions != other
        {
            let what = format!(
                "`{topic}` has {partitions} partitions here, and is declared with {other} ({})",
                origin.within_file()
            );
            return Err(one
                .error(&what)
                .with_note("say it once, or the same in both places"));
        }
        let same = |other: &&Use<'_>| {
            other.transport == one.transport && other.topic.as_ref() == Some(topic)
        };
        let earlier = uses[..index].iter().find(same);
        if let Some(other) = earlier.filter(|it| it.partitions != one.partitions) {
            return Err(one.contradicts(other, topic));
        }
    }
    Ok(())
}

/// What is declared of the topic of a use under `[topics]`, and where.
fn declared<'a>(config: &'a Config, one: &Use<'_>) -> Option<(u32, &'a Origin)> {
    let topic = one.topic.as_ref()?;
    let prefix = config.topic_prefix(one.transport);
    let (_, declared) = config.topics.iter().find(|(name, declared)| {
        let here = declared
            .transport
            .as_ref()
            .is_none_or(|on| on == one.transport);
        here && prefix.apply(name) == *topic
    })?;
    Some((declared.spec.partitions?, &declared.origin))
}

/// A route or the default, and what it says of its topic.
struct Use<'a> {
    path: String,
    transport: &'a Text,
    /// The topic, unless it depends on the event's type.
    topic: Option<Topic>,
    text: &'a Text,
    partitions: Option<u32>,
    /// Where the number was set, or the topic.
    origin: &'a Origin,
}

fn uses(config: &Config) -> Vec<Use<'_>> {
    let topic = |transport: &Text, text: &str| {
        let template = TopicTemplate::parse(text).ok()?;
        template
            .with_prefix(&config.topic_prefix(transport))
            .fixed()
    };
    let routes = config.routes.iter().enumerate().map(|(index, route)| {
        let path = format!("routes[{index}]");
        let (on, text, origins) = (&route.transport, &route.topic, &route.origins);
        (path, on, text, route.partitions, origins)
    });
    let default = config.routing.default.iter().map(|route| {
        let path = "routing.default".to_owned();
        let (on, text, origins) = (&route.transport, &route.topic, &route.origins);
        (path, on, text, route.partitions, origins)
    });
    let all = routes.chain(default);
    all.map(|(path, transport, text, partitions, origins)| Use {
        path,
        transport,
        topic: topic(transport, text),
        text,
        partitions,
        origin: match partitions {
            Some(_) => &origins.partitions,
            None => &origins.topic,
        },
    })
    .collect()
}

impl Use<'_> {
    fn check_alone(&self, partitions: u32) -> Result<()> {
        if !(1..=MOST).contains(&partitions) {
            return Err(self.error(&format!("must be from 1 to {MOST}")));
        }
        match &self.topic {
            Some(_) => Ok(()),
            None => Err(self
                .error(&format!(
                    "`{}` depends on the event's type, and such topics can't be partitioned",
                    self.text
                ))
                .with_note("name the topic, with a route for each if there are several")),
        }
    }

    fn contradicts(&self, other: &Self, topic: &Topic) -> Error {
        let said = |partitions: Option<u32>| match partitions {
            Some(partitions) => format!("has {partitions} partitions"),
            None => "is not partitioned".to_owned(),
        };
        let place = other.origin.within_file();
        let what = format!(
            "`{topic}` {} here, and {} ({place})",
            said(self.partitions),
            said(other.partitions)
        );
        self.error(&what)
            .with_note("routes to one topic say the same `partitions`")
    }

    fn error(&self, what: &str) -> Error {
        self.origin
            .error(&format!("{}.partitions", self.path), what)
    }
}
