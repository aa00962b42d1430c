//! Profiles, and configs from the environment alone.

use std::time::Duration;

use super::super::*;
use super::{BRIEF, error, parse};
use crate::topic::Limit;

const PROFILES: &str = r#"
profile = "${STAGE:-development}"
[service]
name = "accounts"
[transports.main]
kind = "redis-streams"
url = "redis://localhost"
[[routes]]
pattern = "user.*"
transport = "main"
topic = "users"
[profiles.development]
transports.screen.kind = "console"
[[profiles.development.routes]]
pattern = "debug.*"
transport = "screen"
topic = "debug"
[profiles.production]
transports.main = { kind = "kafka", brokers = ["a:1"], user = "u", password = "top-secret" }
service.shutdown_deadline = "5s"
subscriptions.mails.concurrency = 7
[[profiles.production.routes]]
pattern = "user.*"
transport = "main"
topic = "production-users"
[profiles.staging]
topic_defaults.partitions = 2
"#;

fn in_profile(profile: &str) -> Config {
    parse(PROFILES, &[("POLYBUS__profile", profile)]).unwrap()
}

/// The keys and places of a transport's settings.
fn settings(config: &Config, name: &str) -> String {
    format!("{:?}", config.transports[name].section)
}

#[test]
fn the_file_a_variable_in_it_and_a_variable_over_it_choose_the_profile() {
    let profile = |variables: &[(&str, &str)]| parse(PROFILES, variables).unwrap().profile;
    assert_eq!(profile(&[]).unwrap(), "development");
    assert_eq!(profile(&[("STAGE", "staging")]).unwrap(), "staging");
    let over = [("STAGE", "staging"), ("POLYBUS__PROFILE", "production")];
    assert_eq!(profile(&over).unwrap(), "production");
    assert_eq!(parse(BRIEF, &[]).unwrap().profile, None);
}

#[test]
fn routes_and_transports_of_a_profile_are_in_it_alone() {
    let development = in_profile("development");
    assert_eq!(development.routes.len(), 2);
    assert_eq!(development.routes[1].pattern.as_str(), "debug.*");
    assert!(development.transports.contains_key("screen"));
    let staging = in_profile("staging");
    assert_eq!(staging.routes.len(), 1);
    assert!(!staging.transports.contains_key("screen"));
}

#[test]
fn a_profile_stands_over_the_file_and_a_variable_over_both() {
    let production = in_profile("production");
    assert_eq!(production.service.name, "accounts");
    assert_eq!(production.service.shutdown_deadline, Duration::from_secs(5));
    assert_eq!(production.subscription("mails").concurrency, 7);
    assert_eq!(production.routes.len(), 1, "the same pattern is replaced");
    assert_eq!(production.routes[0].topic, "production-users");
    let variables = [
        ("POLYBUS__profile", "production"),
        ("POLYBUS__service__shutdown_deadline", "6s"),
    ];
    let over = parse(PROFILES, &variables).unwrap();
    assert_eq!(over.service.shutdown_deadline, Duration::from_secs(6));
}

#[test]
fn a_transport_of_another_kind_has_nothing_of_the_one_it_replaces() {
    let production = in_profile("production");
    assert_eq!(production.transports["main"].kind, "kafka");
    assert!(!settings(&production, "main").contains("url"));
}

#[test]
fn production_brings_what_production_needs_where_the_config_says_nothing() {
    let production = in_profile("production");
    let main = settings(&production, "main");
    for key in ["acks", "tls", "sasl_mechanism"] {
        assert!(main.contains(key), "{key}: {main}");
    }
    let defaults = &production.topic_defaults;
    assert_eq!(
        (defaults.partitions, defaults.replication),
        (Some(12), Some(3))
    );
    let month = Duration::from_secs(30 * 86_400);
    assert_eq!(defaults.settings.retention, Some(Limit::At(month)));

    let own = [
        ("POLYBUS__profile", "production"),
        ("POLYBUS__transports__main__tls", "false"),
        ("POLYBUS__topic_defaults__replication", "2"),
    ];
    let own = parse(PROFILES, &own).unwrap();
    assert!(!settings(&own, "main").contains("sasl_mechanism"));
    assert_eq!(own.topic_defaults.replication, Some(2));

    let development = in_profile("development").topic_defaults;
    assert_eq!(
        (development.partitions, development.replication),
        (Some(12), Some(1))
    );
    assert_eq!(in_profile("staging").topic_defaults.partitions, Some(2));
}

#[test]
fn what_is_wrong_in_a_profile_is_told_with_its_line() {
    let wrong = PROFILES.replace("concurrency = 7", "concurrency = 'x'");
    let text = error(&wrong, &[("STAGE", "production")]);
    assert!(
        text.starts_with("polybus.toml:21: subscriptions.mails.concurrency"),
        "{text}"
    );
    // Wherever it is read.
    assert!(error(&wrong, &[]).starts_with(&text), "{text}");
}

