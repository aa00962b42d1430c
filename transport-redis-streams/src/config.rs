use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use polybus_core::config::fields;
use polybus_core::transport::TopicSpec;
use polybus_core::{Error, ErrorKind, Result, Text};
use serde::Deserialize;

use crate::writing::{Format, Trim};

/// The longest time that makes sense, and is safe to reckon with.
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a URL that asks for TLS starts with.
pub(crate) const TLS_SCHEME: &str = "rediss://";

/// The settings of a Redis Streams transport: the keys of its section in the config, and the
/// fields for code.
///
/// ```
/// use polybus_redis_streams::RedisConfig;
/// use std::time::Duration;
///
/// let mut config = RedisConfig::new("redis://:secret@127.0.0.1:6379");
/// config.count = 200;
/// config.block = Duration::from_millis(500);
/// assert!(!format!("{config:?}").contains("secret"));
/// ```
///
/// Durations are written as `"200ms"`, `"30s"`, `"5m"` in the config file.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RedisConfig {
    /// Where the server is: `redis://[user][:password@]host[:port][/database]`, or `rediss://` for
    /// TLS. Required, unless there are `sentinels` or `nodes`. The port is 6379 and the database 0 unless
    /// given.
    #[serde(default)]
    pub url: String,
    /// The sentinels that know the server, in place of `url`: each as
    /// `redis://[[user]:password@]host:port`, with the sentinel's own login, or all as `rediss://`:
    /// then they and the server are reached over TLS. They are asked in this order whenever a
    /// connection is made. The server's login stands in `user` and `password`; its database is 0.
    /// Default: none.
    #[serde(default)]
    pub sentinels: Vec<String>,
    /// What the sentinels call the server. Required with `sentinels`. Default: none.
    #[serde(default)]
    pub master: Option<Text>,
    /// Nodes of a Redis Cluster, in place of `url`: each as `redis://host:port`, or all as `rediss://`.
    /// One that answers is enough to find the others. The login, the same for all, stands in `user`
    /// and `password`. Default: none.
    #[serde(default)]
    pub nodes: Vec<String>,
    /// The user of the server's ACL, where the URL names none. Needs `password`. Default: that of
    /// the URL, or the server's user `default`.
    #[serde(default)]
    pub user: Option<Text>,
    /// The password, where the URL has none: it may have any characters here. Never shown.
    /// Default: that of the URL, or none.
    #[serde(default)]
    pub password: Option<Text>,
    /// A PEM file of the authorities from which the server's certificate may come; no others are
    /// accepted then. Needs `rediss://`. Read once, when the transport connects. Default: the
    /// authorities that the operating system trusts.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// A PEM file with the certificate that is shown to the server, and those between it and its
    /// authority. Needs `rediss://` and `key_file`. Read once, when the transport connects.
    /// Default: none is shown.
    #[serde(default)]
    pub certificate_file: Option<PathBuf>,
    /// A PEM file with the private key of `certificate_file`, not encrypted (PKCS#8, PKCS#1 or
    /// SEC1). Default: none.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// How long making a connection may take: name look-up, TCP, login. Also how long a call
    /// that finds the connection lost tries to get a new one. Default: 5 s.
    #[serde(default = "connect_deadline", deserialize_with = "fields::duration")]
    pub connect_deadline: Duration,
    /// How long a publish may take; what has no answer by then is
    /// [`Unknown`](polybus_core::transport::Outcome::Unknown). Default: 30 s.
    #[serde(default = "delivery_deadline", deserialize_with = "fields::duration")]
    pub delivery_deadline: Duration,
    /// How long any other command may take: settling, claiming, managing. Default: 10 s.
    #[serde(default = "operation_deadline", deserialize_with = "fields::duration")]
    pub operation_deadline: Duration,
    /// How long one read waits on the server for new entries before it is asked again. An entry
    /// that comes meanwhile is delivered at once. Default: 2 s.
    #[serde(default = "block", deserialize_with = "fields::duration")]
    pub block: Duration,
    /// How many entries one read takes at most from each stream. Fewer are asked for where
    /// entries are so large that they would not fit into `read_ahead_bytes`. 1 to 100,000.
    /// Default: 500.
    #[serde(default = "count")]
    pub count: usize,
    /// How many deliveries may wait in memory for the application. At the bound the server is
    /// not read any more, so that it may be passed by one read. At least 1. Default: 1,000.
    #[serde(default = "read_ahead")]
    pub read_ahead: usize,
    /// How many bytes of deliveries may wait in memory for the application; works as
    /// `read_ahead` does. A number, or text as `"32MiB"`. At least 1. Default: 32 MiB.
    #[serde(default = "read_ahead_bytes", deserialize_with = "fields::size")]
    pub read_ahead_bytes: usize,
    /// How many entries one member may have in hand: those that wait in memory and those that were
    /// given to the application and are not settled. At the bound the server is not read any more and
    /// nothing is taken over, until something is settled; one page of 100 that is taken over
    /// may pass it, and on a cluster a read of each slot. At least 1. Default: 100,000.
    #[serde(default = "max_pending")]
    pub max_pending: usize,
    /// How often a member looks for entries that dead members left, in walks over all pending
    /// entries of the group. Never rarer than half of
    /// [`takeover_after`](polybus_core::transport::Subscription::takeover_after). Default: 5 s.
    #[serde(default = "claim_interval", deserialize_with = "fields::duration")]
    pub claim_interval: Duration,
    /// How often a subscription with patterns looks for new streams by `SCAN`. Default: never
    /// again after it started.
    #[serde(default, deserialize_with = "fields::optional_duration")]
    pub discovery_interval: Option<Duration>,
    /// After what time in which it received nothing a member that has nothing pending is removed
    /// from the list of its group's members. A living one is in it again with its next event.
    /// Default: 1 h.
    #[serde(
        default = "remove_members_after",
        deserialize_with = "fields::duration"
    )]
    pub remove_members_after: Duration,
    /// How events are written: `"default"`, `"fields"` or `"plain"`, see [`Format`]. All of them are
    /// read, whatever this says. Default: `"default"`.
    #[serde(default)]
    pub format: Format,
    /// What is deleted from a stream whenever something is published to it: `{ max_len = 100000 }`,
    /// `{ min_age = "7d" }` or `{ min_id = "1763712339000-0" }`. Also what nobody has read yet, and
    /// what is pending: see [`Trim`]. Default: nothing.
    #[serde(default)]
    pub trim: Option<Trim>,
    /// The name of this process as a member of its groups, for subscriptions that name none.
    /// Two processes, or two subscriptions of one group, must not have the same. A process that
    /// comes back under its old name gets what it had not settled at once. Default: made up from
    /// the service, the host and the process, and unique.
    #[serde(default)]
    pub member: Option<Text>,
    /// What streams are to be like: `retention` and `max_events` are how each of them is trimmed, in
    /// place of `trim`; of both `max_events` counts. The server keeps no such settings: every
    /// publisher must have them. Set from the config's `[topics.<name>]`. Default: none.
    #[serde(skip)]
    pub topics: Vec<TopicSpec>,
    /// The transport's name, which errors and logs carry. Set from the config's
    /// `[transports.<name>]`. Default: `redis-streams`.
    #[serde(skip, default = "name")]
    pub name: Text,
    /// The service's name, which the server shows in `CLIENT LIST`. Default: `polybus`.
    #[serde(skip, default = "service")]
    pub service: Text,
}

