//! Variables within values, and variables over them.

use super::super::*;
use super::{BRIEF, error, parse};

/// The group of the subscription `a` whose `group` is written as `value`.
#[track_caller]
fn group(value: &str, variables: &[(&str, &str)]) -> String {
    let text = format!("service.name = 's'\n[subscriptions.a]\ngroup = '{value}'");
    let config = parse(&text, variables).unwrap();
    config.subscription("a").group.unwrap().into()
}

#[test]
fn variables_stand_for_their_values() {
    let variables = [("A", "1"), ("B_2", "two"), ("EMPTY", "")];
    for (value, expected) in [
        ("${A}", "1"),
        ("x-${A}-${B_2}-y", "x-1-two-y"),
        ("${A:-other}", "1"),
        ("${NONE:-other}", "other"),
        ("${EMPTY:-other}", "other"),
        ("g${EMPTY}", "g"),
        ("g${NONE:-}", "g"),
        ("${NONE:-redis://h:1/?a=b:-c}", "redis://h:1/?a=b:-c"),
        ("$$", "$"),
        ("$${A}", "${A}"),
        ("$$$${A}$", "$${A}$"),
        ("pa$word", "pa$word"),
        ("{1}", "{1}"),
    ] {
        assert_eq!(group(value, &variables), expected, "{value}");
    }
}

#[test]
fn the_value_of_a_variable_is_not_looked_into() {
    let variables = [("A", "${B}$$"), ("B", "b")];
    assert_eq!(group("${A}", &variables), "${B}$$");
    let structure = "x'\nconcurrency = 1\n[service]\nname = 'y";
    assert_eq!(group("${A}", &[("A", structure)]), structure);
    // Nor is that of a variable over the file.
    let variables = [("POLYBUS__service__name", "a-${B}")];
    let config = parse(BRIEF, &variables).unwrap();
    assert_eq!(config.service.name, "a-${B}");
}

#[test]
fn an_unset_variable_is_an_error_with_its_name_and_place() {
    assert_eq!(
        error(&BRIEF.replace("${REDIS_URL:-", "${REDIS_URL}"), &[]),
        "polybus.toml:6: transports.redis.url: \
         the environment variable `REDIS_URL` is not set\
         \n  set it, or give a default: `${REDIS_URL:-default}`"
    );
    assert_eq!(
        error(
            "service.name = 's'\nroutes = [\n { pattern = 'a', transport = '${T}' }\n]",
            &[]
        ),
        "polybus.toml:3: routes[0].transport: the environment variable `T` is not set\
         \n  set it, or give a default: `${T:-default}`"
    );
}

