//! A config from the environment alone.

use super::environment::Environment;
use super::tree::{Node, Table, Value};
use super::{Config, Origin, Reading};
use crate::{Error, ErrorKind, Result};

const BROKERS: &str = "KAFKA_BROKERS";
const CLIENT_ID: &str = "KAFKA_CLIENT_ID";
const GROUP_ID: &str = "KAFKA_GROUP_ID";
const SSL: &str = "KAFKA_SSL_ENABLED";
const MECHANISM: &str = "KAFKA_SASL_MECHANISM";
const USER: &str = "KAFKA_SASL_USERNAME";
const PASSWORD: &str = "KAFKA_SASL_PASSWORD";
const REDIS_URL: &str = "REDIS_URL";
const REDIS_HOST: &str = "REDIS_HOST";
const REDIS_PORT: &str = "REDIS_PORT";
const REDIS_PASSWORD: &str = "REDIS_PASSWORD";

/// The mechanisms of logins, which variables may spell in any case.
const MECHANISMS: [&str; 4] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"];

impl Config {
    /// A config from the environment, without a file:
    ///
    /// | variable | what it sets |
    /// |---|---|
    /// | `KAFKA_BROKERS` | a transport `kafka`, and its brokers, with commas between them |
    /// | `KAFKA_CLIENT_ID` | the service's name, and what the brokers know it by |
    /// | `KAFKA_GROUP_ID` | the consumer group of subscriptions that name none |
    /// | `KAFKA_SSL_ENABLED` | `true` or `false`: whether connections are encrypted |
    /// | `KAFKA_SASL_MECHANISM` | how to log in: `plain`, `scram-sha-256`, `scram-sha-512` |
    /// | `KAFKA_SASL_USERNAME`, `KAFKA_SASL_PASSWORD` | as whom |
    /// | `REDIS_URL` | a transport `redis`, and where it is |
    /// | `REDIS_HOST`, `REDIS_PORT` | the same where there is no `REDIS_URL`; the port is 6379 |
    /// | `REDIS_PASSWORD` | its password |
    ///
    /// One that is empty counts as unset. Anything else is set, and overridden, by variables
    /// [`POLYBUS__section__key`](crate::config#the-environment); `POLYBUS__profile` chooses a
    /// [profile](crate::config#profiles).
    ///
    /// With one transport every event travels on it, in a topic of its type's name. Routes are
    /// added in code, and with both transports they have to be.
    ///
    /// ```no_run
    /// # async fn example() -> polybus_core::Result<()> {
    /// use polybus_core::config::Config;
    /// use polybus_core::config::RouteConfig;
    ///
    /// let mut config = Config::from_env()?;
    /// config.routes.push(RouteConfig::new("user.*".parse()?, "redis", "user-events"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] naming the variable: for a value that can't be, for one that needs
    /// another, and if no server or no service is named. Values never show.
    pub fn from_env() -> Result<Self> {
        from(&Environment::of_process())
    }

    /// A config from these variables, as [`from_env`](Self::from_env).
    ///
    /// # Errors
    ///
    /// As [`from_env`](Self::from_env).
    pub fn from_variables<K: Into<String>, V: Into<String>>(
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self> {
        from(&Environment::new(variables))
    }
}

fn from(environment: &Environment) -> Result<Config> {
    let mut root = Table::default();
    root.push("service", service(environment)?);
    let mut transports = Table::default();
    if let Some(kafka) = kafka(environment)? {
        transports.push("kafka", kafka);
    }
    if let Some(redis) = redis(environment)? {
        transports.push("redis", redis);
    }
    let names: Vec<String> = transports.keys().map(str::to_owned).collect();
    match &names[..] {
        [] => {
            let what = "the environment names no server";
            return Err(Error::new(ErrorKind::Config, what)
                .with_note(format!("set `{BROKERS}`, `{REDIS_URL}` or `{REDIS_HOST}`")));
        }
        [only] => root.push("routing", everything_to(only)),
        _ => {}
    }
    root.push("transports", table(transports));
    Reading::new(environment, "the environment").finish(table(root))
}

fn service(environment: &Environment) -> Result<Node> {
    let mut service = Table::default();
    let named = environment.overrides("service__name");
    match environment.variable(CLIENT_ID) {
        Some(name) => service.push("name", text(CLIENT_ID, name)),
        None if named => {}
        None => {
            let error = wrong(CLIENT_ID, "is not set, so that the service has no name");
            return Err(error.with_note("set it, or `POLYBUS__service__name`"));
        }
    }
    if let Some(group) = environment.variable(GROUP_ID) {
        service.push("group", text(GROUP_ID, group));
    }
    Ok(table(service))
}

fn kafka(environment: &Environment) -> Result<Option<Node>> {
    let Some(brokers) = environment.variable(BROKERS) else {
        for name in [SSL, MECHANISM, USER, PASSWORD] {
            if environment.variable(name).is_some() {
                return Err(needs(name, BROKERS));
            }
        }
        return Ok(None);
    };
    let brokers: Vec<_> = brokers.split(',').map(str::trim).collect();
    if brokers.iter().any(|broker| broker.is_empty()) {
        let error = wrong(BROKERS, "has an empty entry");
        return Err(error.with_note("write `host:port`, with commas between several"));
    }
    let brokers = brokers.into_iter().map(|it| text(BROKERS, it)).collect();
    let mut section = Table::default();
    section.push("kind", own("kafka"));
    section.push(
        "brokers",
        Node::new(Value::Array(brokers), Origin::variable(BROKERS)),
    );
    if let Some(id) = environment.variable(CLIENT_ID) {
        section.push("client_id", text(CLIENT_ID, id));
    }
    if let Some(ssl) = environment.variable(SSL) {
        let value = match ssl.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" => true,
            "false" | "0" | "no" => false,
            _ => return Err(wrong(SSL, "must be `true` or `false`")),
        };
        let node = Node::new(Value::Boolean(value), Origin::variable(SSL));
        section.push("tls", node);
    }
    login(environment, &mut section)?;
    Ok(Some(table(section)))
}

