//! Bad settings, servers that are not there, and users who may not.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polybus_core::config::Section;
use polybus_core::transport::{
    Admin, Publisher, Settlement, Subscription, TopicSpec, Transport, TransportConfig,
    TransportFactory,
};
use polybus_core::{Effect, Error, ErrorKind, Topic};
use polybus_redis_streams::{KIND, RedisConfig, RedisFactory, RedisTransport};
use polybus_test_support::{RedisServer, free_port, unique_name};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::support::{
    PATIENCE, Raw, ack, close, connect, events, eventually, publish, settle, subscription, take,
    topic,
};

async fn refused(url: String) -> Error {
    let mut config = RedisConfig::new(url);
    config.connect_deadline = Duration::from_millis(500);
    let connecting = timeout(PATIENCE, RedisTransport::connect(config)).await;
    connecting.expect("the deadline ends it").unwrap_err()
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_without_the_login() {
    let port = free_port();
    let error = refused(format!("redis://user:secret@127.0.0.1:{port}")).await;
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.retryable());
    assert_eq!(error.transport(), Some(KIND));
    let text = format!("{error:?}");
    assert!(text.contains(&format!("127.0.0.1:{port}")), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_at_the_deadline() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let error = refused(format!("redis://{address}")).await;
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

/// Answers every command that comes with the next of its lines.
async fn fake_server(answers: Vec<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        if socket.read(&mut request).await.unwrap() > 0 {
            socket.write_all(answers.concat().as_bytes()).await.unwrap();
        }
        while socket.read(&mut request).await.is_ok_and(|count| count > 0) {}
    });
    url
}

