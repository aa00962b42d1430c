use polybus_core::ErrorKind;
use polybus_core::config::Section;
use polybus_core::transport::{TransportConfig, TransportFactory};

use super::*;
use crate::KafkaFactory;

fn parse(text: &str) -> Result<KafkaConfig, toml::de::Error> {
    toml::from_str(text)
}

#[test]
fn settings_are_read_with_their_units() {
    let config = parse(
        r#"
        brokers = ["a:9092", "b:9092"]
        delivery_deadline = "1m 30s"
        linger = "2ms"
        fetch_buffer = "2MiB"
        buffer_bytes = 1000
        [properties]
        "compression.type" = "lz4"
        "socket.timeout.ms" = 500
        "socket.keepalive.enable" = true
        "#,
    )
    .unwrap();
    assert_eq!(config.brokers(), "a:9092,b:9092");
    assert_eq!(config.delivery_deadline, Duration::from_secs(90));
    assert_eq!(config.linger, Duration::from_millis(2));
    assert_eq!((config.fetch_buffer, config.buffer_bytes), (2 << 20, 1000));
    assert_eq!(config.commit_interval, Duration::from_millis(500));
    let values: Vec<_> = config.properties.values().map(Property::as_str).collect();
    assert_eq!(values, ["lz4", "true", "500"]);
    config.validate().unwrap();
}

#[test]
fn every_choice_has_its_name() {
    for (text, read) in [
        ("", "compression: None"),
        ("compression = 'none'", "compression: None"),
        ("compression = 'gzip'", "compression: Gzip"),
        ("compression = 'snappy'", "compression: Snappy"),
        ("compression = 'lz4'", "compression: Lz4"),
        ("compression = 'zstd'", "compression: Zstd"),
        ("", "acks: All"),
        ("acks = 'all'", "acks: All"),
        ("acks = -1", "acks: All"),
        ("acks = 1", "acks: Leader"),
        ("acks = '1'", "acks: Leader"),
        ("acks = 0", "acks: None"),
        ("", "partitioner: Murmur2Random"),
        (
            "partitioner = 'murmur2_random'",
            "partitioner: Murmur2Random",
        ),
        ("partitioner = 'murmur2'", "partitioner: Murmur2,"),
        (
            "partitioner = 'consistent_random'",
            "partitioner: ConsistentRandom",
        ),
        ("partitioner = 'consistent'", "partitioner: Consistent,"),
        ("partitioner = 'fnv1a_random'", "partitioner: Fnv1aRandom"),
        ("partitioner = 'fnv1a'", "partitioner: Fnv1a,"),
        ("partitioner = 'random'", "partitioner: Random"),
        ("", "group_protocol: Classic"),
        ("group_protocol = 'classic'", "group_protocol: Classic"),
        ("group_protocol = 'consumer'", "group_protocol: Consumer"),
        ("", "format: Default"),
        ("format = 'default'", "format: Default"),
        ("format = 'plain'", "format: Plain"),
        ("", "sasl_mechanism: None"),
        ("sasl_mechanism = 'PLAIN'", "sasl_mechanism: Some(Plain)"),
        ("sasl_mechanism = 'SCRAM-SHA-256'", "Some(ScramSha256)"),
        ("sasl_mechanism = 'SCRAM-SHA-512'", "Some(ScramSha512)"),
        ("sasl_mechanism = 'OAUTHBEARER'", "Some(OAuthBearer)"),
    ] {
        let section: Section = text.parse().unwrap();
        let config: KafkaConfig = section.parse().unwrap();
        let config = format!("{config:?}");
        assert!(config.contains(read), "{text}: {config}");
    }
}

