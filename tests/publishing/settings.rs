//! The keys of a route and of `[publishing]`, and what wrong ones are told.

use std::time::Duration;

use polybus::Config;
use polybus::config::{GroupBy, OnUnknown, Priority, Validate, WhenOpen};

fn parse(route: &str, rest: &str) -> polybus::Result<Config> {
    let text = format!(
        "[service]\nname = 't'\n[transports.m]\nkind = 'memory'\n[[routes]]\npattern = 'a.*'\n\
         transport = 'm'\ntopic = 'a'\n{route}\n{rest}"
    );
    Config::parse(&text, "polybus.toml")
}

#[track_caller]
fn check(route: &str, rest: &str, expected: &str) {
    let error = parse(route, rest).unwrap_err().to_string();
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn every_key_is_read() {
    let route = "batch = { max_events = 7, max_bytes = '2KiB', max_wait = '3ms', \
                 max_concurrent_batches = 2, group_by = 2 }\npriority = 'high'\n\
                 retry = { max_attempts = 9 }\non_unknown = 'retry'\nvalidate = 'strict'\n\
                 dedup = { window = '10m' }\nrate_limit = { per_second = 5 }\n\
                 circuit_breaker = { when_open = 'fail' }\ntimeout = '2s'\n\
                 fallback = { transport = 'm', topic = 'b' }";
    let rest = "[publishing]\nmax_queued_events = 5\nmax_queued_bytes = '1MiB'\n\
                [publishing.failed]\nmax_events = 1\nmax_bytes = 2\nspill = 'x.jsonl'";
    let config = parse(route, rest).unwrap();
    let publish = &config.routes[0].publish;
    assert_eq!(
        (publish.batch.max_events, publish.batch.max_bytes),
        (7, 2048)
    );
    assert_eq!(publish.batch.max_wait, Duration::from_millis(3));
    assert_eq!(publish.batch.max_concurrent_batches, 2);
    assert_eq!(publish.batch.group_by, GroupBy::Segments(2));
    assert_eq!(
        (publish.priority, publish.on_unknown),
        (Priority::High, OnUnknown::Retry)
    );
    assert_eq!(
        (publish.retry.max_attempts, publish.validate),
        (9, Validate::Strict)
    );
    let dedup = publish.dedup.as_ref().unwrap();
    assert_eq!(
        (dedup.window, dedup.max_events),
        (Duration::from_secs(600), 100_000)
    );
    let limit = publish.rate_limit.as_ref().unwrap();
    assert_eq!((limit.per_second, limit.burst), (5, None));
    let breaker = publish.circuit_breaker.as_ref().unwrap();
    assert_eq!((breaker.failures, breaker.when_open), (5, WhenOpen::Fail));
    assert_eq!(publish.timeout, Some(Duration::from_secs(2)));
    let fallback = publish.fallback.as_ref().unwrap();
    assert_eq!(
        (fallback.transport.as_str(), fallback.topic.as_deref()),
        ("m", Some("b"))
    );
    let publishing = &config.publishing;
    assert_eq!(
        (publishing.max_queued_events, publishing.max_queued_bytes),
        (5, 1 << 20)
    );
    assert_eq!(
        (publishing.failed.max_events, publishing.failed.max_bytes),
        (1, 2)
    );
    assert!(publishing.failed.spill.is_some());
}

#[test]
fn the_defaults_are_those_of_the_docs() {
    let config = parse("", "").unwrap();
    let publish = &config.routes[0].publish;
    assert_eq!(
        (publish.batch.max_events, publish.batch.max_bytes),
        (500, 1 << 20)
    );
    assert_eq!(publish.batch.max_wait, Duration::from_millis(1));
    assert_eq!(publish.batch.max_concurrent_batches, 16);
    assert_eq!(publish.batch.max_concurrent_bytes, 2 << 20);
    assert_eq!(publish.batch.group_by, GroupBy::Topic);
    assert_eq!(publish.retry.max_attempts, 5);
    assert_eq!(config.publishing.max_queued_events, 100_000);
    assert_eq!(config.publishing.max_queued_bytes, 64 << 20);
    assert_eq!(config.publishing.failed.max_events, 10_000);
}

#[test]
fn wrong_values_of_a_route_have_file_line_and_key() {
    for (route, key, what) in [
        (
            "batch = { max_events = 0 }",
            "batch.max_events",
            "must be at least 1",
        ),
        (
            "batch = { max_event = 1 }",
            "batch.max_event",
            "unknown key",
        ),
        (
            "batch = { max_bytes = '1 heap' }",
            "batch.max_bytes",
            "`1 heap`",
        ),
        (
            "batch = { max_wait = 5 }",
            "batch.max_wait",
            "must be a duration",
        ),
        (
            "batch = { group_by = 0 }",
            "batch.group_by",
            "must be `\"topic\"`",
        ),
        (
            "batch = { group_by = 'key' }",
            "batch.group_by",
            "must be `\"topic\"`",
        ),
        (
            "priority = 'urgent'",
            "priority",
            "`urgent` is unknown; known: normal, high",
        ),
        ("on_unknown = 'drop'", "on_unknown", "`drop` is unknown"),
        ("validate = true", "validate", "must be"),
        ("dedup = {}", "dedup.window", "is missing"),
        (
            "dedup = { window = '0s' }",
            "dedup.window",
            "must not be zero",
        ),
        (
            "rate_limit = { per_second = 0 }",
            "rate_limit.per_second",
            "must be",
        ),
    ] {
        check(
            route,
            "",
            &format!("polybus.toml:9: routes[0].{key}: {what}"),
        );
    }
}

#[test]
fn what_contradicts_or_is_missing_has_file_line_and_key() {
    for (route, key, what) in [
        ("timeout = '0s'", "timeout", "must be longer"),
        (
            "retry = { base = '1h' }",
            "retry.base",
            "3600s is over `max`",
        ),
        ("fallback = {}", "fallback.transport", "is missing"),
    ] {
        check(
            route,
            "",
            &format!("polybus.toml:9: routes[0].{key}: {what}"),
        );
    }
}

#[test]
fn wrong_values_of_all_routes_have_file_line_and_key() {
    for (rest, expected) in [
        (
            "[publishing]\nmax_queued_bytes = 0",
            "11: publishing.max_queued_bytes: must be at least 1",
        ),
        (
            "[publishing.failed]\nspil = 'x'",
            "11: publishing.failed.spil: unknown key",
        ),
        (
            "[routing.default]\ntransport = 'm'\ntopic = 'b'\ntimeout = '0s'",
            "13: routing.default.timeout: must be longer",
        ),
    ] {
        check("", rest, &format!("polybus.toml:{expected}"));
    }
}

#[tokio::test]
async fn a_fallback_to_an_unknown_transport_is_an_error_with_its_place() {
    let config = parse("fallback = { transport = 'n' }", "").unwrap();
    let error = polybus::Bus::builder()
        .config(config)
        .build()
        .await
        .unwrap_err();
    let expected = "polybus.toml:9: routes[0].fallback.transport: there is no transport `n`";
    assert!(error.to_string().starts_with(expected), "{error}");
}
