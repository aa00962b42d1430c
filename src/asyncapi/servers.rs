//! Servers, and how to log in to them.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use crate::config::{Config, TransportSection};
use crate::{Result, Text};

/// What a document says of the servers of a config. No secret is read.
pub(super) struct Servers {
    pub(super) servers: Map<String, Value>,
    pub(super) security: Map<String, Value>,
    /// The ids of the servers of each transport.
    ids: Vec<(Text, Vec<String>)>,
    /// The format that a transport writes in, where its section says it.
    formats: Vec<(Text, String)>,
}

/// Where a Kafka is, and what it asks for.
#[derive(Deserialize)]
struct Kafka {
    #[serde(default)]
    brokers: Vec<String>,
    #[serde(default)]
    tls: bool,
    sasl_mechanism: Option<String>,
    format: Option<String>,
    certificate_file: Option<IgnoredAny>,
}

/// Where a Redis is, and what it asks for.
#[derive(Deserialize)]
struct Redis {
    #[serde(default)]
    url: String,
    #[serde(default)]
    sentinels: Vec<String>,
    #[serde(default)]
    nodes: Vec<String>,
    password: Option<IgnoredAny>,
    certificate_file: Option<IgnoredAny>,
    format: Option<String>,
}

/// One transport in the words of a document.
struct Place {
    protocol: String,
    hosts: Vec<String>,
    pathname: Option<String>,
    description: Option<&'static str>,
    /// Each is enough.
    security: Vec<(&'static str, Value)>,
    format: Option<String>,
}

impl Servers {
    pub(super) fn of(config: &Config) -> Result<Self> {
        let mut own = Self {
            servers: Map::new(),
            security: Map::new(),
            ids: Vec::new(),
            formats: Vec::new(),
        };
        for (name, section) in &config.transports {
            let place = place(section)?;
            own.add(name, &place);
        }
        Ok(own)
    }

    /// References to the servers of a transport.
    pub(super) fn of_transport(&self, transport: &str) -> Vec<Value> {
        let ids = self.ids.iter().find(|(name, _)| name == transport);
        let ids = ids.map_or(&[][..], |(_, ids)| ids);
        ids.iter()
            .map(|id| json!({ "$ref": format!("#/servers/{id}") }))
            .collect()
    }

    /// The format that a transport writes in, if its section says it.
    pub(super) fn format(&self, transport: &str) -> Option<&str> {
        let mut formats = self.formats.iter();
        let format = formats.find(|(name, _)| name == transport);
        format.map(|(_, format)| format.as_str())
    }