impl RedisConfig {
    /// The defaults, for a server.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            sentinels: Vec::new(),
            master: None,
            nodes: Vec::new(),
            user: None,
            password: None,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            connect_deadline: connect_deadline(),
            delivery_deadline: delivery_deadline(),
            operation_deadline: operation_deadline(),
            block: block(),
            count: count(),
            read_ahead: read_ahead(),
            read_ahead_bytes: read_ahead_bytes(),
            max_pending: max_pending(),
            claim_interval: claim_interval(),
            discovery_interval: None,
            remove_members_after: remove_members_after(),
            format: Format::default(),
            trim: None,
            member: None,
            topics: Vec::new(),
            name: name(),
            service: service(),
        }
    }

    /// The defaults, for the server that sentinels know as `master`.
    pub fn with_sentinels<S: Into<String>>(
        sentinels: impl IntoIterator<Item = S>,
        master: impl Into<Text>,
    ) -> Self {
        let mut config = Self::new("");
        config.sentinels = sentinels.into_iter().map(Into::into).collect();
        config.master = Some(master.into());
        config
    }

    /// The defaults, for a Redis Cluster, of which some nodes are named.
    pub fn with_nodes<S: Into<String>>(nodes: impl IntoIterator<Item = S>) -> Self {
        let mut config = Self::new("");
        config.nodes = nodes.into_iter().map(Into::into).collect();
        config
    }

    /// The first key that can't work, and why.
    pub(crate) fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        let durations = [
            ("connect_deadline", self.connect_deadline),
            ("delivery_deadline", self.delivery_deadline),
            ("operation_deadline", self.operation_deadline),
            ("block", self.block),
            ("claim_interval", self.claim_interval),
            ("remove_members_after", self.remove_members_after),
            (
                "discovery_interval",
                self.discovery_interval.unwrap_or(MAX_DURATION),
            ),
        ];
        for (key, duration) in durations {
            if duration < Duration::from_millis(1) {
                return Err((key, "must be at least 1 ms"));
            }
            if duration > MAX_DURATION {
                return Err((key, "must be at most 365 days"));
            }
        }
        if !(1..=100_000).contains(&self.count) {
            return Err(("count", "must be from 1 to 100,000"));
        }
        for (key, number) in [
            ("read_ahead", self.read_ahead),
            ("read_ahead_bytes", self.read_ahead_bytes),
            ("max_pending", self.max_pending),
        ] {
            if number == 0 {
                return Err((key, "must be at least 1"));
            }
        }
        if self.member.as_ref().is_some_and(Text::is_empty) {
            return Err(("member", "must not be empty"));
        }
        self.validate_place()?;
        self.validate_access()?;
        if let Some(trim) = &self.trim {
            trim.validate().map_err(|why| ("trim", why))?;
        }
        Ok(())
    }

    fn validate_place(&self) -> Result<(), (&'static str, &'static str)> {
        let over_tls = |url: &String| url.starts_with(TLS_SCHEME);
        let mixed = |urls: &[String]| urls.iter().any(over_tls) && !urls.iter().all(over_tls);
        const MIXED: &str = "must be reached over TLS all or none: `rediss://` or `redis://`";
        let by_sentinels = !self.sentinels.is_empty();
        if self.master.is_some() && !by_sentinels {
            return Err(("master", "needs `sentinels`"));
        }
        match (by_sentinels, self.nodes.is_empty(), self.url.is_empty()) {
            (false, true, true) => Err(("url", "is missing; or name `sentinels`, or `nodes`")),
            (false, true, false) => Ok(()),
            (true, _, false) => Err(("sentinels", "and `url` exclude each other")),
            (true, false, true) => Err(("sentinels", "and `nodes` exclude each other")),
            (false, false, false) => Err(("nodes", "and `url` exclude each other")),
            (false, false, true) if mixed(&self.nodes) => Err(("nodes", MIXED)),
            (false, false, true) => Ok(()),
            (true, true, true) if self.master.as_ref().is_none_or(Text::is_empty) => {
                Err(("sentinels", "needs `master`, the name of what they watch"))
            }
            (true, true, true) if mixed(&self.sentinels) => Err(("sentinels", MIXED)),
            (true, true, true) if !self.sentinels.iter().all(|url| has_port(url)) => {
                Err(("sentinels", "must be `redis://host:port` each"))
            }
            (true, true, true) => Ok(()),
        }
    }

    fn validate_access(&self) -> Result<(), (&'static str, &'static str)> {
        if self.user.is_some() && self.password.is_none() {
            return Err(("user", "needs `password`"));
        }
        match (&self.certificate_file, &self.key_file) {
            (Some(_), None) => return Err(("certificate_file", "needs `key_file`")),
            (None, Some(_)) => return Err(("key_file", "needs `certificate_file`")),
            _ => {}
        }
        let files = [
            ("ca_file", &self.ca_file),
            ("certificate_file", &self.certificate_file),
        ];
        for (key, file) in files {
            if file.is_some() && !self.uses_tls() {
                return Err((key, "needs TLS: write `rediss://`"));
            }
        }
        Ok(())
    }

    /// Whether the URL, or that of the sentinels or nodes, asks for TLS.
    pub(crate) fn uses_tls(&self) -> bool {
        let several = self.sentinels.first().or(self.nodes.first());
        let url = several.unwrap_or(&self.url);
        url.starts_with(TLS_SCHEME)
    }

    /// An error about a key. The value is left out: it may be secret.
    pub(crate) fn wrong(&self, key: &str, why: &str) -> Error {
        Error::new(ErrorKind::Config, format!("`{key}` {why}"))
            .with_transport(self.name.clone())
            .with_operation("connect")
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |urls: &[String]| -> Vec<String> {
            urls.iter().map(|url| without_login(url)).collect()
        };
        f.debug_struct("RedisConfig")
            .field("url", &without_login(&self.url))
            .field("sentinels", &shown(&self.sentinels))
            .field("master", &self.master)
            .field("nodes", &shown(&self.nodes))
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "<hidden>"))
            .field("ca_file", &self.ca_file)
            .field("certificate_file", &self.certificate_file)
            .field("key_file", &self.key_file)
            .field("connect_deadline", &self.connect_deadline)
            .field("delivery_deadline", &self.delivery_deadline)
            .field("operation_deadline", &self.operation_deadline)
            .field("block", &self.block)
            .field("count", &self.count)
            .field("read_ahead", &self.read_ahead)
            .field("read_ahead_bytes", &self.read_ahead_bytes)
            .field("max_pending", &self.max_pending)
            .field("claim_interval", &self.claim_interval)
            .field("discovery_interval", &self.discovery_interval)
            .field("remove_members_after", &self.remove_members_after)
            .field("format", &self.format)
            .field("trim", &self.trim)
            .field("member", &self.member)
            .field("name", &self.name)
            .field("service", &self.service)
            .finish()
    }
}

