//! TLS and logins, on a server that demands them.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Weak};
use std::time::Duration;

use polybus_core::transport::{Admin, Publisher, Subscriber, Transport};
use polybus_core::{Effect, Error, ErrorKind};
use polybus_kafka::{KafkaConfig, KafkaTransport, SaslMechanism};
use polybus_test_support::{Certificates, KafkaOptions, KafkaServer, unique_name};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::common::*;

const USER: &str = "app";
const PASSWORD: &str = "p@ss:w/ord?";

/// A server with a port for TLS and a login, and one for TLS and a certificate of the client.
struct Secure {
    server: KafkaServer,
    certificates: Certificates,
}

impl Secure {
    /// One for all tests that run at the same time.
    async fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Secure>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(running) = shared.upgrade() {
            return running;
        }
        let certificates = Certificates::generate().unwrap();
        let options = KafkaOptions::new().secure(&certificates);
        let started = Arc::new(Self {
            server: options.user(USER, PASSWORD).start().await.unwrap(),
            certificates,
        });
        *shared = Arc::downgrade(&started);
        started
    }

    /// For the port with a login.
    fn with_login(&self, mechanism: SaslMechanism) -> KafkaConfig {
        let mut config = self.encrypted(self.server.sasl_brokers().unwrap());
        config.sasl_mechanism = Some(mechanism);
        config.user = Some(USER.into());
        if mechanism != SaslMechanism::OAuthBearer {
            config.password = Some(PASSWORD.into());
        }
        config
    }

    /// For the port with a certificate.
    fn with_certificate(&self) -> KafkaConfig {
        let mut config = self.encrypted(self.server.mutual_tls_brokers().unwrap());
        config.certificate_file = Some(self.certificates.client());
        config.key_file = Some(self.certificates.client_key());
        config
    }

    fn encrypted(&self, brokers: &str) -> KafkaConfig {
        let mut config = KafkaConfig::new([brokers]);
        config.session_timeout = Duration::from_secs(6);
        config.tls = true;
        config.ca_file = Some(self.certificates.authority());
        config
    }

    fn file(&self, text: &str) -> PathBuf {
        let file = self.server.directory().unwrap().join(unique_name("file"));
        std::fs::write(&file, text).unwrap();
        file
    }
}

/// Publishes, reads and asks: every client that there is goes in by these settings.
async fn works(config: KafkaConfig) {
    let kafka = KafkaTransport::connect(config).await.unwrap();
    let topic = topic(&kafka, 1).await;
    let publisher = kafka.publisher().await.unwrap();
    publish_all(&publisher, &numbered(&topic, 0..10, 1)).await;
    let group = unique_name("group");
    let mut member = join(&kafka, &group, &topic).await;
    let mut counts = Counts::default();
    handle(&mut member, &mut counts, 10).await;
    assert_eq!(counts.wrong(10), []);
    member.close(deadline()).await.unwrap();
    let lag = kafka.admin().lag(&group, &[topic]).await.unwrap();
    assert!(lag[0].is_zero(), "{lag:?}");
    kafka.admin().health().await.unwrap();
    publisher.close(deadline()).await.unwrap();
}

/// The error of a connect, which comes in time and shows no secret.
async fn refused(mut config: KafkaConfig) -> Error {
    config.connect_deadline = Duration::from_secs(5);
    refused_before_its_deadline(config).await
}

/// What is refused once is refused again: nobody waits for it.
async fn refused_for_good(mut config: KafkaConfig) -> Error {
    config.connect_deadline = Duration::from_secs(3600);
    let error = refused_before_its_deadline(config).await;
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error:?}");
    assert!(!error.retryable(), "{error:?}");
    assert!(error.to_string().contains("127.0.0.1:"), "{error}");
    error
}

