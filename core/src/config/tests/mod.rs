mod environment;
mod errors;
mod profiles;
mod sections;
mod settings;

use super::Config;
use crate::{ErrorKind, Result};

/// The config of the brief, as a user writes it.
const BRIEF: &str = r#"[service]
name = "deal-monitor"            # the CloudEvents source and the default group

[transports.redis]
kind = "redis-streams"
url  = "${REDIS_URL:-redis://127.0.0.1:6379}"

[transports.kafka]
kind    = "kafka"
brokers = ["127.0.0.1:9092"]

[[routes]]
pattern   = "user.*"
transport = "redis"
topic     = "user-events"

[[routes]]
pattern   = "deal.*"
transport = "kafka"
topic     = "filops.deals.status"

[subscriptions.deal-watch]       # settings of a subscription made in code under this name
group       = "deal-watch"       # default: the service's name
concurrency = 64
ordering    = "key"
retry       = { max_attempts = 5, base = "200ms", max = "30s" }
dead_letter = "{topic}.dlq"
"#;

fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Config> {
    Config::parse_with(text, "polybus.toml", variables.iter().copied())
}

/// The error of a config, as a user reads it.
#[track_caller]
fn error(text: &str, variables: &[(&str, &str)]) -> String {
    let error = parse(text, variables).expect_err("the config is wrong");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    error.to_string()
}
