//! Publishing on a real Redis that dies, is cut off, is full, or refuses.

use std::time::Duration;

use polybus::{Effect, ErrorKind};
use polybus_test_support::{
    RedisOptions, RedisServer, Request, Strike, TcpProxy, Then, unique_name,
};

use crate::faults::{Ledger, bus, in_time, named, other, stream_over, try_bus};

/// How long an answer of the server itself may take.
const PATIENCE: Duration = Duration::from_secs(30);

const XADD: Request = Request::Containing(b"XADD");

/// The section of a server, with short deadlines.
fn section(url: &str) -> String {
    format!(
        "kind = 'redis-streams'\nurl = '{url}'\nconnect_deadline = '2s'\ndelivery_deadline = '3s'"
    )
}

fn behind(proxy: &TcpProxy) -> String {
    section(&format!("redis://{}", proxy.address()))
}

/// The server itself, past the bus.
struct Raw(redis::aio::MultiplexedConnection);

impl Raw {
    async fn connect(server: &RedisServer) -> Self {
        // The library's half a second is little for a long answer on a busy machine.
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        let client = redis::Client::open(server.url()).unwrap();
        let connection = client.get_multiplexed_async_connection_with_config(&patient);
        Self(connection.await.unwrap())
    }

    async fn call<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.query_async(&mut self.0.clone()).await.unwrap()
    }
}

/// The data of every entry, which is the id of its event and what fills it up behind a blank.
async fn stored(server: &RedisServer, stream: &str) -> Vec<String> {
    let raw = Raw::connect(server).await;
    let entries: Vec<(String, Vec<String>)> = raw.call(&["XRANGE", stream, "-", "+"]).await;
    let id = |(_, fields): (String, Vec<String>)| {
        let data = fields.last().unwrap();
        data.split(' ').next().unwrap().to_owned()
    };
    entries.into_iter().map(id).collect()
}

