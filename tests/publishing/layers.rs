//! What stands around a transport's publisher, by a route's settings.

use std::sync::Arc;
use std::time::Duration;

use polybus::config::{self, CircuitBreakerConfig, DedupConfig, RateLimitConfig};
use polybus::middleware::layers::{
    CircuitBreaker, Deduplicate, Layers, PublishLayer, RateLimit, Stage, Timeout, Validate,
};
use polybus::routing::RouteTable;
use polybus::transport::DynPublisher;
use polybus::validation::{Rules, Validation};
use polybus::{Config, Effect, Error, ErrorKind, Event, Outcome};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::fake::{Answer, Fake, event, event_of, keyed};

const ONCE: &str = "retry = { max_attempts = 1 }";

#[tokio::test(start_paused = true)]
async fn validation_refuses_what_is_wrong_and_sends_the_rest() {
    let fake = Fake::new();
    let builder = fake.builder(&fake.config("validate = 'strict'", ""));
    let builder = builder.validate(|event: &Event| match event.id() {
        "mine" => Err(Error::new(ErrorKind::InvalidEvent, "as the program says")),
        _ => Ok(()),
    });
    let bus = builder.build().await.unwrap();
    let of = |id: &str, content_type: &str, data: &'static [u8]| {
        let event = event(id).to_builder().content_type(content_type);
        event.data(data).build().unwrap()
    };
    let events = [
        event("fine"),
        of("json", "application/json", b"{"),
        of("good json", "application/json", b"{}"),
        of("text", "text/plain", &[0xff]),
        event_of("test..event", "type", None),
        event("mine"),
    ];
    let outcomes = bus.publish_all(events).await;
    let texts: Vec<_> = outcomes.into_iter().map(Outcome::into_result).collect();
    for (index, part) in [
        (1, "not the JSON"),
        (3, "not the text"),
        (4, "empty segment"),
        (5, "as the program says"),
    ] {
        let error = texts[index].as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidEvent);
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(fake.stored_ids(), ["fine", "good json"]);
}

