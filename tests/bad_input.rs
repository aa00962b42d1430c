//! Every bad input is a typed error that says what, where, and what to do.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use polybus::{Bus, Config, ErrorKind, Event, Payload, RawEvent};
use serde::{Deserialize, Serialize};

const GOOD: &str = r#"
[service]
name = "test"
[transports.local]
kind = "memory"
[[routes]]
pattern = "user.*"
transport = "local"
topic = "user-events"
"#;

async fn build(config: &str) -> polybus::Result<Bus> {
    Bus::builder()
        .config(Config::parse(config, "polybus.toml")?)
        .build()
        .await
}

async fn good() -> Bus {
    build(GOOD).await.unwrap()
}

/// Asserts the kind of an error and that its text names everything in `parts`.
#[track_caller]
fn check<T: std::fmt::Debug>(result: polybus::Result<T>, kind: ErrorKind, parts: &[&str]) {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "order.created")]
struct OrderCreated {}

#[tokio::test]
async fn an_unknown_key_is_named_with_file_line_and_path() {
    let config = GOOD.replace("topic =", "tpoic =");
    check(
        build(&config).await,
        ErrorKind::Config,
        &["polybus.toml:9", "tpoic", "topic"],
    );
    let config = GOOD.replace("kind = \"memory\"", "kind = \"memory\"\nurl = \"x\"");
    let parts = ["polybus.toml:6", "transports.local", "url"];
    check(build(&config).await, ErrorKind::Config, &parts);
}

#[tokio::test]
async fn an_unknown_kind_of_transport_lists_the_known_ones() {
    let config = GOOD.replace("\"memory\"", "\"rabbit\"");
    check(
        build(&config).await,
        ErrorKind::UnknownTransport,
        &["local", "rabbit", "memory", "register"],
    );
}

#[cfg(not(feature = "kafka"))]
#[tokio::test]
async fn a_feature_that_is_not_compiled_in_is_named() {
    let config = GOOD.replace("\"memory\"", "\"kafka\"\nbrokers = [\"127.0.0.1:9092\"]");
    check(
        build(&config).await,
        ErrorKind::MissingFeature,
        &["local", "features = [\"kafka\"]"],
    );
}

#[cfg(not(feature = "avro"))]
#[tokio::test]
async fn a_codec_that_is_not_compiled_in_is_named() {
    check(
        build(&format!("{GOOD}codec = \"avro\"\n")).await,
        ErrorKind::MissingFeature,
        &[
            "polybus.toml:10",
            "routes[0].codec",
            "features = [\"avro\"]",
        ],
    );
}

#[tokio::test]
async fn an_unknown_codec_lists_the_known_ones() {
    check(
        build(&format!("{GOOD}codec = \"xml\"\n")).await,
        ErrorKind::Config,
        &["polybus.toml:10", "xml", "message_pack"],
    );
}

#[tokio::test]
async fn a_bad_pattern_is_an_error_that_says_what_is_right() {
    for (pattern, advice) in [
        ("user.**", "*"),
        ("a..b", "empty"),
        ("", "empty"),
        ("user.#", "*"),
        ("us*er", "*"),
    ] {
        let config = GOOD.replace("user.*", pattern);
        check(
            build(&config).await,
            ErrorKind::Config,
            &["polybus.toml:7", "routes[0].pattern", advice],
        );
        let handler = good()
            .await
            .subscribe("s")
            .on_pattern(pattern, || async {})
            .start()
            .await;
        check(handler, ErrorKind::InvalidPattern, &[advice]);
    }
}

#[tokio::test]
async fn a_pattern_that_stands_twice_names_both_lines() {
    let again = "[[routes]]\npattern = \"user.*\"\ntransport = \"local\"\ntopic = \"other\"\n";
    check(
        build(&format!("{GOOD}{again}")).await,
        ErrorKind::Config,
        &["user.*", "7", "11"],
    );
}

#[tokio::test]
async fn an_event_without_a_route_names_the_routes() {
    let result = good().await.publish(OrderCreated {}).await;
    let parts = [
        "no route takes `order.created`",
        "`user.*` (line 7)",
        "order.*",
        "default",
    ];
    check(result, ErrorKind::NoRoute, &parts);
}

#[tokio::test]
async fn an_event_over_the_limit_is_refused_alone() {
    let bus = good().await;
    let big = bus
        .event("user.created")
        .data("text/plain", vec![b'x'; 1024 * 1024]);
    check(
        big.publish().await,
        ErrorKind::TooLarge,
        &["1048576", "max_event_size", "user-events"],
    );
    let event = |size| Event::builder("user.created").data(vec![0; size]);
    let outcomes = bus
        .publish_all([event(10), event(2_000_000), event(10)])
        .await;
    let accepted: Vec<_> = outcomes.iter().map(polybus::Outcome::is_accepted).collect();
    assert_eq!(accepted, [true, false, true]);

    let config = GOOD.replace(
        "name = \"test\"",
        "name = \"test\"\nmax_event_size = \"1KiB\"",
    );
    let bus = build(&config).await.unwrap();
    let event = bus
        .event("user.created")
        .data("text/plain", vec![b'x'; 1024]);
    check(event.publish().await, ErrorKind::TooLarge, &["1024"]);
}

#[tokio::test]
async fn empty_required_attributes_are_refused() {
    let bus = good().await;
    check(
        bus.event("user.created").id("").publish().await,
        ErrorKind::InvalidEvent,
        &["`id`"],
    );
    check(
        bus.event("").publish().await,
        ErrorKind::InvalidEvent,
        &["`type`"],
    );
    let event = Event::builder("user.created").build();
    check(event, ErrorKind::InvalidEvent, &["`source`"]);
    check(
        build(&GOOD.replace("\"test\"", "\"\"")).await,
        ErrorKind::Config,
        &["service.name"],
    );
}

#[tokio::test]
async fn a_handler_that_no_route_can_reach_is_refused() {
    async fn handle(_: Payload<OrderCreated>) {}
    let result = good().await.subscribe("s").on(handle).start().await;
    check(
        result,
        ErrorKind::UnreachableHandler,
        &["order.created", "user.*"],
    );
}

#[tokio::test]
async fn a_subscription_needs_handlers_that_differ() {
    async fn handle(_: RawEvent) {}
    let bus = good().await;
    check(
        bus.subscribe("s").start().await,
        ErrorKind::Config,
        &["no handler"],
    );
    let twice = bus
        .subscribe("s")
        .on_pattern("user.*", handle)
        .on_pattern("user.*", handle);
    check(
        twice.start().await,
        ErrorKind::Config,
        &["two handlers", "user.*"],
    );
}

#[cfg(any(feature = "kafka", feature = "redis-streams"))]
#[tokio::test]
async fn a_server_that_can_not_be_reached_fails_within_the_connect_deadline() {
    // A port that was free a moment ago, so that nobody answers.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let address = format!("127.0.0.1:{port}");
    for settings in [
        #[cfg(feature = "kafka")]
        format!("\"kafka\"\nconnect_deadline = \"2s\"\nbrokers = [\"{address}\"]"),
        #[cfg(feature = "redis-streams")]
        format!("\"redis-streams\"\nconnect_deadline = \"2s\"\nurl = \"redis://{address}\""),
    ] {
        let config = GOOD.replace("\"memory\"", &settings);
        let within = std::time::Duration::from_secs(60);
        let built = tokio::time::timeout(within, build(&config)).await;
        check(
            built.expect("fails by itself"),
            ErrorKind::Connect,
            &[&address, "local"],
        );
    }
}