/// An event of a size.
fn large(id: &str, size: usize) -> polybus::Event {
    let mut data = format!("{id} ");
    data.extend(std::iter::repeat_n('x', size));
    named(id, None).to_builder().data(data).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_kill_and_a_restart_of_redis_every_outcome_is_true() {
    let server = RedisServer::start().await.unwrap();
    let topic = unique_name("killed");
    let retry = "retry = { max_attempts = 20, base = '50ms', max = '500ms' }";
    let bus = bus(&section(server.url()), &topic, retry, "").await;
    let ledger = stream_over(&bus, async {
        server.kill().await.unwrap();
        server.restart().await.unwrap();
    })
    .await;
    let stored = stored(&server, &topic).await;
    ledger.check(&stored);
    ledger.check_order(&stored);
    ledger.check_kept(&bus);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_resets_of_the_network_to_redis_every_outcome_is_true() {
    let server = RedisServer::shared().await;
    let proxy = TcpProxy::in_front_of(server.url()).await.unwrap();
    let topic = unique_name("reset");
    let retry = "retry = { max_attempts = 20, base = '10ms', max = '100ms' }";
    let bus = bus(&behind(&proxy), &topic, retry, "").await;
    let ledger = stream_over(&bus, async {
        for strike in [
            Strike::LoseReply,
            Strike::LoseRequest,
            Strike::BreakReply(3),
        ] {
            proxy.strike(XADD, strike, Then::GoOn).happened().await;
        }
        for _ in 0..5 {
            proxy.reset();
            // Until the bus is through again.
            proxy
                .strike(XADD, Strike::LoseReply, Then::GoOn)
                .happened()
                .await;
        }
    })
    .await;
    let stored = stored(server, &topic).await;
    ledger.check(&stored);
    ledger.check_order(&stored);
    ledger.check_kept(&bus);
    assert!(!ledger.unknown.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_of_redis_that_is_lost_leaves_its_event_unknown_and_stored() {
    let server = RedisServer::shared().await;
    let proxy = TcpProxy::in_front_of(server.url()).await.unwrap();
    let topic = unique_name("reply");
    let bus = bus(&behind(&proxy), &topic, "", "").await;
    let mut ledger = Ledger::default();
    let struck = proxy.strike(XADD, Strike::LoseReply, Then::GoOn);
    ledger.publish(&bus, named("lost", None)).await;
    struck.happened().await;
    ledger.check_unknown("lost");
    ledger.publish(&bus, named("next", None)).await;
    let stored = stored(server, &topic).await;
    assert_eq!(stored, ["lost", "next"]);
    ledger.check(&stored);
    ledger.check_kept(&bus);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_redis_never_got_is_unknown_too() {
    let server = RedisServer::shared().await;
    let proxy = TcpProxy::in_front_of(server.url()).await.unwrap();
    let topic = unique_name("request");
    let bus = bus(&behind(&proxy), &topic, "", "").await;
    let mut ledger = Ledger::default();
    let struck = proxy.strike(XADD, Strike::LoseRequest, Then::GoOn);
    ledger.publish(&bus, named("lost", None)).await;
    struck.happened().await;
    ledger.check_unknown("lost");
    ledger.publish(&bus, named("next", None)).await;
    let stored = stored(server, &topic).await;
    assert_eq!(stored, ["next"]);
    ledger.check(&stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_route_that_says_so_sends_again_what_may_be_stored() {
    let server = RedisServer::shared().await;
    let proxy = TcpProxy::in_front_of(server.url()).await.unwrap();
    let topic = unique_name("again");
    let bus = bus(&behind(&proxy), &topic, "on_unknown = 'retry'", "").await;
    let struck = proxy.strike(XADD, Strike::LoseReply, Then::GoOn);
    in_time(bus.publish(named("twice", None))).await.unwrap();
    struck.happened().await;
    assert_eq!(stored(server, &topic).await, ["twice", "twice"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_says_nothing_holds_nobody_past_the_deadline() {
    let server = RedisServer::shared().await;
    let proxy = TcpProxy::in_front_of(server.url()).await.unwrap();
    let topic = unique_name("silent");
    let retry = "retry = { max_attempts = 2, base = '10ms', max = '10ms' }";
    let bus = bus(&behind(&proxy), &topic, retry, "").await;
    let mut ledger = Ledger::default();
    ledger.publish(&bus, named("before", None)).await;
    proxy.half_open();
    let silent = (0..250).map(|number| named(number, None)).collect();
    ledger.publish_all(&bus, silent).await;
    assert_eq!(ledger.accepted, ["before"]);
    proxy.mend();
    ledger.publish(&bus, named("after", None)).await;
    assert_eq!(ledger.accepted, ["before", "after"]);
    ledger.check(&stored(server, &topic).await);
    ledger.check_kept(&bus);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_to_redis_rejects_what_can_not_be_sent_and_says_where() {
    let server = RedisServer::shared().await;
    let proxy = TcpProxy::in_front_of(server.url()).await.unwrap();
    let topic = unique_name("cut");
    let retry = "retry = { max_attempts = 2, base = '10ms', max = '10ms' }";
    let bus = bus(&behind(&proxy), &topic, retry, "").await;
    let mut ledger = Ledger::default();
    let struck = proxy.strike(XADD, Strike::LoseReply, Then::StayCut);
    ledger.publish(&bus, named("lost", None)).await;
    struck.happened().await;
    ledger.publish(&bus, named("cut", None)).await;
    ledger.check_unknown("lost");
    ledger.check_rejected("cut", ErrorKind::Connect);
    let text = ledger.rejected["cut"].to_string();
    assert!(text.contains(&proxy.address().to_string()), "{text}");
    proxy.mend();
    ledger.publish(&bus, named("after", None)).await;
    ledger.check(&stored(server, &topic).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_silent_the_bus_is_full_and_not_more() {
    let server = RedisServer::shared().await;
    let proxy = TcpProxy::in_front_of(server.url()).await.unwrap();
    let topic = unique_name("full");
    let bounds = "[publishing]\nmax_queued_events = 5";
    let bus = bus(&behind(&proxy), &topic, "", bounds).await;
    let mut ledger = Ledger::default();
    proxy.delay(Duration::from_millis(300));
    let taken: Vec<_> = (0..5)
        .map(|number| bus.enqueue(named(number, None)).unwrap())
        .collect();
    let error = bus.try_publish(named("over", None)).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.effect()),
        (ErrorKind::Full, Effect::NotApplied)
    );
    ledger.rejected.insert("over".to_owned(), error);
    let waits = bus.publish(named("waits", None));
    for (number, pending) in taken.into_iter().enumerate() {
        in_time(pending).await.unwrap();
        ledger.accepted.push(number.to_string());
    }
    in_time(waits).await.unwrap();
    ledger.accepted.push("waits".to_owned());
    ledger.check(&stored(server, &topic).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_out_of_memory_rejects_what_it_can_not_hold() {
    let server = RedisServer::start().await.unwrap();
    let topic = unique_name("memory");
    let retry = "retry = { max_attempts = 2, base = '10ms', max = '10ms' }";
    let bus = bus(&section(server.url()), &topic, retry, "").await;
    let raw = Raw::connect(&server).await;
    let _: () = raw.call(&["CONFIG", "SET", "maxmemory", "8mb"]).await;
    let mut ledger = Ledger::default();
    let events = (0..200).map(|number| large(&number.to_string(), 100_000));
    ledger.publish_all(&bus, events.collect()).await;
    assert!(!ledger.accepted.is_empty() && !ledger.rejected.is_empty());
    assert!(ledger.unknown.is_empty());
    for error in ledger.rejected.values() {
        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        assert!(error.retryable());
    }
    assert!(bus.publish_stats().retried > 0);
    ledger.check(&stored(&server, &topic).await);
    // With room again all goes on.
    let _: () = raw.call(&["CONFIG", "SET", "maxmemory", "0"]).await;
    ledger.publish(&bus, large("after", 100_000)).await;
    ledger.check(&stored(&server, &topic).await);
    ledger.check_kept(&bus);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_redis_does_not_read_takes_no_other_with_it_unsaid() {
    let server = RedisServer::start().await.unwrap();
    let topic = unique_name("large");
    let retry = "retry = { max_attempts = 2, base = '10ms', max = '10ms' }";
    let bus = bus(&section(server.url()), &topic, retry, "").await;
    let raw = Raw::connect(&server).await;
    // The least it can be; 512 MB unless set. Over it the server hangs up.
    let _: () = raw
        .call(&["CONFIG", "SET", "proto-max-bulk-len", "1mb"])
        .await;
    let mut ledger = Ledger::default();
    let mut events: Vec<_> = (0..20).map(|number| named(number, None)).collect();
    events.insert(10, large("large", 2_000_000));
    ledger.publish_all(&bus, events).await;
    assert!(!ledger.accepted.contains(&"large".to_owned()));
    ledger.publish(&bus, named("after", None)).await;
    assert_eq!(ledger.accepted.last().unwrap(), "after");
    ledger.check(&stored(&server, &topic).await);
    ledger.check_kept(&bus);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_end_the_start_and_are_not_shown() {
    let server = RedisOptions::new()
        .guarded()
        .line("user app on >right-password ~* +@all")
        .start()
        .await
        .unwrap();
    let address = server.url().rsplit_once('@').unwrap().1;
    let section = section(&format!("redis://{address}"));
    let section = format!("{section}\nuser = 'app'\npassword = 'wrong-password'");
    let error = in_time(try_bus(&section, "t", "", "")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(!error.retryable());
    let text = format!("{error} {error:?}");
    assert!(
        text.contains(address) && !text.contains("wrong-password"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_acl_forbids_is_rejected_and_nothing_else() {
    let server = RedisOptions::new()
        .guarded()
        .line("user app on >secret ~allowed* +@all")
        .start()
        .await
        .unwrap();
    let address = server.url().rsplit_once('@').unwrap().1;
    let section = section(&format!("redis://app:secret@{address}"));
    let bus = bus(&section, "allowed-{2}", "", "").await;
    let mut ledger = Ledger::default();
    let forbidden = "[[routes]]\npattern = 'other.*'\ntransport = 'server'\ntopic = 'forbidden'";
    let both = crate::faults::bus(&section, "allowed-{2}", "", forbidden).await;
    let events = vec![named(1, None), other("no"), named(2, None)];
    ledger.publish_all(&both, events).await;
    ledger.check_rejected("no", ErrorKind::Unauthorized);
    // Taken away while the bus runs: what is stored stays, what comes is rejected.
    let raw = Raw::connect(&server).await;
    ledger.publish(&bus, named(3, None)).await;
    let _: () = raw
        .call(&["ACL", "SETUSER", "app", "resetpass", ">other"])
        .await;
    let _: () = raw.call(&["ACL", "SETUSER", "app", "resetkeys"]).await;
    ledger.publish(&bus, named("late", None)).await;
    ledger.check_rejected("late", ErrorKind::Unauthorized);
    ledger.check(&stored(&server, "allowed-event").await);
    assert!(stored(&server, "forbidden").await.is_empty());
}
