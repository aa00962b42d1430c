use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use super::template::TopicTemplate;
use super::{Partitioned, Route, RouteTable, partitioned};
use crate::config::{
    Config, DefaultRoute, Origin, PublishConfig, RouteConfig, RouteOrigins, nearest,
};
use crate::pattern::PatternMap;
use crate::{Codec, Error, Pattern, Result, Text};

impl RouteTable {
    /// Checks the routes of a config and compiles them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), with file, line and key, for two routes
    /// with the same pattern; a route that can never win against another; a transport that the
    /// config does not have; a topic template that is malformed, or that takes a segment which
    /// the types of its route may not have;
    /// [`ErrorKind::MissingFeature`](crate::ErrorKind::MissingFeature) for a codec that is not compiled in.
    pub fn compile(config: &Config) -> Result<Self> {
        let routes = config.routes.iter().enumerate();
        let routes = routes
            .map(|(index, route)| self::route(index, route, config))
            .collect::<Result<Vec<_>>>()?;
        let by_pattern = by_pattern(&routes)?;
        check_all_can_win(&routes, &by_pattern)?;
        let default = config.routing.default.as_ref();
        partitioned::check(config)?;
        let known = Partitioned::of(config);
        Ok(Self {
            by_pattern,
            default: default
                .map(|route| default_route(route, config))
                .transpose()?
                .map(|route| route.partitioned(&known)),
            routes: routes
                .into_iter()
                .map(|route| route.partitioned(&known))
                .collect(),
            partitioned: known,
            file: config.file.clone(),
            remembered: RwLock::new(HashMap::default()),
        })
    }
}

fn route(index: usize, route: &RouteConfig, config: &Config) -> Result<Route> {
    let path = format!("routes[{index}]");
    let origins = &route.origins;
    check_transport(&route.transport, &origins.transport, &path, config)?;
    check_fallback(&route.publish, origins, &path, config)?;
    let at_least = route.pattern.segments().len();
    check_codec(route.codec, route.schema_registry, origins, &path)?;
    let topic = template(&route.topic, &origins.topic, &path, at_least, || {
        format!("the types of `{}`", route.pattern)
    })?;
    Ok(Route::new(
        Some((index, &route.pattern)),
        &route.transport,
        topic.with_prefix(&config.topic_prefix(&route.transport)),
        (route.codec, route.schema_registry),
        &origins.pattern,
    ))
}

fn default_route(route: &DefaultRoute, config: &Config) -> Result<Route> {
    let path = "routing.default";
    let origins = &route.origins;
    check_transport(&route.transport, &origins.transport, path, config)?;
    check_fallback(&route.publish, origins, path, config)?;
    check_codec(route.codec, route.schema_registry, origins, path)?;
    let topic = template(&route.topic, &origins.topic, path, 1, || {
        "the types of the default".to_owned()
    })?;
    let topic = topic.with_prefix(&config.topic_prefix(&route.transport));
    Ok(Route::new(
        None,
        &route.transport,
        topic,
        (route.codec, route.schema_registry),
        &origins.pattern,
    ))
}

impl Route {
    fn new(
        pattern: Option<(usize, &Pattern)>,
        transport: &Text,
        topic: TopicTemplate,
        (codec, schema_registry): (Codec, bool),
        origin: &Origin,
    ) -> Self {
        Self {
            index: pattern.map(|(index, _)| index),
            pattern: pattern.map(|(_, pattern)| pattern.clone()),
            transport: transport.clone(),
            topic,
            codec,
            schema_registry,
            origin: origin.clone(),
            fixed: None,
        }
    }

    /// With the number of partitions of its topic.
    fn partitioned(mut self, known: &Partitioned) -> Self {
        if let Some(topic) = self.topic.fixed() {
            let topic = known.topic(&self.transport, topic);
            self.fixed = Some(Arc::new(self.way(topic)));
        }
        self
    }
}

fn check_fallback(
    publish: &PublishConfig,
    origins: &RouteOrigins,
    path: &str,
    config: &Config,
) -> Result<()> {
    publish.fallback.as_ref().map_or(Ok(()), |fallback| {
        let path = format!("{path}.fallback");
        check_transport(&fallback.transport, &origins.fallback, &path, config)
    })
}