fn login(environment: &Environment, section: &mut Table) -> Result<()> {
    let Some(mechanism) = environment.variable(MECHANISM) else {
        // A profile, or a variable over it, may say how.
        let elsewhere = environment.profile().is_some()
            || environment.overrides("transports__kafka__sasl_mechanism");
        for (name, key) in [(USER, "user"), (PASSWORD, "password")] {
            match environment.variable(name) {
                Some(value) if elsewhere => section.push(key, text(name, value)),
                Some(_) => return Err(needs(name, MECHANISM)),
                None => {}
            }
        }
        return Ok(());
    };
    let mut known = MECHANISMS.iter();
    let Some(known) = known.find(|known| known.eq_ignore_ascii_case(mechanism)) else {
        let error = wrong(MECHANISM, "is not a mechanism that is known");
        return Err(error.with_note(format!("one of {}", MECHANISMS.join(", "))));
    };
    section.push("sasl_mechanism", text(MECHANISM, known));
    let user = environment.variable(USER);
    let user = user.ok_or_else(|| needs(MECHANISM, USER))?;
    section.push("user", text(USER, user));
    match environment.variable(PASSWORD) {
        Some(password) => section.push("password", text(PASSWORD, password)),
        None if *known == "OAUTHBEARER" => {}
        None => return Err(needs(MECHANISM, PASSWORD)),
    }
    Ok(())
}

fn redis(environment: &Environment) -> Result<Option<Node>> {
    let url = match (
        environment.variable(REDIS_URL),
        environment.variable(REDIS_HOST),
    ) {
        (Some(url), _) => text(REDIS_URL, url),
        (None, Some(host)) => text(
            REDIS_HOST,
            &address(host, environment.variable(REDIS_PORT))?,
        ),
        (None, None) => {
            for name in [REDIS_PORT, REDIS_PASSWORD] {
                if environment.variable(name).is_some() {
                    return Err(needs(name, REDIS_HOST));
                }
            }
            return Ok(None);
        }
    };
    let mut section = Table::default();
    section.push("kind", own("redis-streams"));
    section.push("url", url);
    if let Some(password) = environment.variable(REDIS_PASSWORD) {
        section.push("password", text(REDIS_PASSWORD, password));
    }
    Ok(Some(table(section)))
}

fn address(host: &str, port: Option<&str>) -> Result<String> {
    if host.contains(['/', '@', '?', '#']) || host.contains(char::is_whitespace) {
        let error = wrong(REDIS_HOST, "is not the name of a host");
        return Err(error.with_note(format!("a URL goes into `{REDIS_URL}`")));
    }
    let port = match port.map(|port| port.trim().parse::<u16>()) {
        None => 6379,
        Some(Ok(port)) if port > 0 => port,
        Some(_) => return Err(wrong(REDIS_PORT, "must be a number from 1 to 65535")),
    };
    Ok(match host.contains(':') && !host.starts_with('[') {
        true => format!("redis://[{host}]:{port}"),
        false => format!("redis://{host}:{port}"),
    })
}

/// Where every event goes: to a topic of its type's name.
fn everything_to(transport: &str) -> Node {
    let mut default = Table::default();
    default.push("transport", own(transport));
    default.push("topic", own("{type}"));
    let mut routing = Table::default();
    routing.push("default", table(default));
    table(routing)
}

fn table(table: Table) -> Node {
    Node::new(Value::Table(table), Origin::Code)
}

/// What no variable says.
fn own(text: &str) -> Node {
    Node::new(Value::String(text.to_owned()), Origin::Code)
}

/// What a variable says, which is not shown.
fn text(variable: &str, value: &str) -> Node {
    Node {
        value: Value::String(value.to_owned()),
        origin: Origin::variable(variable),
        environment: Some(value.to_owned()),
    }
}

fn wrong(variable: &str, what: &str) -> Error {
    Origin::variable(variable).error("", what)
}

fn needs(variable: &str, other: &str) -> Error {
    wrong(variable, &format!("needs `{other}`, which is not set"))
}
