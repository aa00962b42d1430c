//! Settings of the client library under its own names, and what is promised no more with them.

use std::fmt;

use polybus_core::Text;
use rdkafka::ClientConfig;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::access::{self, UNSIGNED_TOKEN};
use crate::config::KafkaConfig;

/// The value of a client property: in a config file a string, a number or a boolean.
#[derive(Clone, PartialEq, Eq)]
pub struct Property(String);

impl Property {
    /// The value as the client takes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Property {
    fn from(value: T) -> Self {
        Self(value.into())
    }
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl<'de> Deserialize<'de> for Property {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(Self(text)),
            toml::Value::Integer(number) => Ok(Self(number.to_string())),
            toml::Value::Float(number) => Ok(Self(number.to_string())),
            toml::Value::Boolean(value) => Ok(Self(value.to_string())),
            other => Err(D::Error::custom(format!(
                "a client property is a string, a number or a boolean, not a {}",
                other.type_str()
            ))),
        }
    }
}

/// Sets the properties, in place of what the settings have set.
pub(crate) fn apply(client: &mut ClientConfig, config: &KafkaConfig) {
    for (name, value) in &config.properties {
        client.set(canonical(name), value.as_str());
    }
}

/// The property, whichever of its names it was given.
pub(crate) fn find<'a>(config: &'a KafkaConfig, name: &str) -> Option<&'a str> {
    let mut found = config.properties.iter();
    let found = found.find(|(given, _)| canonical(given) == name);
    found.map(|(_, value)| value.as_str())
}

/// The name that this crate sets a property by. Under two names it would have two values, and the
/// client would take any.
fn canonical(name: &str) -> &str {
    match name {
        "metadata.broker.list" => "bootstrap.servers",
        "request.required.acks" => "acks",
        "queue.buffering.max.ms" => "linger.ms",
        "delivery.timeout.ms" => "message.timeout.ms",
        "message.send.max.retries" => "retries",
        "max.in.flight.requests.per.connection" => "max.in.flight",
        "compression.type" => "compression.codec",
        "sasl.mechanism" => "sasl.mechanisms",
        name => name,
    }
}

/// A property and what is promised as long as its value is harmless.
struct Promise {
    /// Its canonical name.
    property: &'static str,
    harmless: fn(&str) -> bool,
    promise: &'static str,
}

const EVERY_REPLICA: &str = "an accepted event is on every replica that is in sync";
const ONCE_IN_ORDER: &str = "an event that is sent again is stored once, and in its order";
const NOTHING_SKIPPED: &str = "the position of a group passes over nothing that is not settled";
const THE_BROKER: &str = "the broker is the one that its certificate names";

const NOT_READ: &str = "nobody on the way can read the password: PLAIN without `tls` shows it";

const PROMISES: [Promise; 20] = [
    promise("acks", |value| matches!(value, "all" | "-1"), EVERY_REPLICA),
    promise("enable.idempotence", is_true, ONCE_IN_ORDER),
    promise("max.in.flight", |value| at_most(value, 5), ONCE_IN_ORDER),
    promise("queuing.strategy", |value| value == "fifo", ONCE_IN_ORDER),
    promise(
        "retries",
        |value| !at_most(value, 0),
        "an event that a broker could not take in this moment is sent again",
    ),
    promise(
        "partitioner",
        |value| matches!(value, "murmur2" | "murmur2_random"),
        "the events of a key are in the partition that Java clients choose",
    ),
    promise(
        "delivery.report.only.error",
        is_false,
        "an event that is stored is reported as accepted",
    ),
    promise(
        "transactional.id",
        |_| false,
        "publishers are independent of each other, and publish outside of transactions",
    ),
    promise("enable.auto.commit", is_false, NOTHING_SKIPPED),
    promise("enable.auto.offset.store", is_false, NOTHING_SKIPPED),
    // The client takes the place of an end for one of a record that was read.
    promise("enable.partition.eof", is_false, NOTHING_SKIPPED),
    promise(
        "auto.offset.reset",
        |value| matches!(value, "earliest" | "smallest" | "beginning"),
        "where the position of a group is gone it reads from the beginning and skips nothing",
    ),
    promise(
        "isolation.level",
        |value| value == "read_committed",
        "events of a transaction are delivered when it is committed, or never",
    ),
    promise(
        "allow.auto.create.topics",
        is_false,
        "a topic that does not exist is an error and is not made",
    ),
    promise(
        "group.id",
        |_| false,
        "a subscription reads for its own group",
    ),
    promise(
        "group.instance.id",
        |_| false,
        "two members of a group do not shut each other out; `static_membership` keeps it",
    ),
    promise("enable.ssl.certificate.verification", is_true, THE_BROKER),
    promise(
        "ssl.endpoint.identification.algorithm",
        |value| value == "https",
        THE_BROKER,
    ),
    promise(
        "security.protocol",
        |value| value.to_ascii_lowercase().ends_with("ssl"),
        "connections are encrypted, as `tls` says",
    ),
    promise(
        UNSIGNED_TOKEN,
        is_false,
        "the brokers can tell who this client is: its token has no signature",
    ),
];