#[test]
fn a_malformed_reference_is_an_error_that_shows_no_text() {
    for (value, what) in [
        ("hunter2${A", "a `${` has no `}`"),
        (
            "hunter2${}",
            "what stands in `${}` is not the name of a variable",
        ),
        (
            "${hunter2-x}",
            "what stands in `${}` is not the name of a variable",
        ),
        (
            "${:-hunter2}",
            "what stands in `${}` is not the name of a variable",
        ),
    ] {
        let text = format!("[service]\nname = '{value}'");
        let message = error(&text, &[]);
        let expected = format!("polybus.toml:2: service.name: {what}");
        assert!(message.starts_with(&expected), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn numbers_and_truth_values_can_come_from_variables() {
    let text = r#"
        service = { name = "s", max_event_size = "${SIZE}", shutdown_deadline = "${DEADLINE}" }
        [subscriptions.a]
        concurrency = "${N}"
        retry = { max_attempts = "${N}" }
        dead_letter = "${DLQ}"
        "#;
    let variables = [
        ("N", "7"),
        ("SIZE", "2KiB"),
        ("DEADLINE", "5s"),
        ("DLQ", "false"),
    ];
    let config = parse(text, &variables).unwrap();
    assert_eq!(config.service.max_event_size, 2048);
    assert_eq!(config.service.shutdown_deadline.as_secs(), 5);
    let subscription = config.subscription("a");
    assert_eq!(subscription.concurrency, 7);
    assert_eq!(subscription.retry.max_attempts, 7);
    assert_eq!(subscription.dead_letter, DeadLetter::Off);
}

#[test]
fn a_wrong_value_from_a_variable_does_not_show() {
    let text = "[service]\nname = 's'\n[subscriptions.a]\n";
    for line in [
        "concurrency = '${SECRET}'",
        "ordering = '${SECRET}'",
        "takeover_after = '${SECRET}'",
        "start = '${SECRET}'",
        "dead_letter = '{${SECRET}}'",
    ] {
        let message = error(&format!("{text}{line}"), &[("SECRET", "hunter2")]);
        assert!(message.starts_with("polybus.toml:4: subscriptions.a."));
        assert!(!message.contains("hunter2"), "{message}");
    }
    let message = error(&format!("{text}retry.max_attempts = '7'"), &[]);
    assert_eq!(
        message,
        "polybus.toml:4: subscriptions.a.retry.max_attempts: \
         must be a whole number from 0 to 4294967295, not `7`"
    );
}

#[test]
fn a_variable_overrides_any_key() {
    let variables = [
        ("POLYBUS__service__name", "other"),
        ("POLYBUS__service__max_event_size", "2MiB"),
        ("POLYBUS__subscriptions__deal-watch__concurrency", "128"),
        ("POLYBUS__subscriptions__deal-watch__dead_letter", "false"),
        ("POLYBUS__subscriptions__deal-watch__retry__base", "\"1s\""),
        ("POLYBUS__subscriptions__new__group", "1234"),
        ("POLYBUS__routes__1__topic", "deals"),
        ("POLYBUS__transports__kafka__brokers", "['a:1', 'b:2']"),
        ("POLYBUS__transports__redis__url", "redis://other:1"),
        ("POLYBUS__transports__third", "{ kind = 'memory' }"),
        (
            "POLYBUS__routing__default",
            "{ transport = 'third', topic = 't' }",
        ),
        ("POLYBUS_TEST_REDIS_URL", "not an override"),
    ];
    let config = parse(BRIEF, &variables).unwrap();
    assert_eq!(config.service.name, "other");
    assert_eq!(config.service.max_event_size, 2 << 20);
    let watch = config.subscription("deal-watch");
    assert_eq!(watch.concurrency, 128);
    assert_eq!(watch.dead_letter, DeadLetter::Off);
    assert_eq!(watch.retry.base.as_secs(), 1);
    assert_eq!(watch.retry.max.as_secs(), 30, "its neighbours stay");
    let group = config.subscription("new").group;
    assert_eq!(
        group.as_deref(),
        Some("1234"),
        "text where text is asked for"
    );
    assert_eq!(config.routes[1].topic, "deals");
    assert_eq!(config.routes[1].pattern.as_str(), "deal.*");
    assert_eq!(config.transports["third"].kind, "memory");
    assert_eq!(config.routing.default.unwrap().topic, "t");

    #[derive(serde::Deserialize)]
    struct Any {
        brokers: Option<Vec<String>>,
        url: Option<String>,
    }
    let settings = |name: &str| -> Any { config.transports[name].section.parse().unwrap() };
    assert_eq!(settings("kafka").brokers.unwrap(), ["a:1", "b:2"]);
    assert_eq!(settings("redis").url.unwrap(), "redis://other:1");
}

#[test]
fn what_is_overridden_needs_no_variable_of_its_own() {
    let text = BRIEF.replace("${REDIS_URL:-", "${REDIS_URL}");
    let variables = [("POLYBUS__transports__redis__url", "redis://other")];
    parse(&text, &variables).unwrap();
}

#[test]
fn a_key_may_be_spelled_as_shells_like_it() {
    let variables = [
        ("POLYBUS__SUBSCRIPTIONS__DEAL_WATCH__CONCURRENCY", "128"),
        ("POLYBUS__SERVICE__SHUTDOWN_DEADLINE", "1s"),
        ("POLYBUS__ROUTES__0__TOPIC", "users"),
    ];
    let config = parse(BRIEF, &variables).unwrap();
    assert_eq!(config.subscription("deal-watch").concurrency, 128);
    assert_eq!(config.service.shutdown_deadline.as_secs(), 1);
    assert_eq!(config.routes[0].topic, "users");
    let config = parse("", &[("POLYBUS__SERVICE__NAME", "s")]).unwrap();
    assert_eq!(config.service.name, "s");

    let text = "service.name = 's'\n[subscriptions.a-b]\n[subscriptions.a_b]";
    let variables = [("POLYBUS__SUBSCRIPTIONS__A_B__GROUP", "g")];
    assert_eq!(
        error(text, &variables),
        "environment variable `POLYBUS__SUBSCRIPTIONS__A_B__GROUP`: \
         `A_B` may mean `a-b` or `a_b`\
         \n  spell the key in the variable's name as in the file"
    );
}

#[test]
fn an_override_of_an_unknown_key_names_the_variable() {
    for (name, value, expected) in [
        (
            "POLYBUS__subscriptions__deal-watch__concurency",
            "1",
            "subscriptions.deal-watch.concurency: unknown key; \
             known: group, concurrency, ordering, start, retry, dead_letter, unhandled, \
             max_in_flight, max_in_flight_bytes, max_in_flight_age, takeover_after, \
         handler_timeout, exactly_once, idempotency, on_failure\
             \n  did you mean `concurrency`?",
        ),
        (
            "POLYBUS__servic__name",
            "s",
            "servic: unknown key; known: service, transports, schema_registry, routing, publishing, routes, subscriptions, topics, \
         topic_defaults, profile, profiles\
             \n  did you mean `service`?",
        ),
        (
            "POLYBUS__transports__kafak__brokers",
            "a:1",
            "transports.kafak.kind: is missing",
        ),
        (
            "POLYBUS__routes__2__topic",
            "t",
            "routes: `2` is not the index of one of its 2 entries",
        ),
        (
            "POLYBUS__routes__first__topic",
            "t",
            "routes: `first` is not the index of one of its 2 entries",
        ),
        (
            "POLYBUS__service__name__first",
            "t",
            "service.name: has no keys, so there is no `first` to override",
        ),
        (
            "POLYBUS__service____name",
            "t",
            "the name has an empty key\n  write `POLYBUS__section__key`",
        ),
        (
            "POLYBUS__subscriptions__deal-watch__concurrency",
            "lots",
            "subscriptions.deal-watch.concurrency: \
             must be a whole number from 0 up, not this text",
        ),
        (
            "POLYBUS__routes__0__pattern",
            "user.**",
            "routes[0].pattern: `...` is not a pattern: `**` is not a wildcard here\
             \n  write `user.*`: `*` takes one or more segments, `+` exactly one",
        ),
    ] {
        assert_eq!(
            error(BRIEF, &[(name, value)]),
            format!("environment variable `{name}`: {expected}")
        );
    }
}

#[test]
fn the_environment_of_the_process_is_read() {
    // `PATH` is set wherever tests run.
    let text = "[service]\nname = '${PATH}'";
    let config = Config::parse(text, "polybus.toml").unwrap();
    assert_eq!(*config.service.name, *std::env::var("PATH").unwrap());
}