    fn add(&mut self, name: &Text, place: &Place) {
        let mut security = Vec::new();
        for (kind, scheme) in &place.security {
            let id = id(&format!("{name}-{kind}"));
            security.push(json!({ "$ref": format!("#/components/securitySchemes/{id}") }));
            self.security.insert(id, scheme.clone());
        }
        let mut ids = Vec::new();
        for (index, host) in place.hosts.iter().enumerate() {
            let id = match place.hosts.len() {
                1 => id(name),
                _ => id(&format!("{name}-{}", index + 1)),
            };
            let mut server = Map::new();
            server.insert("host".to_owned(), host.as_str().into());
            server.insert("protocol".to_owned(), place.protocol.as_str().into());
            if let Some(pathname) = &place.pathname {
                server.insert("pathname".to_owned(), pathname.as_str().into());
            }
            if let Some(description) = place.description {
                server.insert("description".to_owned(), description.into());
            }
            if !security.is_empty() {
                server.insert("security".to_owned(), security.clone().into());
            }
            self.servers.insert(id.clone(), server.into());
            ids.push(id);
        }
        self.ids.push((name.clone(), ids));
        if let Some(format) = &place.format {
            self.formats.push((name.clone(), format.clone()));
        }
    }
}

/// An id as documents allow them: letters, digits, `-`, `_` and `.`.
pub(super) fn id(text: &str) -> String {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.chars()
        .map(|c| if legal(c) { c } else { '_' })
        .collect()
}

fn place(section: &TransportSection) -> Result<Place> {
    match section.kind.as_str() {
        "kafka" => Ok(kafka(section.section.parse()?)),
        "redis-streams" => Ok(redis(&section.section.parse()?)),
        kind => Ok(Place {
            protocol: kind.to_owned(),
            hosts: vec!["localhost".to_owned()],
            pathname: None,
            description: Some("A transport within the program, or of its own kind."),
            security: Vec::new(),
            format: None,
        }),
    }
}

fn kafka(settings: Kafka) -> Place {
    let mut security = Vec::new();
    if let Some(mechanism) = &settings.sasl_mechanism {
        let scheme = match mechanism.as_str() {
            "PLAIN" => json!({ "type": "plain" }),
            "SCRAM-SHA-256" => json!({ "type": "scramSha256" }),
            "SCRAM-SHA-512" => json!({ "type": "scramSha512" }),
            // The client makes its tokens itself, so there is no flow that would get one.
            "OAUTHBEARER" => json!({
                "type": "oauth2",
                "flows": {},
                "description": "SASL OAUTHBEARER, with unsigned tokens that clients make themselves.",
            }),
            _ => Value::Null,
        };
        if !scheme.is_null() {
            security.push(("login", scheme));
        }
    }
    if settings.certificate_file.is_some() {
        security.push(("certificate", json!({ "type": "X509" })));
    }
    let protocol = if settings.tls {
        "kafka-secure"
    } else {
        "kafka"
    };
    Place {
        protocol: protocol.to_owned(),
        hosts: settings.brokers,
        pathname: None,
        description: None,
        security,
        format: settings.format,
    }
}

fn redis(settings: &Redis) -> Place {
    let several = [&settings.sentinels, &settings.nodes];
    let urls: Vec<&str> = match several.into_iter().find(|urls| !urls.is_empty()) {
        Some(urls) => urls.iter().map(String::as_str).collect(),
        None => vec![settings.url.as_str()],
    };
    let secure = urls.iter().any(|url| url.starts_with("rediss:"));
    let (hosts, logins): (Vec<_>, Vec<_>) = urls.iter().map(|url| host(url)).unzip();
    let database = match &urls[..] {
        [url] => url
            .rsplit_once("://")
            .and_then(|(_, rest)| rest.split_once('/')),
        _ => None,
    };
    let mut security = Vec::new();
    if settings.password.is_some() || logins.contains(&true) {
        security.push(("login", json!({ "type": "userPassword" })));
    }
    if settings.certificate_file.is_some() {
        security.push(("certificate", json!({ "type": "X509" })));
    }
    Place {
        protocol: if secure { "rediss" } else { "redis" }.to_owned(),
        hosts,
        pathname: database
            .filter(|(_, database)| !database.is_empty())
            .map(|(_, database)| format!("/{database}")),
        description: (!settings.sentinels.is_empty())
            .then_some("A sentinel, which knows the server."),
        security,
        format: settings.format.clone(),
    }
}

/// The host and port of a URL, and whether a login stands before them, which is left out.
fn host(url: &str) -> (String, bool) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    // A password may have any sign but this one.
    let (login, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => (true, rest),
        None => (false, rest),
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    (rest[..end].to_owned(), login)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_left_out_of_hosts() {
        for (url, expected) in [
            ("redis://127.0.0.1:6379", ("127.0.0.1:6379", false)),
            ("rediss://app:p/w@cache:1/2", ("cache:1", true)),
            ("redis://:p@ss@cache/2?x=1", ("cache", true)),
            ("redis://[::1]:6379/", ("[::1]:6379", false)),
        ] {
            let (host, login) = host(url);
            assert_eq!((host.as_str(), login), expected, "{url}");
        }
    }
}