#[test]
fn a_profile_that_there_is_not_is_an_error_with_the_nearest() {
    assert_eq!(
        error(PROFILES, &[("POLYBUS__profile", "prodution")]),
        "environment variable `POLYBUS__profile`: profile: there is no profile `prodution`\
         \n  did you mean `production`?"
    );
    let text = error(PROFILES, &[("STAGE", "elsewhere")]);
    assert!(text.contains("polybus.toml:2: profile"), "{text}");
    assert!(text.contains("[profiles.elsewhere]"), "{text}");
    let nested = "[profiles.a.profiles.b]";
    assert!(error(nested, &[]).contains("no profiles of its own"));
    assert!(error("profiles.a = 5", &[]).contains("must be a table"));
    assert!(error("profile = 5", &[]).contains("the name of a profile"));
}

#[test]
fn topics_are_declared_with_what_they_keep() {
    let text = "service.name = 's'\n[topics.users]\nretention = false\nretention_bytes = '1GiB'\n\
        max_events = 5\ncleanup = 'compact_delete'\nmax_message_size = '1MiB'\n\
        properties = { 'min.insync.replicas' = 2 }";
    let config = parse(text, &[]).unwrap();
    let settings = &config.topics["users"].spec.settings;
    assert_eq!(settings.retention, Some(Limit::Unlimited));
    assert_eq!(settings.retention_bytes, Some(Limit::At(1 << 30)));
    assert_eq!(settings.max_events, Some(Limit::At(5)));
    assert_eq!(settings.properties["min.insync.replicas"], "2");

    for (line, part) in [
        ("retention = '0s'", "at least 1 ms"),
        ("retention_bytes = 0", "a number of bytes"),
        ("partitions = 0", "at least 1"),
        ("cleanup = 'shred'", "compact"),
        ("retenton = '1d'", "did you mean `retention`?"),
        (
            "properties = { 'retention.ms' = 5 }",
            "has a key of its own: `retention`",
        ),
    ] {
        let text = error(&format!("service.name = 's'\n[topics.users]\n{line}"), &[]);
        assert!(text.starts_with("polybus.toml:3: topics.users"), "{text}");
        assert!(text.contains(part), "{part}: {text}");
    }
}

fn from(variables: &[(&str, &str)]) -> Result<Config> {
    Config::from_variables(variables.iter().copied())
}

#[track_caller]
fn from_error(variables: &[(&str, &str)]) -> String {
    let error = from(variables).expect_err("the environment is wrong");
    assert_eq!(error.kind(), crate::ErrorKind::Config, "{error}");
    error.to_string()
}

const KAFKA: [(&str, &str); 2] = [("KAFKA_BROKERS", "a:1, b:2"), ("KAFKA_CLIENT_ID", "deals")];

#[test]
fn the_environment_alone_makes_a_config() {
    let config = from(&[&KAFKA[..], &[("KAFKA_GROUP_ID", "watch")]].concat()).unwrap();
    assert_eq!(config.service.name, "deals");
    assert_eq!(
        config.service.group_of(&config.subscription("any")),
        "watch"
    );
    let default = config.routing.default.as_ref().unwrap();
    assert_eq!(
        (default.transport.as_str(), default.topic.as_str()),
        ("kafka", "{type}")
    );

    let redis = [("REDIS_HOST", "cache"), ("POLYBUS__service__name", "s")];
    assert_eq!(
        from(&redis).unwrap().transports["redis"].kind,
        "redis-streams"
    );
    let both = from(&[&KAFKA[..], &redis].concat()).unwrap();
    assert_eq!(both.transports.len(), 2);
    assert!(both.routing.default.is_none());
}

