//! TLS and users, on a server that demands both.

use std::path::PathBuf;
use std::time::Duration;

use polybus_core::transport::{Publisher, Settlement, Transport};
use polybus_core::{Effect, Error, ErrorKind, Result, Topic};
use polybus_redis_streams::{RedisConfig, RedisTransport};
use polybus_test_support::{Certificates, RedisOptions, RedisServer};
use tokio::time::timeout;

use crate::support::{
    PATIENCE, Raw, close, events, eventually, ids, numbered_ids, publish, recv_again, settle,
    subscription, take,
};

const PASSWORD: &str = "p@ss:w/ord?";

/// A server that takes TLS with a certificate of the client and a user `app`, who may use the streams
/// `bus:*`.
struct Secure {
    server: RedisServer,
    certificates: Certificates,
}

impl Secure {
    async fn start() -> Self {
        Self::start_with("tls-auth-clients yes").await
    }

    async fn start_with(line: &str) -> Self {
        let certificates = Certificates::generate().unwrap();
        let options = RedisOptions::new().guarded().tls(&certificates).line(line);
        let rights = "+@read +@write +@stream +@connection +@transaction +@scripting -@dangerous";
        let user = format!("user app on >{PASSWORD} ~bus:* {rights}");
        let server = options.line(user).start().await.unwrap();
        Self {
            server,
            certificates,
        }
    }

    fn config(&self) -> RedisConfig {
        let mut config = RedisConfig::new(self.server.tls_url().unwrap());
        config.user = Some("app".into());
        config.password = Some(PASSWORD.into());
        config.ca_file = Some(self.certificates.authority());
        config.certificate_file = Some(self.certificates.client());
        config.key_file = Some(self.certificates.client_key());
        config.connect_deadline = Duration::from_secs(2);
        config
    }

    async fn refused(&self, change: impl FnOnce(&mut RedisConfig)) -> Error {
        let mut config = self.config();
        change(&mut config);
        refused(config).await
    }
}

async fn refused(config: RedisConfig) -> Error {
    let connecting = timeout(PATIENCE, RedisTransport::connect(config)).await;
    let error = connecting.expect("the deadline ends it").unwrap_err();
    assert_eq!(error.effect(), Effect::NotApplied, "{error:?}");
    assert!(!format!("{error:?}").contains(PASSWORD), "{error:?}");
    error
}

#[tokio::test]
async fn events_travel_encrypted_and_a_restart_is_survived() {
    let secure = Secure::start().await;
    let transport = RedisTransport::connect(secure.config()).await.unwrap();
    let topic = Topic::new("bus:a");
    publish(&transport, &events(&topic, 0..300)).await;
    let mut subscriber = transport
        .subscribe(subscription("g", &topic))
        .await
        .unwrap();
    let taken = take(&mut subscriber, 300).await;
    assert_eq!(ids(&taken), numbered_ids(0..300));
    let settled = settle(&subscriber, &taken, Settlement::Ack).await;
    assert!(settled.iter().all(Result::is_ok));
    secure.server.restart().await.unwrap();
    eventually("publishing over a new connection", || async {
        let publisher = transport.publisher().await.unwrap();
        publisher.publish(&events(&topic, 300..301)).await[0].is_accepted()
    })
    .await;
    let again = recv_again(&mut subscriber, 1).await;
    assert_eq!(ids(&again), numbered_ids(300..301));
    close(subscriber).await;
}

#[tokio::test]
async fn a_login_in_the_url_works_over_tls_without_a_certificate_of_the_client() {
    let secure = Secure::start_with("tls-auth-clients no").await;
    let raw = Raw::connect(&secure.server).await;
    let _: () = raw.call("ACL SETUSER app on >simple").await;
    let host = secure.server.tls_url().unwrap();
    let host = host.trim_start_matches("rediss://127.0.0.1");
    let mut config = RedisConfig::new(format!("rediss://app:simple@localhost{host}"));
    config.ca_file = Some(secure.certificates.authority());
    let transport = RedisTransport::connect(config).await.unwrap();
    publish(&transport, &events(&"bus:a".into(), 0..1)).await;
}

