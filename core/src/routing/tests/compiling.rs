//! Every config whose routes are wrong.

use super::*;

#[track_caller]
fn error(routes: &[(&str, &str, &str)], default: Option<(&str, &str)>) -> String {
    let error = RouteTable::compile(&config(routes, default)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    error.to_string()
}

#[test]
fn the_same_pattern_twice_names_both_lines() {
    let routes = [
        ("user.*", "redis", "a"),
        ("deal.*", "redis", "b"),
        ("user.*", "kafka", "c"),
    ];
    assert_eq!(
        error(&routes, None),
        "polybus.toml:6: routes[2].pattern: `user.*` has a route already, line 4\
         \n  remove one of the two: each pattern has one route"
    );
}

#[test]
fn an_unknown_transport_names_the_known_ones() {
    assert_eq!(
        error(&[("user.*", "redsi", "a")], None),
        "polybus.toml:4: routes[0].transport: there is no transport `redsi`\
         \n  did you mean `redis`?"
    );
    assert_eq!(
        error(&[], Some(("rabbit", "a"))),
        "polybus.toml:6: routing.default.transport: there is no transport `rabbit`\
         \n  known: kafka, redis; declare it: [transports.rabbit]"
    );
    let mut config = Config::new("s");
    let route = RouteConfig::new(pattern("a"), "m", "t");
    config.routes.push(route);
    assert_eq!(
        RouteTable::compile(&config).unwrap_err().to_string(),
        "routes[0].transport: there is no transport `m`\n  declare it: [transports.m]"
    );
}

#[test]
fn a_wrong_template_says_what_is_wrong() {
    const ADVICE: &str =
        "`{type}` is the event type, `{1}` its first segment, `{{` and `}}` are braces";
    for (topic, what, advice) in [
        ("", "is empty", "name the topic"),
        ("a.{0}", "`a.{0}` has an unknown placeholder `{0}`", ADVICE),
        ("{}", "`{}` has an unknown placeholder `{}`", ADVICE),
        (
            "{types}",
            "`{types}` has an unknown placeholder `{types}`",
            ADVICE,
        ),
        ("{-1}", "`{-1}` has an unknown placeholder `{-1}`", ADVICE),
        ("{+1}", "`{+1}` has an unknown placeholder `{+1}`", ADVICE),
        (
            "{99999999999999999999}",
            "`{99999999999999999999}` has an unknown placeholder `{99999999999999999999}`",
            ADVICE,
        ),
        ("a.{1", "`a.{1` has a `{` without its other half", ADVICE),
        ("a.1}", "`a.1}` has a `}` without its other half", ADVICE),
        ("{{1}", "`{{1}` has a `}` without its other half", ADVICE),
        (
            "x.{3}",
            "`x.{3}` takes segment 3, which the types of `user.*` may not have",
            "they have at least 2: take one of those, or `{type}`",
        ),
    ] {
        assert_eq!(
            error(&[("user.*", "redis", topic)], None),
            format!("polybus.toml:4: routes[0].topic: {what}\n  {advice}")
        );
    }
    assert_eq!(
        error(&[], Some(("redis", "x.{2}"))),
        "polybus.toml:6: routing.default.topic: \
         `x.{2}` takes segment 2, which the types of the default may not have\
         \n  they have at least 1: take one of those, or `{type}`"
    );
}

#[test]
fn a_route_that_can_never_win_is_an_error() {
    let routes = [("*.failed", "redis", "a"), ("+.*", "kafka", "b")];
    assert_eq!(
        error(&routes, None),
        "polybus.toml:4: routes[0].pattern: \
         no event ever takes `*.failed`: `+.*` (line 5) comes first\
         \n  segment by segment a literal comes before `+` before `*`"
    );
    table(
        &[("*.failed", "redis", "a"), ("+.failed", "kafka", "b")],
        None,
    );
}

#[test]
fn a_config_made_in_code_compiles() {
    let mut config = Config::new("s");
    let memory = TransportSection::new("memory", Section::default());
    config.transports.insert("m".into(), memory);
    let route = RouteConfig::new(pattern("a.*"), "m", "{2}");
    config.routes.push(route);
    config.routing.default = Some(DefaultRoute::new("m", "rest"));
    let table = RouteTable::compile(&config).unwrap();
    assert_eq!(way(&table, "a.b"), "m/b");
    assert_eq!(way(&table, "b"), "m/rest");
}