#[test]
fn a_wrong_variable_is_an_error_that_names_it_and_shows_no_value() {
    for (variables, name, part) in [
        (
            &[("KAFKA_BROKERS", "a:1,,b:2")][..],
            "KAFKA_BROKERS",
            "an empty entry",
        ),
        (
            &[("KAFKA_SSL_ENABLED", "maybe")],
            "KAFKA_SSL_ENABLED",
            "`true` or `false`",
        ),
        (
            &[("KAFKA_SASL_MECHANISM", "top-secret")],
            "KAFKA_SASL_MECHANISM",
            "SCRAM-SHA-512",
        ),
        (
            &[("KAFKA_SASL_MECHANISM", "plain")],
            "KAFKA_SASL_MECHANISM",
            "KAFKA_SASL_USERNAME",
        ),
        (
            &[("KAFKA_SASL_PASSWORD", "top-secret")],
            "KAFKA_SASL_PASSWORD",
            "KAFKA_SASL_MECHANISM",
        ),
        (
            &[("REDIS_HOST", "cache"), ("REDIS_PORT", "top-secret")],
            "REDIS_PORT",
            "1 to 65535",
        ),
        (
            &[("REDIS_HOST", "u:top-secret@h")],
            "REDIS_HOST",
            "REDIS_URL",
        ),
        (
            &[("REDIS_PASSWORD", "top-secret")],
            "REDIS_PASSWORD",
            "REDIS_HOST",
        ),
    ] {
        // What comes later stands in for what is before it.
        let text = from_error(&[&KAFKA[..], variables].concat());
        let start = format!("environment variable `{name}`: ");
        assert!(text.starts_with(&start), "{name}: {text}");
        assert!(text.contains(part), "{part}: {text}");
        assert!(!text.contains("top-secret"), "{text}");
    }
    let text = from_error(&[("KAFKA_CLIENT_ID", "s"), ("KAFKA_BROKERS", "")]);
    assert!(text.contains("names no server"), "{text}");
    assert!(from_error(&KAFKA[..1]).contains("KAFKA_CLIENT_ID"));
    let alone = [("KAFKA_CLIENT_ID", "s"), ("KAFKA_SSL_ENABLED", "true")];
    assert!(from_error(&alone).contains("needs `KAFKA_BROKERS`"));
}

#[test]
fn secrets_of_the_environment_do_not_show() {
    let config = from(
        &[
            &KAFKA[..],
            &[
                ("KAFKA_SASL_MECHANISM", "scram-sha-512"),
                ("KAFKA_SASL_USERNAME", "app"),
                ("KAFKA_SASL_PASSWORD", "top-secret"),
                ("REDIS_URL", "redis://:top-secret@cache"),
            ],
        ]
        .concat(),
    )
    .unwrap();
    assert!(!format!("{config:?}").contains("top-secret"));
    assert!(settings(&config, "kafka").contains("password"));
}

#[test]
fn a_profile_holds_for_the_environment_too() {
    let variables = [
        ("POLYBUS__profile", "production"),
        ("KAFKA_SASL_USERNAME", "app"),
        ("KAFKA_SASL_PASSWORD", "top-secret"),
    ];
    let config = from(&[&KAFKA[..], &variables].concat()).unwrap();
    assert_eq!(config.profile.as_deref(), Some("production"));
    assert!(settings(&config, "kafka").contains("sasl_mechanism"));
    assert_eq!(config.topic_defaults.replication, Some(3));
}

/// What is wrong in `[profiles.production]`, read in another profile.
fn wrong_elsewhere(production: &str, variables: &[(&str, &str)]) -> Option<crate::Error> {
    let text = format!("{PROFILES}\n[profiles.other]\n{production}\n");
    parse(&text, variables).err()
}

#[test]
fn what_is_wrong_in_a_profile_that_is_not_chosen_is_refused_with_its_place() {
    for (other, parts) in [
        (
            "subscriptions.mails.concurency = 7",
            [":30", "subscriptions.mails.concurency", "concurrency"],
        ),
        (
            "service.shutdown_deadline = 'soon'",
            [":30", "service.shutdown_deadline", "soon"],
        ),
        (
            "routes = [{ pattern = 'a.#', transport = 't', topic = 't' }]",
            [":30", "routes[1].pattern", "a.#"],
        ),
        (
            "routes = [{ pattern = 'a.b', transport = 't' }]",
            [":30", "routes[1].topic", "missing"],
        ),
        (
            "transports.extra = {}",
            [":30", "transports.extra.kind", "missing"],
        ),
        (
            "topic_defaults.partitions = '${'",
            [":30", "partitions", "`}`"],
        ),
    ] {
        let error = wrong_elsewhere(other, &[]).unwrap();
        assert_eq!(error.kind(), crate::ErrorKind::Config);
        let text = error.to_string();
        for part in parts {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(
            text.contains("the profile `other`, which is not chosen"),
            "{text}"
        );
    }
}

#[test]
fn what_the_variables_of_another_place_would_say_is_not_missed_here() {
    for other in [
        "transports.main = { kind = 'kafka', password = '${KAFKA_PASSWORD}' }",
        "service.shutdown_deadline = '${DEADLINE}'",
        "routes = [{ pattern = 'a.b', transport = 't', topic = '${TOPIC}' }]",
        "topic_defaults.partitions = '${PARTITIONS}'",
    ] {
        let error = wrong_elsewhere(other, &[]);
        assert!(error.is_none(), "{other}: {error:?}");
    }
    let variables = [("POLYBUS__transports__extra__kind", "memory")];
    let error = wrong_elsewhere("transports.extra = {}", &variables);
    assert!(error.is_none(), "{error:?}");
    let variables = [("PARTITIONS", "many")];
    let error = wrong_elsewhere("topic_defaults.partitions = '${PARTITIONS}'", &variables);
    assert!(
        error
            .unwrap()
            .to_string()
            .contains("topic_defaults.partitions")
    );
}