#[tokio::test]
async fn a_server_that_is_too_old_or_none_at_all_is_refused() {
    const OLD: &str = "*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n6.2.14\r\n";
    const OLDER: &str = "-ERR unknown command `HELLO`, with args beginning with: \r\n";
    for (hello, kind, text) in [
        (OLD, ErrorKind::Unsupported, "6.2.14"),
        (OLDER, ErrorKind::Unsupported, "7.0"),
        (
            "HTTP/1.1 400 Bad Request\r\n\r\n",
            ErrorKind::Transport,
            "protocol",
        ),
    ] {
        let error = refused(fake_server(vec![hello, "+OK\r\n", "+PONG\r\n"]).await).await;
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[tokio::test]
async fn a_url_that_can_not_be_used_is_a_config_error_that_hides_it() {
    for url in [
        "",
        "localhost",
        "http://user:secret@host",
        "redis://:secret@host:port",
        "rediss://:secret@host:port",
    ] {
        let error = refused(url.to_owned()).await;
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
        let text = format!("{error:?}");
        assert!(text.contains("`url`") && !text.contains("secret"), "{text}");
    }
}

#[tokio::test]
async fn the_factory_reads_a_section_of_the_config() {
    let server = RedisServer::shared().await;
    let section = |text: String| -> TransportConfig {
        TransportConfig::new("events", "deals", text.parse::<Section>().unwrap())
    };
    assert_eq!(RedisFactory.kind(), "redis-streams");
    let good = section(format!(
        "url = '{}'\nblock = '500ms'\ncount = 10",
        server.url()
    ));
    let transport = RedisFactory.connect(good).await.unwrap();
    transport.admin().health().await.unwrap();
    for (text, key) in [
        (format!("url = '{}'\nblok = '1s'", server.url()), "blok"),
        ("count = 1".to_owned(), "url"),
        (format!("url = '{}'\nblock = 5", server.url()), "block"),
        (format!("url = '{}'\nblock = 'soon'", server.url()), "block"),
        (format!("url = '{}'\ncount = 0", server.url()), "count"),
        (format!("url = '{}'\nname = 'x'", server.url()), "name"),
    ] {
        let error = RedisFactory.connect(section(text)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(key), "{error}");
    }
}

/// A server of its own with two users, whose passwords are their names.
async fn guarded() -> RedisServer {
    let server = RedisServer::start().await.unwrap();
    let raw = Raw::connect(&server).await;
    let rights = "+@read +@write +@stream +@connection +@transaction";
    for (user, more) in [("app", "+@scripting -@dangerous"), ("weak", "-@scripting")] {
        let _: () = raw
            .call(&format!(
                "ACL SETUSER {user} on >{user} ~bus:* {rights} {more}"
            ))
            .await;
    }
    server
}

async fn log_in(server: &RedisServer, login: &str) -> polybus_core::Result<RedisTransport> {
    let host = server.url().trim_start_matches("redis://");
    RedisTransport::connect(RedisConfig::new(format!("redis://{login}@{host}"))).await
}

#[tokio::test]
async fn a_wrong_login_and_a_missing_right_are_told_as_such() {
    let server = guarded().await;
    for login in ["app:wrong", "nobody:app"] {
        let error = log_in(&server, login).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        assert!(!error.retryable());
        assert!(!format!("{error:?}").contains(login), "{error:?}");
    }
    let app = log_in(&server, "app:app").await.unwrap();
    let forbidden = Topic::new("other");
    let publisher = app.publisher().await.unwrap();
    let refused = publisher.publish(&events(&forbidden, 0..1)).await.remove(0);
    let error = refused.into_result().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert_eq!(error.effect(), Effect::NotApplied);
    let error = app
        .subscribe(subscription("g", &forbidden))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    let weak = log_in(&server, "weak:weak").await.unwrap();
    let error = weak
        .subscribe(subscription("g", &"bus:a".into()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(error.to_string().contains("+@scripting"), "{error}");
}

#[tokio::test]
async fn the_documented_rights_are_enough() {
    let server = guarded().await;
    let app = log_in(&server, "app:app").await.unwrap();
    let topic = Topic::new("bus:a");
    app.admin()
        .ensure_topics(&[TopicSpec::new("bus:a")])
        .await
        .unwrap();
    publish(&app, &events(&topic, 0..10)).await;
    let mut subscriber = app.subscribe(subscription("g", &topic)).await.unwrap();
    let first = take(&mut subscriber, 10).await;
    let (done, rest) = first.split_at(5);
    for (half, settlement) in [(done, Settlement::Ack), (rest, Settlement::Release)] {
        assert!(
            settle(&subscriber, half, settlement)
                .await
                .iter()
                .all(Result::is_ok)
        );
    }
    let again = take(&mut subscriber, 5).await;
    assert!(
        settle(&subscriber, &again, Settlement::Ack)
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert!(app.admin().lag("g", &[topic]).await.unwrap()[0].is_zero());
    close(subscriber).await;
}

#[tokio::test]
async fn subscriptions_that_can_not_work_are_refused() {
    let server = RedisServer::shared().await;
    let transport = connect(server).await;
    for wrong in [
        Subscription::new("g", []),
        Subscription::new("", [topic()]),
        subscription("g", &topic()).takeover_after(Duration::from_millis(99)),
        subscription("g", &topic()).takeover_after(Duration::MAX),
    ] {
        let error = transport.subscribe(wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
    let raw = Raw::connect(server).await;
    let text = topic();
    let _: () = raw.words(&["SET", text.name(), "text"]).await;
    let error = transport
        .subscribe(subscription("g", &text))
        .await
        .unwrap_err();
    assert_eq!(error.topic(), Some(text.name()));
    assert!(error.to_string().contains("WRONGTYPE"), "{error}");
}

#[tokio::test]
async fn a_configured_member_name_is_the_members() {
    let server = RedisServer::shared().await;
    let mut config = RedisConfig::new(server.url());
    config.member = Some("pod-7".into());
    let transport = RedisTransport::connect(config).await.unwrap();
    let subscriber = transport
        .subscribe(subscription("g", &topic()))
        .await
        .unwrap();
    assert_eq!(subscriber.member(), "pod-7");
    let named = subscription("g", &topic()).member("mine");
    assert_eq!(transport.subscribe(named).await.unwrap().member(), "mine");
}

#[tokio::test]
async fn lag_is_known_where_the_server_does_not_know_it() {
    let server = RedisServer::shared().await;
    let (transport, raw, topic) = (connect(server).await, Raw::connect(server).await, topic());
    publish(&transport, &events(&topic, 0..2_500)).await;
    let entries: Vec<(String, Vec<String>)> = raw
        .words(&["XRANGE", topic.name(), "-", "+", "COUNT", "100"])
        .await;
    let group = unique_name("group");
    let middle = entries[99].0.as_str();
    let _: () = raw
        .words(&["XGROUP", "CREATE", topic.name(), &group, middle])
        .await;
    let admin = transport.admin();
    let waiting = async |group: &str| {
        admin
            .lag(group, std::slice::from_ref(&topic))
            .await
            .unwrap()[0]
            .waiting
    };
    assert_eq!(waiting(&group).await, 2_400);
    assert_eq!(waiting("nobody").await, 2_500);
    let missing = admin
        .lag(&group, &["no-such-stream".into()])
        .await
        .unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::TopicNotFound);
    assert_eq!(missing.topic(), Some("no-such-stream"));
}

/// After its log was rewritten, a server that comes back counts anew what was read since then
/// (Redis 7.0: the log has reads as `XCLAIM .. LASTID`, which does not count them).
#[tokio::test]
async fn lag_is_right_where_the_server_counts_wrong_after_a_restart() {
    let server = RedisServer::start().await.unwrap();
    let (transport, raw, topic) = (connect(&server).await, Raw::connect(&server).await, topic());
    let mut subscriber = transport
        .subscribe(subscription("g", &topic))
        .await
        .unwrap();
    for numbers in [0..10, 10..30] {
        publish(&transport, &events(&topic, numbers.clone())).await;
        let taken = take(&mut subscriber, numbers.len()).await;
        assert!(ack(&subscriber, &taken).await.iter().all(Result::is_ok));
        if numbers.start == 0 {
            let _: String = raw.words(&["BGREWRITEAOF"]).await;
            eventually("the rewritten log", async || {
                let info: String = raw.words(&["INFO", "persistence"]).await;
                info.contains("aof_rewrite_in_progress:0")
                    && info.contains("aof_rewrite_scheduled:0")
            })
            .await;
        }
    }
    close(subscriber).await;
    server.kill().await.unwrap();
    server.restart().await.unwrap();
    publish(&connect(&server).await, &events(&topic, 30..35)).await;

    let admin = transport.admin();
    let lag = admin.lag("g", std::slice::from_ref(&topic)).await.unwrap();
    assert_eq!((lag[0].waiting, lag[0].pending), (5, 0));
}

/// What is logged while a test looks.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_server_that_may_delete_streams_is_warned_about() {
    let server = RedisServer::start().await.unwrap();
    let raw = Raw::connect(&server).await;
    for (policy, warned) in [
        ("allkeys-lru", true),
        ("noeviction", false),
        ("volatile-ttl", false),
        ("allkeys-random", true),
    ] {
        let _: () = raw
            .call(&format!("CONFIG SET maxmemory-policy {policy}"))
            .await;
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
        let _looking = tracing::subscriber::set_default(subscriber.finish());
        connect(&server).await;
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert_eq!(
            text.contains("WARN") && text.contains(policy),
            warned,
            "{text}"
        );
    }
}
