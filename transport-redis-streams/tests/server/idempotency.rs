//! What is kept of handled events on a server: how it looks there, and what a server that
//! forgets or goes away does to it. That claims exclude each other is the conformance suite's.

use std::sync::Arc;
use std::time::Duration;

use polybus_core::ErrorKind;
use polybus_core::idempotency::{Claim, Claimed, Fence, IdempotencyStore};
use polybus_core::transport::Transport;
use polybus_redis_streams::RedisTransport;
use polybus_test_support::{RedisServer, unique_name};

use crate::support::{PATIENCE, Raw, connect, connect_with};

const LEASE: Duration = Duration::from_secs(30);
const RETAIN: Duration = Duration::from_secs(7 * 86_400);

fn store(transport: &RedisTransport) -> Arc<dyn IdempotencyStore> {
    transport.idempotency().expect("Redis Streams has one")
}

fn claim(key: &str) -> Claim {
    Claim::new(key, Fence::unique())
}

#[tokio::test]
async fn keys_name_their_group_and_expire_with_lease_and_retention() {
    let server = RedisServer::shared().await;
    let (transport, raw) = (connect(server).await, Raw::connect(server).await);
    let (store, group) = (store(&transport), unique_name("group"));
    let claims = [claim(&format!("{group}:order.placed:shop:o1"))];
    let key = format!("polybus:idempotency:{{{group}}}:order.placed:shop:o1");

    let answers = store.claim(&claims, LEASE).await.unwrap();
    assert_eq!(answers, [Claimed::Claimed]);
    let left: u64 = raw.words(&["PTTL", &key]).await;
    assert!(left > 20_000 && left <= 30_000, "{left}");
    let value: Vec<u8> = raw.words(&["GET", &key]).await;
    assert_eq!(value, [b"c", &claims[0].fence.to_bytes()[..]].concat());

    assert_eq!(store.complete(&claims, RETAIN).await.unwrap(), [true]);
    let left: u64 = raw.words(&["PTTL", &key]).await;
    assert!(left > 6 * 86_400_000, "{left}");
    let answers = store.claim(&[claim(&claims[0].key)], LEASE).await.unwrap();
    assert_eq!(answers, [Claimed::Done]);
}

#[tokio::test]
async fn a_slice_costs_one_script_for_each_group() {
    let server = RedisServer::start().await.unwrap();
    let (transport, raw) = (connect(&server).await, Raw::connect(&server).await);
    let keys = (0..500).map(|number| format!("g{}:h:s:{number}", number % 2));
    let claims: Vec<Claim> = keys.map(|key| claim(&key)).collect();
    let answers = store(&transport).claim(&claims, LEASE).await.unwrap();
    assert!(answers.iter().all(|it| *it == Claimed::Claimed));
    let stats: String = raw.call("INFO commandstats").await;
    assert!(stats.contains("cmdstat_eval:calls=2,"), "{stats}");
    assert!(stats.contains("cmdstat_set:calls=500,"), "{stats}");
}

#[tokio::test]
async fn of_those_that_complete_a_key_in_one_slice_the_first_does() {
    let server = RedisServer::shared().await;
    let (store, group) = (store(&connect(server).await), unique_name("group"));
    let key = |number: u32| claim(&format!("{group}:h:s:{number}"));
    let claims = [key(1), key(2), key(1)];
    let completed = store.complete(&claims, RETAIN).await.unwrap();
    assert_eq!(completed, [true, true, false]);
    let again = store.complete(&claims, RETAIN).await.unwrap();
    assert_eq!(again, [true, true, false], "also when it is made again");
}

#[tokio::test]
async fn what_a_server_forgot_is_completed_all_the_same() {
    let server = RedisServer::start().await.unwrap();
    let (transport, raw) = (connect(&server).await, Raw::connect(&server).await);
    let store = store(&transport);
    let claims = [claim("g:h:s:1")];
    store.claim(&claims, LEASE).await.unwrap();
    let _: String = raw.call("FLUSHALL").await;
    assert_eq!(store.renew(&claims, LEASE).await.unwrap(), [false]);
    let again = store.claim(&claims, LEASE).await.unwrap();
    assert_eq!(again, [Claimed::Claimed]);
    let _: String = raw.call("FLUSHALL").await;
    assert_eq!(store.complete(&claims, RETAIN).await.unwrap(), [true]);
    let other = store.claim(&[claim("g:h:s:1")], LEASE).await.unwrap();
    assert_eq!(other, [Claimed::Done]);
}

#[tokio::test]
async fn claims_and_marks_outlive_a_restart_and_the_store_comes_back_by_itself() {
    let server = RedisServer::start().await.unwrap();
    let transport = connect_with(&server, |config| {
        config.connect_deadline = Duration::from_millis(200);
    })
    .await;
    let store = store(&transport);
    let (held, done) = ([claim("g:h:s:held")], [claim("g:h:s:done")]);
    for claims in [&held, &done] {
        store.claim(claims, LEASE).await.unwrap();
    }
    store.complete(&done, RETAIN).await.unwrap();
    server.kill().await.unwrap();
    for _ in 0..2 {
        let error = store.claim(&held, LEASE).await.unwrap_err();
        assert!(error.retryable(), "{error:?}");
    }
    server.restart().await.unwrap();
    let others = [claim("g:h:s:held"), claim("g:h:s:done")];
    let asking = async {
        loop {
            if let Ok(answers) = store.claim(&others, LEASE).await {
                return answers;
            }
        }
    };
    let answers = tokio::time::timeout(PATIENCE, asking).await.unwrap();
    assert!(matches!(answers[0], Claimed::Busy(_)), "{answers:?}");
    assert_eq!(answers[1], Claimed::Done);
    assert_eq!(store.release(&held).await.unwrap(), [true]);
}

#[tokio::test]
async fn a_key_that_is_something_else_is_an_error_and_stays() {
    let server = RedisServer::shared().await;
    let (transport, raw) = (connect(server).await, Raw::connect(server).await);
    let group = unique_name("group");
    let key = format!("polybus:idempotency:{{{group}}}:1");
    let _: u64 = raw.words(&["SADD", &key, "member"]).await;
    let claims = [claim(&format!("{group}:1"))];
    let error = store(&transport).claim(&claims, LEASE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transport);
    assert_eq!(error.operation(), Some("claim"));
    let kind: String = raw.words(&["TYPE", &key]).await;
    assert_eq!(kind, "set");
}

#[tokio::test]
async fn a_user_with_the_rights_that_the_documentation_names_can_use_it() {
    let server = RedisServer::start().await.unwrap();
    let raw = Raw::connect(&server).await;
    let rights = "ACL SETUSER app on >simple ~polybus:idempotency:* \
                  +hello +client|setname +ping +eval +get +mget +set +del +pttl +pexpire";
    let _: String = raw.call(rights).await;
    let transport = connect_with(&server, |config| {
        config.user = Some("app".into());
        config.password = Some("simple".into());
    })
    .await;
    let store = store(&transport);
    let (mine, other) = ([claim("g:h:s:1")], [claim("g:h:s:1")]);
    store.claim(&mine, LEASE).await.unwrap();
    let busy = store.claim(&other, LEASE).await.unwrap();
    assert!(matches!(busy[..], [Claimed::Busy(_)]), "{busy:?}");
    assert_eq!(store.renew(&mine, LEASE).await.unwrap(), [true]);
    assert_eq!(store.release(&mine).await.unwrap(), [true]);
    assert_eq!(store.complete(&other, RETAIN).await.unwrap(), [true]);
}
