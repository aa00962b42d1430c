//! Every wrong config, and what a user reads about it.

use super::{BRIEF, error, parse};

/// A config in which only `lines` are unusual; they begin in line 3.
fn with(lines: &str) -> String {
    format!("[service]\nname = 's'\n{lines}")
}

#[track_caller]
fn check(lines: &str, expected: &str) {
    assert_eq!(error(&with(lines), &[]), expected);
}

#[test]
fn an_unknown_key_names_the_known_ones_and_the_nearest() {
    check(
        "max_event_sise = 1",
        "polybus.toml:3: service.max_event_sise: unknown key; \
         known: name, group, shutdown_deadline, max_event_size, prefix, origin, schemas\
         \n  did you mean `max_event_size`?",
    );
    check(
        "[subscriptions.deal-watch]\nconcurency = 3",
        "polybus.toml:4: subscriptions.deal-watch.concurency: unknown key; \
         known: group, concurrency, ordering, start, retry, dead_letter, unhandled, \
         max_in_flight, max_in_flight_bytes, max_in_flight_age, takeover_after, \
         handler_timeout, exactly_once, idempotency, on_failure\
         \n  did you mean `concurrency`?",
    );
    check(
        "[subscriptions.a]\nretry = { attempts = 3 }",
        "polybus.toml:4: subscriptions.a.retry.attempts: unknown key; \
         known: max_attempts, base, max, \
             delayed",
    );
    check(
        "[route]\npattern = 'a'",
        "polybus.toml:3: route: unknown key; \
         known: service, transports, schema_registry, routing, publishing, routes, subscriptions, topics, topic_defaults, profile, profiles\
         \n  did you mean `routes`?",
    );
    check(
        "[[routes]]\npattern = 'a.*'\ntransport = 'm'\ntopic = 'a'\nprioritty = 1",
        "polybus.toml:7: routes[0].prioritty: unknown key; known: pattern, transport, topic, \
         format, partitions, batch, priority, retry, on_unknown, validate, dedup, rate_limit, circuit_breaker, \
         timeout, fallback, codec, schema_registry\
         \n  did you mean `priority`?",
    );
    check(
        "[routing.default]\ntransport = 'm'\ntopik = 'a'",
        "polybus.toml:5: routing.default.topik: unknown key; known: transport, topic, \
         partitions, batch, priority, retry, on_unknown, validate, dedup, rate_limit, circuit_breaker, \
         timeout, fallback, codec, schema_registry\
         \n  did you mean `topic`?",
    );
}

#[test]
fn settings_of_idempotency_that_can_not_work_say_why() {
    let of = |settings: &str| format!("[subscriptions.a]\nidempotency = {{ {settings} }}");
    check(
        &of("lease = '1s'"),
        "polybus.toml:4: subscriptions.a.idempotency.store: is missing",
    );
    check(
        &of("store = 'redis', lease = '10ms'"),
        "polybus.toml:4: subscriptions.a.idempotency.lease: 10ms is too short to be renewed in \
         time; give it 100ms or more",
    );
    check(
        &of("store = 'redis', retain = '10s'"),
        "polybus.toml:4: subscriptions.a.idempotency.retain: 10s is below `lease`, which is 30s",
    );
    check(
        &of("store = 'redis', ttl = '10s'"),
        "polybus.toml:4: subscriptions.a.idempotency.ttl: unknown key; known: store, lease, retain",
    );
}

#[test]
fn a_window_that_can_not_work_says_why() {
    let of = |setting: &str| format!("[subscriptions.a]\n{setting}");
    check(
        &of("max_in_flight_age = '0s'"),
        "polybus.toml:4: subscriptions.a.max_in_flight_age: leaves an event no time; write `false` \
         for any age",
    );
    check(
        &of("max_in_flight_age = true"),
        "polybus.toml:4: subscriptions.a.max_in_flight_age: must be a duration, as `\"30s\"`, or \
         `false`",
    );
    check(
        &of("max_in_flight_bytes = 0"),
        "polybus.toml:4: subscriptions.a.max_in_flight_bytes: must be at least 1",
    );
}

#[test]
fn a_missing_key_names_itself_and_the_table_that_lacks_it() {
    assert_eq!(error("", &[]), "polybus.toml: service: is missing");
    assert_eq!(
        error("\n[service]", &[]),
        "polybus.toml:2: service.name: is missing"
    );
    check(
        "\n[transports.kafka]\nbrokers = ['a:1']",
        "polybus.toml:4: transports.kafka.kind: is missing",
    );
    check(
        "[[routes]]\npattern = 'a'\ntopic = 't'\ntransport = 'm'\n\n[[routes]]\npattern = 'b'\ntopic = 'u'",
        "polybus.toml:8: routes[1].transport: is missing",
    );
}