const fn promise(
    property: &'static str,
    harmless: fn(&str) -> bool,
    promise: &'static str,
) -> Promise {
    Promise {
        property,
        harmless,
        promise,
    }
}

/// Warns of each property, and each setting, with which a promise of this transport is not kept.
pub(crate) fn warn(config: &KafkaConfig, transport: &Text) {
    for (setting, promise) in broken(config) {
        tracing::warn!(
            transport = transport.as_str(),
            setting,
            "with this setting it is not true any more that {promise}"
        );
    }
}

/// The properties and settings that break a promise, as they are written, with the promise.
fn broken(config: &KafkaConfig) -> Vec<(&str, &'static str)> {
    let typed = [
        ("acks", "acks", config.acks.name()),
        ("partitioner", "partitioner", config.partitioner.name()),
        (
            "sasl_mechanism",
            UNSIGNED_TOKEN,
            access::unsigned_token(config),
        ),
    ];
    let typed = typed
        .into_iter()
        .filter(|(_, property, _)| find(config, property).is_none());
    let raw = config.properties.iter();
    let raw = raw.map(|(name, value)| (name.as_str(), canonical(name), value.as_str()));
    let mut broken = Vec::new();
    for (name, property, value) in typed.chain(raw) {
        let judged = PROMISES.iter().find(|it| it.property == property);
        let Some(promise) = judged.filter(|it| !(it.harmless)(value)) else {
            continue;
        };
        if property != "security.protocol" || config.tls {
            broken.push((name, promise.promise));
        }
    }
    if access::shows_password(config) {
        broken.push(("sasl_mechanism", NOT_READ));
    }
    broken
}

/// Whether the client can be idempotent: it refuses to be made where a property excludes it.
pub(crate) fn allow_idempotence(config: &KafkaConfig) -> bool {
    let conditions = ["acks", "max.in.flight", "queuing.strategy", "retries"];
    let broken = broken(config);
    !broken
        .iter()
        .any(|(name, _)| conditions.contains(&canonical(name)))
}

/// As the client reads a boolean.
fn is_true(value: &str) -> bool {
    ["true", "t", "1"]
        .iter()
        .any(|it| value.eq_ignore_ascii_case(it))
}

fn is_false(value: &str) -> bool {
    ["false", "f", "0"]
        .iter()
        .any(|it| value.eq_ignore_ascii_case(it))
}