#[tokio::test]
async fn a_wrong_login_and_a_missing_right_are_refused() {
    let secure = Secure::start().await;
    for (user, password) in [
        (Some("app"), Some("wrong")),
        (Some("nobody"), Some(PASSWORD)),
        (None, None),
    ] {
        let error = secure
            .refused(|config| {
                config.user = user.map(Into::into);
                config.password = password.map(Into::into);
            })
            .await;
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error:?}");
        assert!(!error.retryable(), "{error:?}");
        assert!(error.to_string().contains("`password`"), "{error}");
    }
    let app = RedisTransport::connect(secure.config()).await.unwrap();
    let publisher = app.publisher().await.unwrap();
    let forbidden = events(&"other".into(), 0..1);
    let error = publisher.publish(&forbidden).await.remove(0);
    let error = error.into_result().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error:?}");
    assert_eq!(error.effect(), Effect::NotApplied);
    assert!(!error.retryable());
    // The connection goes on.
    publish(&app, &events(&"bus:a".into(), 0..1)).await;
}

#[tokio::test]
async fn a_server_of_a_foreign_authority_is_refused() {
    let secure = Secure::start().await;
    let foreign = Certificates::generate().unwrap();
    let error = secure
        .refused(|config| config.ca_file = Some(foreign.authority()))
        .await;
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error:?}");
    assert!(!error.retryable());
    assert!(error.to_string().contains("`ca_file`"), "{error}");
    let error = secure
        .refused(|config| {
            // Signed by whom the server does not know.
            config.certificate_file = Some(foreign.client());
            config.key_file = Some(foreign.client_key());
        })
        .await;
    assert_no_certificate(&error);
}

#[tokio::test]
async fn a_missing_certificate_of_the_client_is_named_as_the_likely_cause() {
    let secure = Secure::start().await;
    let error = secure
        .refused(|config| {
            config.certificate_file = None;
            config.key_file = None;
        })
        .await;
    assert_no_certificate(&error);
}

/// With TLS 1.3 the refusal comes behind the handshake, and may be lost with the connection.
fn assert_no_certificate(error: &Error) {
    let kinds = [ErrorKind::Unauthorized, ErrorKind::Connect];
    assert!(kinds.contains(&error.kind()), "{error:?}");
    assert!(error.to_string().contains("`certificate_file`"), "{error}");
}

#[tokio::test]
async fn tls_to_a_port_without_it_and_the_other_way_round_fail_in_time() {
    let secure = Secure::start().await;
    let plain = secure.server.url().rsplit_once(':').unwrap().1.to_owned();
    let error = secure
        .refused(|config| config.url = format!("rediss://127.0.0.1:{plain}"))
        .await;
    assert_eq!(error.kind(), ErrorKind::Connect, "{error:?}");
    assert!(error.to_string().contains("TLS"), "{error}");
    let url = secure.server.tls_url().unwrap();
    let mut config = RedisConfig::new(url.replace("rediss", "redis"));
    config.connect_deadline = Duration::from_secs(2);
    let error = refused(config).await;
    assert!(error.retryable(), "{error:?}");
}

#[tokio::test]
async fn files_that_can_not_be_used_are_named() {
    let secure = Secure::start().await;
    let other = Certificates::generate().unwrap();
    let file = |name: &str, text: &str| -> PathBuf {
        let file = secure.server.directory().unwrap().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let (empty, text) = (file("empty.pem", ""), file("text.pem", "-----BEGIN X"));
    type Change = Box<dyn FnOnce(&mut RedisConfig)>;
    let changes: Vec<(&str, Change)> = vec![
        ("ca_file", Box::new(|it| it.ca_file = Some("/none".into()))),
        ("ca_file", Box::new(|it| it.ca_file = Some(empty))),
        ("ca_file", Box::new(|it| it.ca_file = Some(text))),
        ("certificate_file", {
            let key = secure.certificates.client_key();
            Box::new(|it| it.certificate_file = Some(key))
        }),
        ("key_file", {
            let certificate = secure.certificates.client();
            Box::new(|it| it.key_file = Some(certificate))
        }),
        ("key_file", {
            let key = other.client_key();
            Box::new(|it| it.key_file = Some(key))
        }),
        (
            "user",
            Box::new(|it| {
                it.url = it.url.replace("://", "://app:x@");
            }),
        ),
    ];
    for (key, change) in changes {
        let error = secure.refused(change).await;
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
        assert!(error.to_string().contains(&format!("`{key}`")), "{error}");
    }
}