async fn refused_before_its_deadline(config: KafkaConfig) -> Error {
    let connecting = timeout(PATIENCE, KafkaTransport::connect(config)).await;
    let error = connecting.expect("the deadline ends it").unwrap_err();
    assert_eq!(error.effect(), Effect::NotApplied, "{error:?}");
    assert!(!format!("{error:?}{error}").contains(PASSWORD), "{error:?}");
    assert!(
        !format!("{error:?}{error}").contains("hunter2"),
        "{error:?}"
    );
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_logs_in_by_each_mechanism() {
    let secure = Secure::shared().await;
    for mechanism in [
        SaslMechanism::Plain,
        SaslMechanism::ScramSha256,
        SaslMechanism::ScramSha512,
        SaslMechanism::OAuthBearer,
    ] {
        works(secure.with_login(mechanism)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_shows_its_certificate() {
    let secure = Secure::shared().await;
    works(secure.with_certificate()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_a_certificate_may_be_encrypted() {
    let secure = Secure::shared().await;
    let encrypted = secure.file("");
    let made = Command::new("openssl")
        .args(["pkcs8", "-topk8", "-passout", "pass:hunter2", "-in"])
        .arg(secure.certificates.client_key())
        .arg("-out")
        .arg(&encrypted)
        .status();
    assert!(made.unwrap().success());
    let mut config = secure.with_certificate();
    config.key_file = Some(encrypted);
    config.key_password = Some("hunter2".into());
    let mut wrong = config.clone();
    works(config).await;
    wrong.key_password = Some("hunter22".into());
    let error = refused(wrong).await;
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert!(error.to_string().contains("`key_file`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_login_is_refused_by_each_mechanism() {
    let secure = Secure::shared().await;
    for mechanism in [
        SaslMechanism::Plain,
        SaslMechanism::ScramSha256,
        SaslMechanism::ScramSha512,
    ] {
        for (user, password) in [(USER, "hunter2"), ("nobody", PASSWORD)] {
            let mut config = secure.with_login(mechanism);
            config.user = Some(user.into());
            config.password = Some(password.into());
            let error = refused_for_good(config).await;
            assert!(error.to_string().contains("`password`"), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_of_a_foreign_authority_are_not_accepted() {
    let secure = Secure::shared().await;
    let foreign = Certificates::generate().unwrap();
    // Without a file it is the system's authorities, which do not know ours.
    for authority in [Some(foreign.authority()), None] {
        let mut config = secure.with_login(SaslMechanism::Plain);
        config.ca_file = authority;
        let error = refused_for_good(config).await;
        assert!(error.to_string().contains("`ca_file`"), "{error}");
    }
}

/// With TLS 1.3 the refusal comes behind the handshake, and may be lost with the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_missing_or_foreign_is_named_as_the_likely_cause() {
    let secure = Secure::shared().await;
    let foreign = Certificates::generate().unwrap();
    let mut missing = secure.with_certificate();
    missing.certificate_file = None;
    missing.key_file = None;
    let mut unknown = secure.with_certificate();
    unknown.certificate_file = Some(foreign.client());
    unknown.key_file = Some(foreign.client_key());
    for config in [missing, unknown] {
        let error = refused(config).await;
        let kinds = [ErrorKind::Unauthorized, ErrorKind::Connect];
        assert!(kinds.contains(&error.kind()), "{error:?}");
        assert!(error.to_string().contains("`certificate_file`"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_expects_something_else_is_told_of_in_time() {
    let secure = Secure::shared().await;
    let server = &secure.server;
    let tls_to_plain = secure.encrypted(server.brokers());
    let plain_to_tls = KafkaConfig::new([server.sasl_brokers().unwrap()]);
    let no_login = secure.encrypted(server.sasl_brokers().unwrap());
    for (case, config) in [
        ("TLS to a port without", tls_to_plain),
        ("no TLS to a port with", plain_to_tls),
        ("no login where one is needed", no_login),
    ] {
        let error = refused(config).await;
        assert_eq!(error.kind(), ErrorKind::Connect, "{case}: {error:?}");
        assert!(error.retryable(), "{case}: {error:?}");
        assert!(error.to_string().contains("`tls`"), "{case}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_can_not_be_used_are_named() {
    let secure = Secure::shared().await;
    let other = Certificates::generate().unwrap();
    let certificates = &secure.certificates;
    let (empty, broken) = (
        secure.file(""),
        secure.file("-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----\n"),
    );
    let own = || secure.with_certificate();
    let change = |change: &dyn Fn(&mut KafkaConfig)| {
        let mut config = own();
        change(&mut config);
        config
    };
    for (key, config) in [
        ("ca_file", change(&|it| it.ca_file = Some("/none".into()))),
        ("ca_file", change(&|it| it.ca_file = Some(empty.clone()))),
        ("ca_file", change(&|it| it.ca_file = Some(broken.clone()))),
        (
            "certificate_file",
            change(&|it| it.certificate_file = Some(certificates.client_key())),
        ),
        (
            "certificate_file",
            change(&|it| it.certificate_file = Some(broken.clone())),
        ),
        (
            "key_file",
            change(&|it| it.key_file = Some(certificates.client())),
        ),
        (
            "key_file",
            change(&|it| it.key_file = Some(other.client_key())),
        ),
    ] {
        let error = refused(config).await;
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
        assert!(error.to_string().contains(&format!("`{key}`")), "{error}");
    }
}
