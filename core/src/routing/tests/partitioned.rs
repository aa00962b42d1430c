//! Topics that are divided into partitions.

use super::*;

fn config(routes: &str) -> Config {
    let text = format!(
        "service.name = 's'\nservice.prefix = 'p.'\ntransports = {{ redis = {{ kind = 'r' }}, kafka = {{ kind = \
         'k' }} }}\n{routes}"
    );
    let none: [(&str, &str); 0] = [];
    Config::parse_with(&text, "polybus.toml", none).unwrap()
}

fn route(pattern: &str, transport: &str, rest: &str) -> String {
    format!("[[routes]]\npattern = '{pattern}'\ntransport = '{transport}'\n{rest}\n")
}

#[track_caller]
fn error(routes: &str) -> String {
    let error = RouteTable::compile(&config(routes)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    error.to_string()
}

const USERS: &str = "topic = 'users'\npartitions = 8";

#[test]
fn everybody_who_asks_for_the_topic_learns_its_partitions() {
    let routes = route("user.*", "redis", USERS)
        + &route("users", "redis", "topic = '{type}'")
        + &route("deal.*", "kafka", "topic = 'users'");
    let config = config(&routes);
    let table = RouteTable::compile(&config).unwrap();
    let resolved = |event_type| table.resolve(event_type).unwrap().topic.partitions();
    assert_eq!(resolved("user.created"), Some(8));
    // The name that a template makes is the same topic.
    assert_eq!(resolved("users"), Some(8));
    assert_eq!(resolved("deal.won"), None);

    let readings = table.reading(&[pattern("*")]).unwrap();
    let of = |name: &str| {
        let reading = readings.iter().find(|it| it.transport == name).unwrap();
        let topic = reading.topics.iter().find(|it| it.name() == "p.users");
        topic.unwrap().partitions()
    };
    assert_eq!((of("redis"), of("kafka")), (Some(8), None));

    assert_eq!(
        table
            .topic("redis", &config.topic_prefix("redis").apply("users"))
            .partitions(),
        Some(8)
    );
    assert_eq!(
        table.topic("redis", &config.topic_prefix("redis").apply("p.users")),
        Topic::new("p.users")
    );
    assert_eq!(
        table
            .topic("kafka", &config.topic_prefix("kafka").apply("users"))
            .partitions(),
        None
    );
    let elsewhere = Topic::new("p.users").with_partitions(3);
    assert_eq!(table.topic("kafka", &elsewhere).partitions(), None);
}

#[test]
fn the_default_has_partitions_too() {
    let text = "[routing]\ndefault = { transport = 'redis', topic = 'rest', partitions = 2 }";
    let table = RouteTable::compile(&config(text)).unwrap();
    assert_eq!(table.resolve("a").unwrap().topic.partitions(), Some(2));
}

#[test]
fn numbers_that_can_not_be_are_refused() {
    for number in [0, 1_025] {
        let rest = format!("topic = 'users'\npartitions = {number}");
        assert_eq!(
            error(&route("user.*", "redis", &rest)),
            "polybus.toml:8: routes[0].partitions: must be from 1 to 1024"
        );
    }
    for number in [1, 1_024] {
        let rest = format!("topic = 'users'\npartitions = {number}");
        RouteTable::compile(&config(&route("user.*", "redis", &rest))).unwrap();
    }
}

#[test]
fn topics_that_depend_on_the_type_are_not_partitioned() {
    assert_eq!(
        error(&route(
            "user.*",
            "redis",
            "topic = 'of-{1}'\npartitions = 2"
        )),
        "polybus.toml:8: routes[0].partitions: `of-{1}` depends on the event's type, and such \
         topics can't be partitioned\n  name the topic, with a route for each if there are several"
    );
}

#[test]
fn routes_to_one_topic_agree() {
    let advice = "\n  routes to one topic say the same `partitions`";
    let first = route("user.*", "redis", USERS);
    let other = first.clone() + &route("deal.*", "redis", "topic = 'users'\npartitions = 4");
    assert_eq!(
        error(&other),
        format!(
            "polybus.toml:13: routes[1].partitions: `p.users` has 4 partitions here, and has 8 \
             partitions (line 8){advice}"
        )
    );
    let plain = first + &route("deal.*", "redis", "topic = 'p.users'");
    assert_eq!(
        error(&plain),
        format!(
            "polybus.toml:12: routes[1].partitions: `p.users` is not partitioned here, and has 8 \
             partitions (line 8){advice}"
        )
    );
}

#[test]
fn what_is_declared_of_a_topic_holds_for_its_routes() {
    let first = route("user.*", "redis", "topic = 'users'");
    let declared = first.clone() + "[topics.users]\npartitions = 3\n";
    let config_of = config(&declared);
    let table = RouteTable::compile(&config_of).unwrap();
    let resolved = table.resolve("user.created").unwrap();
    assert_eq!(resolved.topic.partitions(), Some(3));
    assert_eq!(
        table
            .topic("redis", &config_of.topic_prefix("redis").apply("users"))
            .partitions(),
        Some(3)
    );
    assert_eq!(
        table
            .topic("kafka", &config_of.topic_prefix("kafka").apply("users"))
            .partitions(),
        None
    );

    let other = route("user.*", "redis", USERS) + "[topics.users]\npartitions = 3\n";
    assert_eq!(
        error(&other),
        "polybus.toml:8: routes[0].partitions: `p.users` has 8 partitions here, and is declared with 3 \
         (line 9)\n  say it once, or the same in both places"
    );
}