/// A codec that is not compiled in is found out at start, not at the first event.
fn check_codec(
    codec: Codec,
    schema_registry: bool,
    origins: &RouteOrigins,
    path: &str,
) -> Result<()> {
    if schema_registry && codec == Codec::MessagePack {
        let codec = codec.name();
        let what = format!("data that the codec `{codec}` writes have no schema in a registry");
        let path = format!("{path}.schema_registry");
        let error = origins.schema_registry.error(&path, &what);
        return Err(error.with_note("choose `codec = \"avro\"`, `\"protobuf\"` or `\"json\"`"));
    }
    codec.check().map_err(|error| {
        let path = format!("{path}.codec");
        let place = origins.codec.error(&path, error.message());
        let placed = Error::new(error.kind(), place.message());
        error.notes().iter().fold(placed, Error::with_note)
    })
}

fn check_transport(name: &str, origin: &Origin, path: &str, config: &Config) -> Result<()> {
    check_transport_name(name, origin, &format!("{path}.transport"), config)
}

/// Whether there is a transport of a name, which stands at a path.
pub(super) fn check_transport_name(
    name: &str,
    origin: &Origin,
    path: &str,
    config: &Config,
) -> Result<()> {
    if config.transports.contains_key(name) {
        return Ok(());
    }
    let known = || config.transports.keys().map(Text::as_str);
    let what = format!("there is no transport `{name}`");
    let error = origin.error(path, &what);
    Err(match nearest(name, known()) {
        Some(near) => error.with_note(format!("did you mean `{near}`?")),
        None if config.transports.is_empty() => {
            error.with_note(format!("declare it: [transports.{name}]"))
        }
        None => {
            let known = known().collect::<Vec<_>>().join(", ");
            error.with_note(format!("known: {known}; declare it: [transports.{name}]"))
        }
    })
}

/// `at_least` is the number of segments that all types of the route have.
fn template(
    text: &str,
    origin: &Origin,
    path: &str,
    at_least: usize,
    types: impl Fn() -> String,
) -> Result<TopicTemplate> {
    let wrong = |what: &str, advice: &str| -> Error {
        let error = origin.error(&format!("{path}.topic"), what);
        error.with_note(advice)
    };
    let template = TopicTemplate::parse(text).map_err(|(what, advice)| wrong(&what, advice))?;
    let needs = template.needs();
    if needs > at_least {
        let types = types();
        let what = format!("`{text}` takes segment {needs}, which {types} may not have");
        let advice = format!("they have at least {at_least}: take one of those, or `{{type}}`");
        return Err(wrong(&what, &advice));
    }
    Ok(template)
}

fn by_pattern(routes: &[Route]) -> Result<PatternMap<usize>> {
    let mut map = PatternMap::new();
    for (index, route, pattern) in with_patterns(routes) {
        if let Err((first, _)) = map.insert(pattern.clone(), index) {
            let first = routes[*first].origin.within_file();
            let what = format!("`{pattern}` has a route already, {first}");
            let path = format!("routes[{index}].pattern");
            return Err(route
                .origin
                .error(&path, &what)
                .with_note("remove one of the two: each pattern has one route"));
        }
    }
    Ok(map)
}

/// A route all of whose types go to a more specific one would be dead without a word, as
/// `*.failed` is beside `+.*`.
fn check_all_can_win(routes: &[Route], by_pattern: &PatternMap<usize>) -> Result<()> {
    for (index, route, pattern) in with_patterns(routes) {
        let mut others = by_pattern.covering(pattern).into_iter();
        let Some((wide, winner)) = others.find(|(wide, _)| wide.cmp_specificity(pattern).is_lt())
        else {
            continue;
        };
        let place = routes[*winner].origin.within_file();
        let what = format!("no event ever takes `{pattern}`: `{wide}` ({place}) comes first");
        return Err(route
            .origin
            .error(&format!("routes[{index}].pattern"), &what)
            .with_note("segment by segment a literal comes before `+` before `*`"));
    }
    Ok(())
}

fn with_patterns(routes: &[Route]) -> impl Iterator<Item = (usize, &Route, &Pattern)> {
    let routes = routes.iter().enumerate();
    routes.filter_map(|(index, route)| Some((index, route, route.pattern.as_ref()?)))
}
