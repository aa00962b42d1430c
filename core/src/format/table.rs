use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::transport::Formatted;
use super::{Format, Formats};
use crate::config::{Config, RouteConfig, nearest};
use crate::routing::RouteTable;
use crate::topic::TopicPattern;
use crate::transport::DynTransport;
use crate::{Codec, Error, Result, Text, Topic};

/// Which topics of one transport have a format of their own.
#[derive(Debug, Clone, Default)]
pub struct FormatTable {
    fixed: HashMap<Topic, Chosen>,
    open: Vec<(TopicPattern, Chosen)>,
}

/// The format of a topic.
#[derive(Clone)]
pub(super) struct Chosen {
    pub(super) format: Arc<dyn Format>,
    /// The event type of its route, if that takes only one.
    pub(super) event_type: Option<Text>,
}

impl FormatTable {
    /// The formats that the routes of a config choose for the topics of one transport.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config), with file, line and key, for a format that nobody knows; for one that
    /// holds JSON alone on a route of another codec; for
    /// `plain` on a route of more than one event type; for routes that write one topic in two ways.
    pub fn of_transport(
        config: &Config,
        table: &RouteTable,
        transport: &str,
        formats: &Formats,
    ) -> Result<Self> {
        let mut formatted = Self::default();
        let routes = config.routes.iter().enumerate();
        let routes = routes.filter(|(_, route)| route.transport == transport);
        let mut written: HashMap<&str, Option<&str>> = HashMap::new();
        for (index, route) in routes {
            let name = route.format.as_deref();
            if let Some(other) = written.insert(&route.topic, name)
                && other != name
            {
                return Err(two_ways(index, route, other));
            }
            if let Some(name) = name {
                let chosen = choose(index, route, name, formats)?;
                match table.topics(index) {
                    Ok(topic) => drop(formatted.fixed.insert(topic, chosen)),
                    Err(pattern) => formatted.open.push((pattern, chosen)),
                }
            }
        }
        Ok(formatted)
    }

    /// The transport, with these formats on top of its own.
    #[must_use]
    pub fn around(self, transport: DynTransport) -> DynTransport {
        if self.fixed.is_empty() && self.open.is_empty() {
            return transport;
        }
        DynTransport::new(Formatted::new(transport, self))
    }

    pub(super) fn find(&self, topic: &Topic) -> Option<&Chosen> {
        let open = || {
            let mut open = self.open.iter();
            open.find(|(pattern, _)| pattern.matches(topic.name()))
        };
        self.fixed
            .get(topic)
            .or_else(|| open().map(|(_, chosen)| chosen))
    }
}

fn choose(index: usize, route: &RouteConfig, name: &str, formats: &Formats) -> Result<Chosen> {
    let wrong = |what: &str| {
        let origin = &route.origins.format;
        origin.error(&format!("routes[{index}].format"), what)
    };
    let Some(format) = formats.find(name) else {
        let error = wrong(&format!("there is no format `{name}`"));
        let known = formats.names().collect::<Vec<_>>().join(", ");
        return Err(match nearest(name, formats.names()) {
            Some(near) => error.with_note(format!("did you mean `{near}`?")),
            None => error.with_note(format!("known: {known}")),
        });
    };
    let literal = route.pattern.is_literal();
    if format.needs_type() && !literal {
        return Err(wrong(&format!(
            "records of format `{name}` do not say their event type, and `{}` takes several",
            route.pattern
        ))
        .with_note("give each event type a route and a topic of its own"));
    }
    if format.needs_json() && route.codec != Codec::Json {
        let codec = route.codec.name();
        let what = format!("format `{name}` holds data as JSON alone, and the codec is `{codec}`");
        return Err(wrong(&what).with_note("`structured` and `plain` hold data of any codec"));
    }
    if format.needs_json() && route.schema_registry {
        let what = format!("format `{name}` has no place for the name of a schema");
        return Err(
            wrong(&what).with_note("`structured` and `plain` have, and a route without one")
        );
    }
    Ok(Chosen {
        format: Arc::clone(format),
        event_type: literal.then(|| route.pattern.as_str().into()),
    })
}

fn two_ways(index: usize, route: &RouteConfig, other: Option<&str>) -> Error {
    let named = |format: Option<&str>| format.unwrap_or("the transport's own").to_owned();
    let what = format!(
        "topic `{}` would be written as {} and, by another route, as {}",
        route.topic,
        named(route.format.as_deref()),
        named(other)
    );
    let origin = &route.origins.format;
    origin
        .error(&format!("routes[{index}].format"), &what)
        .with_note("a topic has one format, or its readers could not tell")
}

impl fmt::Debug for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.format.name())
    }
}
