//! Where handlers read.

use super::*;

/// `transport: topics and patterns` of each reading.
#[track_caller]
fn readings(table: &RouteTable, interests: &[&str]) -> Vec<String> {
    let interests: Vec<_> = interests.iter().map(|text| pattern(text)).collect();
    let readings = table.reading(&interests).unwrap();
    let names = |reading: &Reading| {
        let topics = reading.topics.iter().map(ToString::to_string);
        let patterns = reading.patterns.iter().map(TopicPattern::to_regex);
        topics.chain(patterns).collect::<Vec<_>>().join(" ")
    };
    let line = |reading: &Reading| format!("{}: {}", reading.transport, names(reading));
    readings.iter().map(line).collect()
}

#[test]
fn an_event_type_is_read_where_it_is_published() {
    let table = table(&BRIEF, Some(("kafka", "rest.{1}")));
    assert_eq!(readings(&table, &["user.created"]), ["redis: user-events"]);
    assert_eq!(readings(&table, &["order.created"]), ["kafka: rest.order"]);
    assert_eq!(
        readings(&table, &["user.created", "user.deleted", "deal.closed"]),
        ["kafka: filops.deals.status", "redis: user-events"]
    );
}

#[test]
fn a_pattern_is_read_from_every_route_that_can_carry_it() {
    let routes = [
        ("user.*", "redis", "user-events"),
        ("deal.*", "kafka", "deals"),
        ("*.failed", "kafka", "failures"),
    ];
    let with_default = table(&routes, Some(("redis", "rest")));
    let without = table(&routes, None);
    for (interest, expected) in [
        (
            "*",
            vec!["kafka: deals failures", "redis: user-events rest"],
        ),
        // `user.*` takes all of these before `*.failed` and the default.
        ("user.*", vec!["redis: user-events"]),
        ("user.+.failed", vec!["redis: user-events"]),
        (
            "*.failed",
            vec!["kafka: deals failures", "redis: user-events"],
        ),
        ("order.*", vec!["kafka: failures", "redis: rest"]),
        ("+", vec!["redis: rest"]),
    ] {
        assert_eq!(readings(&with_default, &[interest]), expected, "{interest}");
    }
    assert_eq!(
        readings(&without, &["*"]),
        ["kafka: deals failures", "redis: user-events"]
    );
}

#[test]
fn every_type_is_read_where_resolve_sends_it() {
    let routes = [
        ("a.*", "redis", "a-{2}"),
        ("a.+", "kafka", "a-flat"),
        ("*.c", "kafka", "{type}"),
        ("+.b.*", "redis", "{1}.{2}.{3}"),
        ("b", "redis", "b"),
    ];
    let table = table(&routes, Some(("kafka", "rest-{1}")));
    let words = ["a", "b", "c"];
    let two = words.map(|first| words.map(|second| format!("{first}.{second}")));
    let two = two.as_flattened();
    let three = two
        .iter()
        .flat_map(|two| words.map(|word| format!("{two}.{word}")));
    let types: Vec<_> = words
        .iter()
        .map(ToString::to_string)
        .chain(two.iter().cloned())
        .chain(three)
        .collect();
    for interest in [
        "*", "+", "a.*", "*.c", "+.+", "+.b.*", "a.b.*", "*.b", "a.*.c",
    ] {
        let interest = pattern(interest);
        let readings = table.reading(std::slice::from_ref(&interest)).unwrap();
        for event_type in types.iter().filter(|text| interest.matches(text)) {
            let resolved = table.resolve(event_type).unwrap();
            let found = readings.iter().any(|reading| {
                reading.transport == resolved.transport
                    && (reading.topics.contains(&resolved.topic)
                        || reading
                            .patterns
                            .iter()
                            .any(|pattern| pattern.matches(resolved.topic.name())))
            });
            assert!(found, "{interest} {event_type} {resolved:?} {readings:?}");
        }
    }
}

#[test]
fn a_template_is_filled_as_far_as_the_patterns_pin_it() {
    for (route, topic, interest, expected) in [
        ("*", "events.{1}", "*", r"^events\.[^.]+$"),
        ("*", "events.{1}", "user.*", "events.user"),
        ("user.*", "events.{1}", "*", "events.user"),
        ("+.+", "{1}-{2}", "user.+", r"^user-[^.]+$"),
        ("+.created", "{1}-{2}", "user.+", "user-created"),
        ("+.*", "{2}", "*.created", r"^[^.]+$"),
        ("*", "all-{type}", "user.*", r"^all-user\..+$"),
        ("*", "all-{type}", "user.+.x", r"^all-user\.[^.]+\.x$"),
        ("user.+", "all-{type}", "user.*", r"^all-user\.[^.]+$"),
        ("user.created", "{type}", "*", "user.created"),
        ("*", "fixed", "user.*", "fixed"),
    ] {
        let table = table(&[(route, "redis", topic)], None);
        assert_eq!(
            readings(&table, &[interest]),
            [format!("redis: {expected}")],
            "{route} {topic} {interest}"
        );
    }
}

#[test]
fn readings_have_no_duplicates() {
    let routes = [
        ("user.*", "redis", "shared"),
        ("deal.*", "redis", "shared"),
        ("order.*", "redis", "{2}"),
        ("payment.*", "redis", "{2}"),
    ];
    assert_eq!(
        readings(&table(&routes, None), &["*", "+.*", "user.created"]),
        [r"redis: shared ^[^.]+$"]
    );
}

#[test]
fn a_handler_that_no_route_can_reach_is_an_error() {
    for interest in ["order.created", "order.*", "+"] {
        let interests = [pattern("user.*"), pattern(interest)];
        let error = table(&BRIEF, None).reading(&interests).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnreachableHandler);
        assert_eq!(
            error.to_string(),
            format!(
                "no route can ever reach the handler of `{interest}`\
                 \n  routes in polybus.toml: `user.*` (line 4), `deal.*` (line 5)\
                 \n  add a route for `{interest}`, or remove the handler"
            )
        );
    }
    assert!(table(&BRIEF, None).reading(&[]).unwrap().is_empty());
}
