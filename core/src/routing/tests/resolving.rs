//! Where an event type goes.

use super::*;

#[test]
fn the_most_specific_route_wins_whatever_the_order() {
    let mut routes = [
        ("*", "kafka", "all"),
        ("*.failed", "kafka", "failed"),
        ("user.*", "redis", "user"),
        ("user.+", "redis", "user-flat"),
        ("user.created", "kafka", "created"),
        ("user.*.failed", "redis", "user-failed"),
    ];
    for _ in 0..routes.len() {
        routes.rotate_left(1);
        let table = table(&routes, None);
        for (event_type, expected) in [
            ("user.created", "kafka/created"),
            ("user.deleted", "redis/user-flat"),
            ("user.failed", "redis/user-flat"),
            ("user.profile.updated", "redis/user"),
            ("user.profile.failed", "redis/user-failed"),
            ("deal.failed", "kafka/failed"),
            ("user", "kafka/all"),
        ] {
            assert_eq!(way(&table, event_type), expected, "{event_type}");
            assert_eq!(way(&table, event_type), expected, "the second time");
        }
    }
}

#[test]
fn equally_specific_routes_go_by_the_order_of_the_file() {
    let first = ("*.a.*", "redis", "a");
    let second = ("*.b.*", "kafka", "b");
    assert_eq!(way(&table(&[first, second], None), "x.b.a.y"), "redis/a");
    assert_eq!(way(&table(&[second, first], None), "x.b.a.y"), "kafka/b");
}

#[test]
fn what_is_resolved_says_by_which_route() {
    let table = table(&BRIEF, Some(("kafka", "rest")));
    let resolved = table.resolve("deal.closed").unwrap();
    assert_eq!(resolved.transport, "kafka");
    assert_eq!(resolved.topic, Topic::new("filops.deals.status"));
    assert_eq!(resolved.pattern, Some(pattern("deal.*")));
    assert_eq!(resolved.route, Some(1));
    assert_eq!(resolved.codec, Codec::Json);
    let resolved = table.resolve("order.created").unwrap();
    assert_eq!(resolved.topic, Topic::new("rest"));
    assert_eq!((&resolved.pattern, resolved.route), (&None, None));
}

#[test]
fn templates_are_filled_from_the_type() {
    let routes = [
        ("order.*", "kafka", "orders.{2}"),
        ("user.*", "redis", "{type}"),
        ("a.+.*", "redis", "x-{3}-{1}{2}.{1}"),
    ];
    let table = table(&routes, Some(("kafka", "rest.{1}")));
    for (event_type, expected) in [
        ("order.paid", "kafka/orders.paid"),
        ("order.paid.twice", "kafka/orders.paid"),
        ("user.profile.updated", "redis/user.profile.updated"),
        ("a.b.c.d", "redis/x-c-ab.a"),
        ("deal.closed", "kafka/rest.deal"),
        ("deal", "kafka/rest.deal"),
    ] {
        assert_eq!(way(&table, event_type), expected, "{event_type}");
    }
}

#[test]
fn doubled_braces_are_braces() {
    for (template, topic) in [
        ("{{user}}-events", "{user}-events"),
        ("{{{1}}}-{2}", "{user}-created"),
        ("{{{{}}", "{{}"),
        ("a{{", "a{"),
    ] {
        let table = table(&[("user.created", "redis", template)], None);
        assert_eq!(way(&table, "user.created"), format!("redis/{topic}"));
    }
}

#[test]
fn no_route_reads_as_a_user_wants_it() {
    let error = table(&BRIEF, None).resolve("order.created").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoRoute);
    assert_eq!(
        error.to_string(),
        "no route takes `order.created`\
         \n  routes in polybus.toml: `user.*` (line 4), `deal.*` (line 5)\
         \n  add a route for `order.*`, or set `default` under [routing]"
    );
    let error = table(&[], None).resolve("order").unwrap_err();
    assert_eq!(
        error.to_string(),
        "no route takes `order`\
         \n  there are no routes in polybus.toml\
         \n  add a route for `order`, or set `default` under [routing]"
    );
}

#[test]
fn a_long_list_of_routes_is_cut() {
    let mut config = Config::new("s");
    let memory = TransportSection::new("memory", Section::default());
    config.transports.insert("m".into(), memory);
    for index in 0..25 {
        let pattern = pattern(&format!("a{index}"));
        config.routes.push(RouteConfig::new(pattern, "m", "t"));
    }
    let table = RouteTable::compile(&config).unwrap();
    let error = table.resolve("b").unwrap_err().to_string();
    assert!(error.contains("routes: `a0` (in code), "), "{error}");
    assert!(error.contains("`a19` (in code), 5 more\n"), "{error}");
}

#[test]
fn an_empty_segment_that_the_topic_needs_is_an_error() {
    let table = table(&[("a.*", "redis", "x.{2}")], None);
    let error = table.resolve("a..b").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidEvent);
    assert_eq!(
        error.to_string(),
        "segment 2 of the event type `a..b` is empty\
         \n  the topic `x.{2}` of its route needs it"
    );
}

#[test]
fn the_second_look_up_of_a_type_allocates_nothing() {
    let table = table(&[("user.*", "redis", "users.{2}")], None);
    let event_type = "user.a-segment-that-is-longer-than-what-fits-inline";
    let first = allocation_counter::measure(|| drop(table.resolve(event_type).unwrap()));
    assert!(first.count_total > 0, "the counter counts");
    let second = allocation_counter::measure(|| drop(table.resolve(event_type).unwrap()));
    assert_eq!(second.count_total, 0);
}

#[test]
fn the_memory_for_types_is_bounded_and_all_types_resolve() {
    let table = table(&[("*", "redis", "{type}")], None);
    for number in 0..2 * REMEMBERED_TYPES {
        let event_type = format!("type.{number}");
        assert_eq!(way(&table, &event_type), format!("redis/{event_type}"));
    }
    let remembered = table.remembered.read().unwrap().len();
    assert_eq!(remembered, REMEMBERED_TYPES);
}

#[test]
fn threads_that_resolve_at_once_agree() {
    let table = table(&[("*", "redis", "{type}")], None);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..1000 {
                    let event_type = format!("type.{number}");
                    assert_eq!(way(&table, &event_type), format!("redis/{event_type}"));
                }
            });
        }
    });
    assert_eq!(table.remembered.read().unwrap().len(), 1000);
}

#[test]
fn thousands_of_routes_resolve_as_few_do() {
    let mut config = config(&BRIEF, None);
    for number in 0..4000 {
        let pattern = pattern(&format!("app.service-{number}.*"));
        let topic = format!("topic-{number}");
        config
            .routes
            .push(RouteConfig::new(pattern, "kafka", topic));
    }
    let table = RouteTable::compile(&config).unwrap();
    assert_eq!(
        way(&table, "app.service-3999.started.twice"),
        "kafka/topic-3999"
    );
    assert_eq!(way(&table, "user.created"), "redis/user-events");
    assert!(table.resolve("app.service-4000.started").is_err());
}