#[test]
fn a_wrong_pattern_has_file_line_key_and_the_right_spelling() {
    for (pattern, what, advice) in [
        (
            "user.**",
            "`user.**` is not a pattern: `**` is not a wildcard here",
            "write `user.*`: `*` takes one or more segments, `+` exactly one",
        ),
        (
            "a..b",
            "`a..b` is not a pattern: a segment between its dots is empty",
            "write a word, `+` (exactly one segment) or `*` (one or more) between two dots, and \
             no dot at either end",
        ),
        ("", "the pattern is empty", "write `*` for every event type"),
    ] {
        check(
            &format!("[[routes]]\npattern = '{pattern}'\ntransport = 'm'\ntopic = 't'"),
            &format!("polybus.toml:4: routes[0].pattern: {what}\n  {advice}"),
        );
    }
}

/// Lines of a subscription and what a user reads behind their place.
const WRONG_SUBSCRIPTIONS: &[(&str, &str)] = &[
    ("concurrency = 0", "concurrency: must be at least 1"),
    (
        "concurrency = -1",
        "concurrency: must be a whole number from 0 up, not `-1`",
    ),
    (
        "concurrency = 'many'",
        "concurrency: must be a whole number from 0 up, not `many`",
    ),
    (
        "retry.max_attempts = 4294967296",
        "retry.max_attempts: must be a whole number from 0 to 4294967295, not `4294967296`",
    ),
    (
        "retry.max_attempts = 0",
        "retry.max_attempts: must be at least 1",
    ),
    (
        "retry.base = 'soon'",
        "retry.base: `soon` is not a duration\
             \n  write a number and a unit: `200ms`, `30s`, `5m`, `1h`, `7d`",
    ),
    (
        "retry.base = 200",
        "retry.base: must be a duration, as `\"30s\"`",
    ),
    ("retry = 5", "retry: must be a table, not `5`"),
    (
        "ordering = 'partitions'",
        "ordering: `partitions` is unknown; known: key, partition, none\
             \n  did you mean `partition`?",
    ),
    (
        "unhandled = 'dead-letter'",
        "unhandled: `dead-letter` is unknown; known: ack, dead_letter, stop\
             \n  did you mean `dead_letter`?",
    ),
    (
        "start = 'yesterday'",
        "start: `yesterday` is not a place to start from\
             \n  write `beginning`, `now`, or a point in time as `2026-01-31T00:00:00Z`",
    ),
    (
        "dead_letter = '{topic}'",
        "dead_letter: `{topic}` is the topic that the events come from\
             \n  write a name as `{topic}.dlq`, or `false` for no dead letters",
    ),
    (
        "dead_letter = '{type}.dlq'",
        "dead_letter: `{type}.dlq` has another placeholder than `{topic}`\
             \n  write a name as `{topic}.dlq`, or `false` for no dead letters",
    ),
    (
        "dead_letter = ''",
        "dead_letter: is empty\
             \n  write a name as `{topic}.dlq`, or `false` for no dead letters",
    ),
    (
        "dead_letter = 7",
        "dead_letter: must be a topic's name, as `\"{topic}.dlq\"`, or `false`, not `7`",
    ),
];

/// Lines of the service and what a user reads behind their place.
const WRONG_SERVICES: &[(&str, &str)] = &[
    (
        "max_event_size = 'big'",
        "max_event_size: `big` is not a size\
             \n  write a number of bytes, or a number and a unit: `64KiB`, `1MiB`",
    ),
    (
        "max_event_size = -1",
        "max_event_size: must be a number of bytes, as `\"1MiB\"` or `1048576`, not `-1`",
    ),
    (
        "shutdown_deadline = '-1s'",
        "shutdown_deadline: `-1s` is not a duration\
             \n  write a number and a unit: `200ms`, `30s`, `5m`, `1h`, `7d`",
    ),
];

#[test]
fn a_wrong_value_says_what_it_must_be() {
    for (line, expected) in WRONG_SUBSCRIPTIONS {
        check(
            &format!("[subscriptions.a]\n{line}"),
            &format!("polybus.toml:4: subscriptions.a.{expected}"),
        );
    }
    for (line, expected) in WRONG_SERVICES {
        check(line, &format!("polybus.toml:3: service.{expected}"));
    }
    for lines in ["transports.kafka = 'hunter2'", "transports = 'hunter2'"] {
        let (path, _) = lines.split_once(" = ").unwrap();
        let text = format!("{lines}\nservice.name = 's'");
        let expected = format!("polybus.toml:1: {path}: must be a table, not this text");
        assert_eq!(error(&text, &[]), expected);
    }
    check(
        "[transports.kafka]\nkind = 7",
        "polybus.toml:4: transports.kafka.kind: must be a string, not this number",
    );
    check(
        "[routes]\npattern = 'a'",
        "polybus.toml:3: routes: must be an array, not a table",
    );
    assert_eq!(
        error("[service]\nname = ''", &[]),
        "polybus.toml:2: service.name: is empty\
         \n  name the service: it is the source of its events"
    );
}