#[tokio::test(start_paused = true)]
async fn an_event_is_published_once_within_the_window() {
    let fake = Fake::new();
    let bus = fake.bus("dedup = { window = '10s' }").await;
    let first = bus.publish(event("a")).await.unwrap();
    let outcomes = bus.publish_all([event("a"), event("b"), event("b")]).await;
    assert!(outcomes.iter().all(Outcome::is_accepted));
    assert_eq!(bus.publish(event("a")).await.unwrap(), first);
    assert_eq!(fake.stored_ids(), ["a", "b"]);
    tokio::time::advance(Duration::from_secs(10)).await;
    bus.publish(event("a")).await.unwrap();
    assert_eq!(fake.stored_ids(), ["a", "b", "a"]);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_failed_is_not_taken_for_published() {
    let fake = Fake::new().script(|_, attempt| match attempt {
        1 => Answer::Reject,
        _ => Answer::Accept,
    });
    let bus = fake
        .bus(&format!("dedup = {{ window = '10s' }}\n{ONCE}"))
        .await;
    bus.publish(event("a")).await.unwrap_err();
    bus.publish(event("a")).await.unwrap();
    assert_eq!(fake.stored_ids(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_waits_for_the_first_that_is_out() {
    let fake = Fake::gated();
    let bus = fake
        .bus("dedup = { window = '10s' }\npriority = 'high'")
        .await;
    let first = bus.enqueue(event("a")).unwrap();
    fake.called(1).await;
    let mut copy = bus.enqueue(event("a")).unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(futures::poll!(&mut copy).is_pending());
    fake.let_through(1);
    assert_eq!(first.await.unwrap(), copy.await.unwrap());
    assert_eq!(fake.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_window_is_bounded_in_events() {
    let fake = Fake::new();
    let bus = fake.bus("dedup = { window = '10s', max_events = 2 }").await;
    for id in ["a", "b", "c", "d", "d", "a"] {
        bus.publish(event(id)).await.unwrap();
    }
    assert_eq!(fake.stored_ids(), ["a", "b", "c", "d", "a"]);
}

#[tokio::test(start_paused = true)]
async fn no_more_events_leave_in_a_second_than_may() {
    let fake = Fake::new();
    let bus = fake
        .bus("rate_limit = { per_second = 100, burst = 10 }")
        .await;
    let start = Instant::now();
    let outcomes = bus.publish_all((0..210).map(event)).await;
    assert!(outcomes.iter().all(Outcome::is_accepted));
    let took = start.elapsed();
    let expected = Duration::from_millis(1990)..=Duration::from_millis(2100);
    assert!(expected.contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_fails_fast_and_closes_after_a_trial() {
    let fake = Fake::new().script(|event, _| match event.id() {
        "bad" => Answer::Reject,
        _ => Answer::Accept,
    });
    let breaker = "circuit_breaker = { failures = 2, open_for = '5s', when_open = 'fail' }";
    let bus = fake.bus(&format!("{breaker}\n{ONCE}")).await;
    for _ in 0..2 {
        let error = bus.publish(event("bad")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect);
    }
    let error = bus.publish(event("good")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.effect()),
        (ErrorKind::CircuitOpen, Effect::NotApplied)
    );
    assert_eq!(fake.calls().len(), 2);
    tokio::time::advance(Duration::from_secs(5)).await;
    bus.publish(event("bad")).await.unwrap_err();
    let error = bus.publish(event("good")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CircuitOpen);
    tokio::time::advance(Duration::from_secs(5)).await;
    bus.publish(event("good")).await.unwrap();
    bus.publish(event("bad")).await.unwrap_err();
    bus.publish(event("good")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_lets_events_wait_and_loses_none() {
    let fake = Fake::new().script(|_, attempt| match attempt {
        1 => Answer::Reject,
        _ => Answer::Accept,
    });
    let breaker = "circuit_breaker = { failures = 1, open_for = '5s' }";
    let bus = fake
        .bus(&format!("{breaker}\nbatch = {{ max_wait = '0s' }}"))
        .await;
    let start = Instant::now();
    let pending = ["a", "b", "c"].map(|id| bus.enqueue(event(id)).unwrap());
    for receipt in pending {
        receipt.await.unwrap();
    }
    assert!(start.elapsed() >= Duration::from_secs(5));
    assert_eq!(fake.stored_ids().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_the_transport_does_not_answer_in_time_is_unknown() {
    let fake = Fake::gated();
    let bus = fake.bus("timeout = '3s'").await;
    let start = Instant::now();
    let error = bus.publish(event(0)).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.effect()),
        (ErrorKind::Timeout, Effect::Unknown)
    );
    assert_eq!(start.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn the_fallback_takes_what_was_rejected_for_good_and_the_receipt_says_so() {
    let fake = Fake::new().script(|event, _| match event.id() {
        "lost" => Answer::Lose,
        "fine" => Answer::Accept,
        _ => Answer::Reject,
    });
    let second = Fake::named("second", None);
    let rest = "[transports.second]\nkind = 'second'";
    let route = "fallback = { transport = 'second', topic = 'spare' }\n\
                 retry = { max_attempts = 2, base = '1s', max = '1s' }";
    let builder = fake
        .builder(&fake.config(route, rest))
        .register(second.clone());
    let bus = builder.build().await.unwrap();
    let receipt = bus.publish(keyed("rejected", "k")).await.unwrap();
    assert_eq!(
        (receipt.transport.as_str(), receipt.topic.name()),
        ("second", "spare")
    );
    assert_eq!(fake.calls().len(), 2);
    let receipt = bus.publish(event("fine")).await.unwrap();
    assert_eq!(
        (receipt.transport.as_str(), receipt.topic.name()),
        ("fake", "tests")
    );
    // What may be stored here must not be stored there too.
    bus.publish(event("lost")).await.unwrap_err();
    assert_eq!(second.stored_ids(), ["rejected"]);
}

#[tokio::test(start_paused = true)]
async fn the_fallback_does_not_wait_while_the_circuit_is_open() {
    let fake = Fake::new().script(|_, _| Answer::Reject);
    let second = Fake::named("second", None);
    let route = "fallback = { transport = 'second' }\nretry = { base = '1s' }\n\
                 circuit_breaker = { failures = 1, open_for = '1h', when_open = 'fail' }";
    let config = fake.config(route, "[transports.second]\nkind = 'second'");
    let builder = fake.builder(&config).register(second.clone());
    let bus = builder.build().await.unwrap();
    bus.publish(event("opens")).await.unwrap();
    let start = Instant::now();
    bus.publish(event("next")).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(second.stored_ids(), ["opens", "next"]);
    assert_eq!(fake.calls().len(), 1);
}

/// Each layer beside each: only one that stands further in is taken.
#[test]
fn layers_in_a_wrong_order_are_refused() {
    let outside = Arc::new(all());
    for outer in 0..outside.len() {
        for inner in 0..outside.len() {
            let layers = Layers::new();
            let layers = add(layers, all().swap_remove(outer)).unwrap();
            let result = add(layers, all().swap_remove(inner));
            if inner > outer {
                assert!(result.is_ok(), "{inner} in {outer}");
            } else {
                let error = result.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Config);
                let order = "validate, deduplicate, rate limit, circuit breaker, timeout";
                assert!(error.to_string().contains(order), "{error}");
            }
        }
    }
}

#[derive(Debug)]
struct Any(Box<dyn PublishLayer>);

impl PublishLayer for Any {
    fn stage(&self) -> Stage {
        self.0.stage()
    }

    fn wrap(&self, inner: DynPublisher) -> DynPublisher {
        self.0.wrap(inner)
    }
}

fn validation() -> Arc<Validation> {
    let config = Config::new("s");
    let routes = Arc::new(RouteTable::compile(&config).unwrap());
    Arc::new(Validation::new(&config, routes, &[], Rules::default()).unwrap())
}

fn all() -> Vec<Any> {
    let layers: [Box<dyn PublishLayer>; 5] = [
        Box::new(Validate::new(validation(), config::Validate::Strict)),
        Box::new(Deduplicate::new(&DedupConfig::new(Duration::from_secs(1)))),
        Box::new(RateLimit::new(&RateLimitConfig::new(1))),
        Box::new(CircuitBreaker::new(&CircuitBreakerConfig::default())),
        Box::new(Timeout::new(Duration::from_secs(1))),
    ];
    layers.into_iter().map(Any).collect()
}

fn add(layers: Layers, layer: Any) -> polybus::Result<Layers> {
    layers.layer(layer)
}

/// All of them together, in front of one server that fails now and then.
#[tokio::test(start_paused = true)]
async fn all_layers_together_lose_nothing() {
    let mut calls = 0;
    let gate = Semaphore::new(usize::MAX >> 4);
    let fake = Fake::named("fake", Some(gate)).script(move |_, _| {
        calls += 1;
        match calls % 10 {
            0 => Answer::Reject,
            _ => Answer::Accept,
        }
    });
    let route = "validate = 'strict'\ndedup = { window = '1h' }\ntimeout = '1s'\n\
                 rate_limit = { per_second = 1000 }\ncircuit_breaker = {}\n\
                 batch = { max_events = 20 }";
    let bus = fake.bus(route).await;
    let outcomes = bus.publish_all((0..500).map(event)).await;
    assert!(outcomes.iter().all(Outcome::is_accepted), "{outcomes:?}");
    let mut ids = fake.stored_ids();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 500);
}
