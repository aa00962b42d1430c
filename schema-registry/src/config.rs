use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;
use polybus_core::config::{Section, fields};
use polybus_core::registry::SubjectName;
use polybus_core::{Error, ErrorKind, Result, Text};
use serde::Deserialize;

/// Settings of a registry: `[schema_registry]`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SchemaRegistryConfig {
    /// Where the registry is: `http://host[:port][/path]`, or `https://` for TLS. No login stands in it.
    pub url: Text,
    /// The user of basic authentication. Needs `password`. Default: none.
    #[serde(default)]
    pub user: Option<Text>,
    /// The password. Never shown. Default: none.
    #[serde(default)]
    pub password: Option<Text>,
    /// A PEM file with the authorities whose certificates are accepted. Default: those of the system.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// How long one call may take. Default: 5 s.
    #[serde(
        default = "SchemaRegistryConfig::default_timeout",
        deserialize_with = "fields::duration"
    )]
    pub timeout: Duration,
    /// What schemas are called. Default: `topic`.
    #[serde(default)]
    pub subject: SubjectName,
    /// Whether schemas that are not there are registered. Default: `true`.
    #[serde(default = "SchemaRegistryConfig::default_register")]
    pub register: bool,
}

impl SchemaRegistryConfig {
    /// The defaults for a registry at a URL.
    pub fn new(url: impl Into<Text>) -> Self {
        Self {
            url: url.into(),
            user: None,
            password: None,
            ca_file: None,
            timeout: Self::default_timeout(),
            subject: SubjectName::default(),
            register: Self::default_register(),
        }
    }

    /// Reads and checks a section of a config.
    pub(crate) fn from_section(section: &Section) -> Result<Self> {
        let config: Self = section.parse()?;
        match config.fault() {
            Some((key, what)) => Err(section.invalid(key, what)),
            None => Ok(config),
        }
    }

    /// Checks settings that were made in code.
    pub(crate) fn check(&self) -> Result<()> {
        self.fault().map_or(Ok(()), |(key, what)| {
            let what = format!("schema_registry.{key}: {what}");
            Err(Error::new(ErrorKind::Config, what))
        })
    }

    /// What is wrong, and with which key.
    fn fault(&self) -> Option<(&'static str, &'static str)> {
        let uri = self.url.parse::<Uri>().ok();
        let scheme = uri.as_ref().and_then(Uri::scheme_str);
        let authority = uri.as_ref().and_then(Uri::authority);
        match (scheme, authority) {
            (Some("http" | "https"), Some(authority)) if authority.as_str().contains('@') => {
                return Some(("url", "holds a login: set `user` and `password`"));
            }
            (Some("http" | "https"), Some(_)) => {}
            _ => return Some(("url", "must be a URL, as `https://registry:8081`")),
        }
        if uri.is_some_and(|uri| uri.query().is_some()) {
            return Some(("url", "has no parameters"));
        }
        if self.user.is_some() != self.password.is_some() {
            return Some(("user", "needs `password`, and that needs it"));
        }
        if self.user.as_ref().is_some_and(|user| user.contains(':')) {
            return Some(("user", "can't hold a colon"));
        }
        if self.timeout.is_zero() {
            return Some(("timeout", "must be longer than nothing"));
        }
        None
    }

    fn default_timeout() -> Duration {
        Duration::from_secs(5)
    }

    fn default_register() -> bool {
        true
    }
}

impl fmt::Debug for SchemaRegistryConfig {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchemaRegistryConfig")
            .field("url", &self.url)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "<hidden>"))
            .field("ca_file", &self.ca_file)
            .field("timeout", &self.timeout)
            .field("subject", &self.subject)
            .field("register", &self.register)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SchemaRegistryConfig> {
        SchemaRegistryConfig::from_section(&text.parse()?)
    }

    #[test]
    fn a_url_is_enough() {
        let config = parse("url = 'http://localhost:8081'").unwrap();
        assert_eq!(config.timeout, Duration::from_secs(5));
        assert_eq!(config.subject, SubjectName::Topic);
        assert!(config.register);
    }

    #[test]
    fn what_is_wrong_is_named_and_no_password_shown() {
        for (text, key) in [
            ("url = 'localhost'", "url"),
            ("url = 'ftp://localhost'", "url"),
            ("url = 'http://a:secret@localhost'", "url"),
            ("url = 'http://localhost?a=b'", "url"),
            ("url = 'http://h'\nuser = 'a'", "user"),
            ("url = 'http://h'\npassword = 'secret'", "user"),
            (
                "url = 'http://h'\nuser = 'a:b'\npassword = 'secret'",
                "user",
            ),
            ("url = 'http://h'\ntimeout = '0s'", "timeout"),
            ("url = 'http://h'\nsubject = 'secret'", "subject"),
            ("urll = 'http://h'", "url"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            let text = format!("{error:?}");
            assert!(text.contains(key) && !text.contains("secret"), "{text}");
        }
        let config = parse("url = 'http://h'\nuser = 'a'\npassword = 'secret'").unwrap();
        assert!(!format!("{config:?}").contains("secret"));
    }
}