#[test]
fn values_that_contradict_each_other_name_both() {
    for (lines, expected) in [
        (
            "[subscriptions.a]\nmax_in_flight = 10\nconcurrency = 20",
            "polybus.toml:5: subscriptions.a.concurrency: 20 is over `max_in_flight`, which is 10",
        ),
        (
            "[subscriptions.a]\nconcurrency = 2000",
            "polybus.toml:4: subscriptions.a.concurrency: 2000 is over `max_in_flight`, which is \
             1024",
        ),
        (
            "[subscriptions.a]\nretry = { base = '1m' }",
            "polybus.toml:4: subscriptions.a.retry.base: 60s is over `max`, which is 30s",
        ),
        (
            "[subscriptions.a]\nretry = { max = '1ms' }",
            "polybus.toml:4: subscriptions.a.retry.base: 200ms is over `max`, which is 1ms",
        ),
        (
            "[subscriptions.a]\nretry = { delayed = { pauses = ['2m', '1m'] } }",
            "polybus.toml:4: subscriptions.a.retry.delayed.pauses: must ascend: each event takes \
             them one after the other",
        ),
        (
            "[subscriptions.a]\nretry = { max_attempts = 3, delayed = { pauses = ['1m'] } }",
            "polybus.toml:4: subscriptions.a.retry.delayed.after_attempts: 3 leaves no attempt for \
             the pauses, as `max_attempts` is 3",
        ),
        (
            "[subscriptions.a]\nhandler_timeout = '0s'",
            "polybus.toml:4: subscriptions.a.handler_timeout: leaves a handler no time; leave it \
             out for no limit",
        ),
        (
            "[subscriptions.a]\nhandler_timeout = '2m'",
            "polybus.toml:4: subscriptions.a.handler_timeout: 120s is over `takeover_after`, which \
             is 60s",
        ),
        (
            "[subscriptions.a]\ntakeover_after = '0s'",
            "polybus.toml:4: subscriptions.a.takeover_after: must be longer than any handler \
             takes, so not zero",
        ),
        (
            "[subscriptions.a]\ngroup = ''",
            "polybus.toml:4: subscriptions.a.group: is empty",
        ),
    ] {
        check(lines, expected);
    }
}

#[test]
fn what_is_not_toml_has_a_line_and_does_not_quote_it() {
    for (lines, line) in [
        ("[transports.r]\nkind = 'r'\npassword = \"hunter2", 5),
        ("[transports.r]\npassword = hunter2", 4),
        ("[transports.r]\npassword 'hunter2'", 4),
        ("[transports.r]\npassword = 'a'\npassword = 'hunter2'", 5),
        ("[transports.r]\npassword = 'a'\n[transports.r]", 5),
        ("big = 99999999999999999999", 3),
    ] {
        let message = error(&with(lines), &[]);
        let start = format!("polybus.toml:{line}: ");
        assert!(message.starts_with(&start), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
        let full = format!("{:?}", parse(&with(lines), &[]).unwrap_err());
        assert!(!full.contains("hunter2"), "{full}");
    }
}

#[test]
fn a_name_that_is_no_bare_key_is_quoted() {
    check(
        "[subscriptions.\"a.b\"]\ngroups = 'g'",
        "polybus.toml:4: subscriptions.\"a.b\".groups: unknown key; \
         known: group, concurrency, ordering, start, retry, dead_letter, unhandled, \
         max_in_flight, max_in_flight_bytes, max_in_flight_age, takeover_after, \
         handler_timeout, exactly_once, idempotency, on_failure\
         \n  did you mean `group`?",
    );
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_change_nothing() {
    let text = format!("\u{feff}{}", BRIEF.replace('\n', "\r\n"));
    let config = parse(&text, &[]).unwrap();
    assert_eq!(config.routes[1].origin().to_string(), "polybus.toml:18");
}

#[test]
fn deep_nesting_is_an_error_and_no_overflow() {
    for text in [
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}1{}", "[".repeat(50_000), "]".repeat(50_000)),
        format!("a = {}", "{ b = ".repeat(100_000)),
        format!("{} = 1", vec!["a"; 100_000].join(".")),
        format!("[{}]\nb = 1", vec!["a"; 100_000].join(".")),
    ] {
        error(&text, &[]);
    }
}