/// A URL without user, password and parameters. What is no URL is not shown at all, because
/// nobody knows where its secrets stand.
fn without_login(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return "<not a URL>".to_owned();
    };
    // A password may hold a slash or a question mark: the last `@` ends the login.
    let (login, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => ("<hidden>@", rest),
        None => ("", rest),
    };
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    format!("{scheme}://{login}{}", &rest[..end])
}

/// Whether a URL says its port: that of a sentinel is not the one that a server has by default.
fn has_port(url: &str) -> bool {
    let url = without_login(url);
    let place = url.split_once("://").map_or("", |(_, rest)| rest);
    let authority = place.split('/').next().unwrap_or_default();
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    port.is_some_and(|port| port.parse::<u16>().is_ok())
}

fn connect_deadline() -> Duration {
    Duration::from_secs(5)
}

fn delivery_deadline() -> Duration {
    Duration::from_secs(30)
}

fn operation_deadline() -> Duration {
    Duration::from_secs(10)
}

fn block() -> Duration {
    Duration::from_secs(2)
}

/// By measurement: a tenth of it halves the throughput, and more gains nothing.
fn count() -> usize {
    500
}

fn read_ahead() -> usize {
    1_000
}

fn read_ahead_bytes() -> usize {
    32 * 1024 * 1024
}