/// Whether it is a number of at most so much. What is none is refused by the client.
fn at_most(value: &str, most: i64) -> bool {
    value.trim().parse::<i64>().is_ok_and(|value| value <= most)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::access::SaslMechanism;
    use crate::writing::{Acks, Partitioner};

    fn with(name: &str, value: &str) -> KafkaConfig {
        KafkaConfig::new(["a:1"]).property(name, value)
    }

    #[test]
    fn what_breaks_a_promise_is_told_of_under_the_name_that_was_written() {
        for (name, value, promise) in [
            ("acks", "1", EVERY_REPLICA),
            ("request.required.acks", "0", EVERY_REPLICA),
            ("enable.idempotence", "false", ONCE_IN_ORDER),
            ("max.in.flight", "6", ONCE_IN_ORDER),
            (
                "max.in.flight.requests.per.connection",
                "100",
                ONCE_IN_ORDER,
            ),
            ("queuing.strategy", "lifo", ONCE_IN_ORDER),
            ("retries", "0", "sent again"),
            ("message.send.max.retries", "0", "sent again"),
            ("partitioner", "random", "Java"),
            ("delivery.report.only.error", "true", "accepted"),
            ("transactional.id", "t", "transactions"),
            ("enable.auto.commit", "true", NOTHING_SKIPPED),
            ("enable.auto.offset.store", "t", NOTHING_SKIPPED),
            ("enable.partition.eof", "true", NOTHING_SKIPPED),
            ("auto.offset.reset", "latest", "skips nothing"),
            ("isolation.level", "read_uncommitted", "transaction"),
            ("allow.auto.create.topics", "1", "not made"),
            ("group.id", "g", "own group"),
            ("group.instance.id", "m", "`static_membership`"),
            ("enable.ssl.certificate.verification", "false", THE_BROKER),
            ("ssl.endpoint.identification.algorithm", "none", THE_BROKER),
            ("enable.sasl.oauthbearer.unsecure.jwt", "true", "signature"),
        ] {
            let config = with(name, value);
            let told = broken(&config);
            assert_eq!(told.len(), 1, "{name}: {told:?}");
            assert_eq!(told[0].0, name);
            assert!(told[0].1.contains(promise), "{told:?}");
        }
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_promise_that_is_broken_is_a_warning_of_its_own_without_the_value() {
        let config = with("group.id", "hunter2").property("enable.auto.commit", "true");
        let config = config.property("compression.type", "lz4");
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
        tracing::subscriber::with_default(subscriber.finish(), || warn(&config, &"orders".into()));
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("WARN").count(), 2, "{text}");
        for part in ["orders", "group.id", "enable.auto.commit", NOTHING_SKIPPED] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn what_breaks_none_is_not_told_of() {
        for (name, value) in [
            ("acks", "all"),
            ("acks", "-1"),
            ("enable.idempotence", "TRUE"),
            ("max.in.flight", "5"),
            ("retries", "10"),
            ("partitioner", "murmur2"),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "smallest"),
            ("isolation.level", "read_committed"),
            ("ssl.endpoint.identification.algorithm", "https"),
            ("compression.type", "lz4"),
            // Nothing was said of encryption.
            ("security.protocol", "plaintext"),
        ] {
            assert_eq!(broken(&with(name, value)), [], "{name} = {value}");
        }
        assert_eq!(broken(&KafkaConfig::new(["a:1"])), []);
    }

    #[test]
    fn a_setting_that_breaks_a_promise_is_told_of_unless_a_property_wins() {
        let mut config = KafkaConfig::new(["a:1"]);
        config.acks = Acks::None;
        config.partitioner = Partitioner::Random;
        let names: Vec<_> = broken(&config).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["acks", "partitioner"]);
        assert!(!allow_idempotence(&config));
        let config = config.property("request.required.acks", "all");
        let config = config.property("partitioner", "murmur2");
        assert_eq!(broken(&config), []);
        assert!(allow_idempotence(&config));
    }

    #[test]
    fn a_login_that_proves_or_hides_nothing_is_told_of() {
        let mut config = KafkaConfig::new(["a:1"]);
        config.sasl_mechanism = Some(SaslMechanism::OAuthBearer);
        assert!(broken(&config)[0].1.contains("signature"));
        config.sasl_mechanism = Some(SaslMechanism::Plain);
        assert_eq!(broken(&config), [("sasl_mechanism", NOT_READ)]);
        config.tls = true;
        assert_eq!(broken(&config), []);
        config.sasl_mechanism = Some(SaslMechanism::ScramSha256);
        config.tls = false;
        assert_eq!(broken(&config), []);
    }

    #[test]
    fn tls_that_a_property_turns_off_is_told_of() {
        let mut config = with("security.protocol", "SASL_PLAINTEXT");
        config.tls = true;
        assert!(broken(&config)[0].1.contains("encrypted"));
        let config = config.property("security.protocol", "SASL_SSL");
        assert_eq!(broken(&config), []);
    }

    #[test]
    fn a_property_wins_under_any_of_its_names() {
        for (alias, name) in [
            ("metadata.broker.list", "bootstrap.servers"),
            ("request.required.acks", "acks"),
            ("queue.buffering.max.ms", "linger.ms"),
            ("delivery.timeout.ms", "message.timeout.ms"),
            ("compression.type", "compression.codec"),
        ] {
            let client = crate::client::publishing(&with(alias, "7"), &"c".into());
            assert_eq!(client.get(name), Some("7"), "{alias}");
            assert_eq!(client.get(alias), None, "{alias}");
        }
    }

    #[test]
    fn a_client_is_idempotent_unless_it_is_told_what_excludes_it() {
        for (name, value, idempotent) in [
            ("acks", "all", "true"),
            ("acks", "1", "false"),
            ("max.in.flight", "6", "false"),
            ("retries", "0", "false"),
            ("queuing.strategy", "lifo", "false"),
            ("enable.auto.commit", "true", "true"),
        ] {
            let client = crate::client::publishing(&with(name, value), &"c".into());
            assert_eq!(client.get("enable.idempotence"), Some(idempotent), "{name}");
            // The client agrees.
            client.create::<rdkafka::producer::BaseProducer>().unwrap();
        }
    }
}