/// What the client makes of each choice is left to the client: it knows its names.
#[test]
fn the_client_knows_every_choice() {
    use rdkafka::producer::BaseProducer;
    type Change = fn(&mut KafkaConfig);
    let changes: [Change; 13] = [
        |it| it.compression = Compression::None,
        |it| it.compression = Compression::Gzip,
        |it| it.compression = Compression::Snappy,
        |it| it.compression = Compression::Lz4,
        |it| it.compression = Compression::Zstd,
        |it| it.acks = Acks::Leader,
        |it| it.acks = Acks::None,
        |it| it.partitioner = Partitioner::Murmur2,
        |it| it.partitioner = Partitioner::ConsistentRandom,
        |it| it.partitioner = Partitioner::Consistent,
        |it| it.partitioner = Partitioner::Fnv1aRandom,
        |it| it.partitioner = Partitioner::Fnv1a,
        |it| it.partitioner = Partitioner::Random,
    ];
    for change in changes {
        let mut config = KafkaConfig::new(["a:1"]);
        change(&mut config);
        let client = crate::client::publishing(&config, &"c".into());
        client.create::<BaseProducer>().unwrap();
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (text, why) in [
        ("broker = 'a:1'", "broker"),
        ("linger = 5", "linger"),
        ("linger = '5'", "200ms"),
        ("fetch_buffer = 'much'", "8MiB"),
        ("fetch_buffer = -1", "8MiB"),
        ("properties = { a = [1] }", "array"),
        ("acks = 2", "`1` or `0`"),
        ("acks = 'most'", "`1` or `0`"),
        ("acks = true", "`1` or `0`"),
        ("compression = 'zip'", "zstd"),
        ("partitioner = 'best'", "murmur2_random"),
        ("format = 'xml'", "plain"),
        ("group_protocol = 'new'", "consumer"),
        ("sasl_mechanism = 'GSSAPI'", "SCRAM-SHA-512"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(why), "{error} for {text}");
    }
}

#[test]
fn what_can_not_work_is_refused_by_its_key() {
    for (text, key) in [
        ("brokers = [' ']", "brokers"),
        ("session_timeout = '0s'", "session_timeout"),
        ("buffer_events = 0", "buffer_events"),
        ("linger = '16m'\ndelivery_deadline = '1h'", "linger"),
        ("linger = '30s'", "linger"),
        ("member = ''", "member"),
        ("ca_file = 'ca.pem'", "ca_file"),
        ("key_password = 'x'", "key_password"),
        ("tls = true\nkey_password = 'x'", "key_password"),
        ("tls = true\ncertificate_file = 'a.pem'", "certificate_file"),
        ("tls = true\nkey_file = 'a.key'", "key_file"),
        ("tls = true\nca_file = '/no/such/file'", "ca_file"),
        ("tls = true\nca_file = 'Cargo.toml'", "ca_file"),
        ("user = 'u'", "user"),
        ("password = 'p'", "password"),
        ("sasl_mechanism = 'PLAIN'", "sasl_mechanism"),
        ("sasl_mechanism = 'PLAIN'\nuser = 'u'", "sasl_mechanism"),
        ("sasl_mechanism = 'OAUTHBEARER'", "sasl_mechanism"),
        ("sasl_mechanism = 'OAUTHBEARER'\nuser = 'u v'", "user"),
        (
            "sasl_mechanism = 'OAUTHBEARER'\nuser = 'u'\npassword = 'p'",
            "password",
        ),
    ] {
        let text = match text.starts_with("brokers") {
            true => text.to_owned(),
            false => format!("brokers = ['a:1']\n{text}"),
        };
        let (refused, why) = parse(&text).unwrap().validate().unwrap_err();
        assert_eq!(refused, key, "{text}: {why}");
    }
    parse("").unwrap().validate().unwrap_err();
}

/// As the bus makes it, with the place in the file.
#[tokio::test]
async fn a_contradiction_is_told_with_its_line_and_without_secrets() {
    let text = "brokers = ['a:1']\npassword = 'hunter2'\nuser = 'app'\n";
    let config = TransportConfig::new("kafka", "service", text.parse().unwrap());
    let error = KafkaFactory::new().connect(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let told = format!("{error}\n{error:?}");
    assert!(
        told.contains("user") && told.contains("sasl_mechanism"),
        "{told}"
    );
    assert!(told.contains("line 3") || told.contains(":3"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn debug_hides_what_may_be_secret() {
    let mut config = KafkaConfig::new(["a:1"]).property("sasl.password", "hunter2");
    config.password = Some("hunter2".into());
    config.key_password = Some("hunter2".into());
    let text = format!("{config:?}");
    assert!(text.contains("sasl.password"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    let client = format!("{:?}", crate::client::publishing(&config, &"c".into()));
    assert!(!client.contains("hunter2"), "{client}");
}