/// More than handlers work on at once, and little enough memory.
fn max_pending() -> usize {
    100_000
}

fn claim_interval() -> Duration {
    Duration::from_secs(5)
}

fn remove_members_after() -> Duration {
    Duration::from_secs(3600)
}

fn name() -> Text {
    Text::new_static(crate::KIND)
}

fn service() -> Text {
    Text::new_static("polybus")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_login() {
        for (url, shown) in [
            ("redis://127.0.0.1:6379/3", "redis://127.0.0.1:6379/3"),
            ("redis://:secret@host", "redis://<hidden>@host"),
            (
                "redis://user:se/c?ret@host:1/2",
                "redis://<hidden>@host:1/2",
            ),
            ("redis://host?password=secret", "redis://host"),
            ("unix:/a?pass=secret", "<not a URL>"),
        ] {
            let mut config = RedisConfig::new(url);
            config.password = Some("secret".into());
            let text = format!("{config:?}");
            assert!(text.contains(&format!("url: {shown:?}")), "{text}");
            assert!(
                !text.contains("secret") && !text.contains("c?ret"),
                "{text}"
            );
        }
    }

    #[test]
    fn sentinels_are_shown_without_their_logins() {
        let config = RedisConfig::with_sentinels(["rediss://:secret@a:1", "rediss://b:2"], "bus");
        config.validate().unwrap();
        assert!(config.uses_tls());
        let text = format!("{config:?}");
        assert!(text.contains("b:2") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn nodes_are_shown_without_a_login_that_does_not_belong_there() {
        let config = RedisConfig::with_nodes(["rediss://:secret@a:1", "rediss://b"]);
        config.validate().unwrap();
        assert!(config.uses_tls());
        let text = format!("{config:?}");
        assert!(text.contains("//b") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn what_can_not_work_is_refused_by_its_key() {
        let changes: [(&str, Change); 21] = [
            ("delivery_deadline", |config| {
                config.delivery_deadline = Duration::MAX;
            }),
            ("block", |config| config.block = Duration::ZERO),
            ("connect_deadline", |config| {
                config.connect_deadline = Duration::from_micros(1);
            }),
            ("discovery_interval", |config| {
                config.discovery_interval = Some(Duration::ZERO);
            }),
            ("count", |config| config.count = 0),
            ("count", |config| config.count = 100_001),
            ("read_ahead", |config| config.read_ahead = 0),
            ("max_pending", |config| config.max_pending = 0),
            ("member", |config| config.member = Some(Text::default())),
            ("url", |config| config.url = String::new()),
            ("master", |config| config.master = Some("bus".into())),
            ("sentinels", |config| {
                config.sentinels = vec!["redis://a:1".to_owned()];
            }),
            ("sentinels", |config| {
                *config = RedisConfig::with_sentinels(["redis://a:1"], "");
            }),
            ("sentinels", |config| {
                *config = RedisConfig::with_sentinels(["redis://a:1", "rediss://b:1"], "bus");
            }),
            ("sentinels", |config| {
                *config = RedisConfig::with_sentinels(["redis://:1@a"], "bus");
            }),
            ("ca_file", |config| {
                *config = RedisConfig::with_sentinels(["redis://a:1"], "bus");
                config.ca_file = Some("ca.pem".into());
            }),
            ("user", |config| config.user = Some("app".into())),
            ("ca_file", |config| config.ca_file = Some("ca.pem".into())),
            ("certificate_file", |config| {
                config.certificate_file = Some("client.pem".into());
            }),
            ("key_file", |config| config.key_file = Some("key".into())),
            ("trim", |config| config.trim = Some(Trim::MaxLen(0))),
        ];
        check_refused(&changes);
    }

    #[test]
    fn nodes_exclude_other_places() {
        check_refused(&[
            ("nodes", |config| {
                config.nodes = vec!["redis://a".to_owned()];
            }),
            ("nodes", |config| {
                *config = RedisConfig::with_nodes(["redis://a:1", "rediss://b:1"]);
            }),
            ("sentinels", |config| {
                *config = RedisConfig::with_sentinels(["redis://a:1"], "bus");
                config.nodes = vec!["redis://a:1".to_owned()];
            }),
            ("master", |config| {
                *config = RedisConfig::with_nodes(["redis://a:1"]);
                config.master = Some("bus".into());
            }),
        ]);
    }

    type Change = fn(&mut RedisConfig);

    fn check_refused(changes: &[(&str, Change)]) {
        for (key, change) in changes {
            let mut config = RedisConfig::new("redis://localhost");
            config.validate().unwrap();
            change(&mut config);
            assert_eq!(config.validate().unwrap_err().0, *key);
        }
    }
}
