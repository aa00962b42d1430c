//! Who the brokers are and who this client is: TLS and SASL, and what their refusals mean.

use std::fmt;
use std::path::{Path, PathBuf};

use polybus_core::{Effect, Error, ErrorKind, Text};
use rdkafka::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use serde::Deserialize;

use crate::config::KafkaConfig;
use crate::error::Origin;
use crate::properties;

/// The property by which the client makes tokens without a signature.
pub(crate) const UNSIGNED_TOKEN: &str = "enable.sasl.oauthbearer.unsecure.jwt";

/// How long such a token is good for: longer than any test, because the client makes one alone. It
/// counts the milliseconds in 32 bits.
const TOKEN_SECONDS: u32 = 7 * 24 * 3600;

/// What is said where the brokers may miss a certificate of ours.
const CERTIFICATE_ADVICE: &str = "do the brokers demand a certificate of their clients? It is set by `certificate_file` and `key_file`";

/// What is said where the port may expect something else.
const LISTENER_ADVICE: &str =
    "are `tls` and `sasl_mechanism` what the brokers expect on this port?";

/// How a client logs in to the brokers, in Kafka's own spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub enum SaslMechanism {
    /// `"PLAIN"`: `user` and `password` as they are. Only with `tls` nobody on the way reads them.
    #[serde(rename = "PLAIN")]
    Plain,
    /// `"SCRAM-SHA-256"`: `user` and `password`, which is not sent itself.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// `"SCRAM-SHA-512"`: `user` and `password`, which is not sent itself.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// `"OAUTHBEARER"`: a token that names `user` and has **no signature**, for tests alone: brokers
    /// in production refuse it. Tokens of an identity provider can't be had, because the client is
    /// built without them.
    #[serde(rename = "OAUTHBEARER")]
    OAuthBearer,
}

/// Text that does not show in `Debug`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(Text);

impl Secret {
    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Text>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl SaslMechanism {
    /// As the client calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::OAuthBearer => "OAUTHBEARER",
        }
    }
}

/// The first key that can't work, and why. Looks into the files.
pub(crate) fn validate(config: &KafkaConfig) -> Result<(), (&'static str, String)> {
    validate_login(config)?;
    let (certificate, key) = (&config.certificate_file, &config.key_file);
    for (setting, is_set) in [
        ("ca_file", config.ca_file.is_some()),
        ("certificate_file", certificate.is_some()),
        ("key_file", key.is_some()),
        ("key_password", config.key_password.is_some()),
    ] {
        if is_set && !config.tls {
            return Err((setting, "needs `tls = true`".to_owned()));
        }
    }
    match (certificate, key) {
        (Some(_), None) => return Err(("certificate_file", "needs `key_file`".to_owned())),
        (None, Some(_)) => return Err(("key_file", "needs `certificate_file`".to_owned())),
        (None, None) if config.key_password.is_some() => {
            return Err(("key_password", "needs `key_file`".to_owned()));
        }
        _ => {}
    }
    for (setting, file, what) in [
        ("ca_file", &config.ca_file, "CERTIFICATE-----"),
        ("certificate_file", certificate, "CERTIFICATE-----"),
        ("key_file", key, "PRIVATE KEY-----"),
    ] {
        if let Some(file) = file {
            look_into(file, what).map_err(|why| {
                let file = file.display();
                (setting, format!("names {file}, which can't be used: {why}"))
            })?;
        }
    }
    Ok(())
}

fn validate_login(config: &KafkaConfig) -> Result<(), (&'static str, String)> {
    let Some(mechanism) = config.sasl_mechanism else {
        for (setting, is_set) in [
            ("user", config.user.is_some()),
            ("password", config.password.is_some()),
        ] {
            if is_set {
                let why = "needs `sasl_mechanism`, for example \"SCRAM-SHA-512\"";
                return Err((setting, why.to_owned()));
            }
        }
        return Ok(());
    };
    let name = mechanism.name();
    if config.user.as_ref().is_none_or(Text::is_empty) {
        return Err(("sasl_mechanism", format!("{name} needs `user`")));
    }
    match (mechanism, &config.password) {
        (SaslMechanism::OAuthBearer, Some(_)) => {
            return Err(("password", format!("has no use with {name}")));
        }
        (SaslMechanism::OAuthBearer, None) => {}
        (_, None) => return Err(("sasl_mechanism", format!("{name} needs `password`"))),
        (_, Some(_)) => {}
    }
    let is_plain_name = |user: &Text| {
        user.bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'"')
    };
    if mechanism == SaslMechanism::OAuthBearer && !config.user.as_ref().is_some_and(is_plain_name) {
        let why = "may have ASCII letters, digits and signs but quotes in a token";
        return Err(("user", why.to_owned()));
    }
    Ok(())
}

/// Whether a file can be read and holds what it is for. What it holds is not told.
fn look_into(file: &Path, what: &str) -> Result<(), String> {
    let text = std::fs::read(file).map_err(|error| error.to_string())?;
    if file.to_str().is_none() {
        return Err("the client takes no name that is not UTF-8".to_owned());
    }
    let holds = text.windows(what.len()).any(|part| part == what.as_bytes());
    if holds {
        return Ok(());
    }
    let what = what.trim_end_matches('-').to_lowercase();
    Err(format!("it holds no {what} in PEM"))
}

/// Sets what the client must know of encryption and login.
pub(crate) fn apply(client: &mut ClientConfig, config: &KafkaConfig) {
    let protocol = match (config.tls, config.sasl_mechanism.is_some()) {
        (false, false) => "plaintext",
        (true, false) => "ssl",
        (false, true) => "sasl_plaintext",
        (true, true) => "sasl_ssl",
    };
    client.set("security.protocol", protocol);
    if config.tls {
        apply_tls(client, config);
    }
    if let Some(mechanism) = config.sasl_mechanism {
        client.set("sasl.mechanisms", mechanism.name());
        let user = config.user.as_deref().unwrap_or_default();
        if mechanism == SaslMechanism::OAuthBearer {
            client.set(UNSIGNED_TOKEN, "true");
            let token = format!("principal={user} lifeSeconds={TOKEN_SECONDS}");
            client.set("sasl.oauthbearer.config", token);
        } else {
            client.set("sasl.username", user);
        }
    }
    if let Some(password) = &config.password {
        client.set("sasl.password", password.reveal());
    }
}

fn apply_tls(client: &mut ClientConfig, config: &KafkaConfig) {
    let files: [(&str, &Option<PathBuf>); 3] = [
        ("ssl.ca.location", &config.ca_file),
        ("ssl.certificate.location", &config.certificate_file),
        ("ssl.key.location", &config.key_file),
    ];
    for (property, file) in files {
        if let Some(file) = file {
            client.set(property, file.to_string_lossy());
        }
    }
    if config.ca_file.is_none() && properties::find(config, "ssl.ca.pem").is_none() {
        // OpenSSL is built in, and looks for the system's authorities where it was built.
        client.set("ssl.ca.location", "probe");
    }
    if let Some(password) = &config.key_password {
        client.set("ssl.key.password", password.reveal());
    }
}

/// Whether the client is told to make tokens without a signature, as it takes it.
pub(crate) fn unsigned_token(config: &KafkaConfig) -> &'static str {
    match config.sasl_mechanism {
        Some(SaslMechanism::OAuthBearer) => "true",
        _ => "false",
    }
}

/// Whether the password goes over the network as it is.
pub(crate) fn shows_password(config: &KafkaConfig) -> bool {
    let is_plain = config.sasl_mechanism == Some(SaslMechanism::Plain);
    is_plain && !config.tls && properties::find(config, "security.protocol").is_none()
}

/// What the client said while no broker could be reached.
#[derive(Debug, Default)]
pub(crate) struct Told {
    refusal: Option<Refusal>,
    reason: Option<String>,
    all_down: bool,
}

/// A broker, or this client, does not want the other.
#[derive(Debug)]
struct Refusal {
    what: &'static str,
    advice: &'static str,
    reason: String,
}

impl Told {
    /// Takes note of what the client says.
    pub(crate) fn note(&mut self, code: Option<RDKafkaErrorCode>, reason: &str) {
        if code == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.all_down = true;
            return;
        }
        if let Some((what, advice)) = code.and_then(|code| refusal(code, reason)) {
            self.refusal = Some(Refusal {
                what,
                advice,
                reason: reason.to_owned(),
            });
        }
        self.reason = Some(reason.to_owned());
    }

    /// Whether trying on is of no use: a broker refuses, and so do the others or they are away.
    pub(crate) fn is_final(&self) -> bool {
        self.all_down && self.refusal.is_some()
    }

    /// The error of a connect that came to nothing; `late` says how long it took.
    pub(crate) fn into_error(self, config: &KafkaConfig, origin: &Origin, late: String) -> Error {
        const OPERATION: &str = "connect";
        if let Some(refusal) = self.refusal {
            return origin
                .error(OPERATION, ErrorKind::Unauthorized, refusal.what)
                .with_effect(Effect::NotApplied)
                .with_retryable(false)
                .with_note(refusal.reason)
                .with_note(refusal.advice);
        }
        let reason = self.reason.unwrap_or_default();
        let mut error = origin
            .error(OPERATION, ErrorKind::Connect, late)
            .with_effect(Effect::NotApplied);
        if !reason.is_empty() {
            error = error.with_note(reason.as_str());
        }
        // A connection that is closed at once, without a word, leaves no reason.
        let of_the_listener = ["SSL", "PLAINTEXT broker", "security.protocol"];
        if reason.is_empty() || of_the_listener.iter().any(|sign| reason.contains(sign)) {
            error = error.with_note(LISTENER_ADVICE);
        }
        // With TLS 1.3 a broker that misses a certificate ends the connection behind the handshake,
        // and what it says may be lost with it.
        if config.tls && config.certificate_file.is_none() {
            error = error.with_note(CERTIFICATE_ADVICE);
        }
        error
    }
}

/// What is refused, and what to do.
fn refusal(code: RDKafkaErrorCode, reason: &str) -> Option<(&'static str, &'static str)> {
    use RDKafkaErrorCode as C;
    match code {
        C::Authentication | C::SaslAuthenticationFailed | C::UnsupportedSASLMechanism => Some((
            "the brokers refused the login",
            "`user` and `password` must be known to the brokers, for this `sasl_mechanism`",
        )),
        C::SSL | C::BrokerTransportFailure if reason.contains("alert") => Some((
            "the brokers refused TLS with this client",
            CERTIFICATE_ADVICE,
        )),
        C::SSL if reason.contains("verif") => Some((
            "the certificate of a broker is not accepted",
            "the authority of the brokers' certificates is set by `ca_file`, and a certificate must name the host that stands in `brokers`",
        )),
        _ => None,
    }
}

/// What to do about a client that can't be made, where a file is the reason. Its own text calls the
/// files by the names of properties.
pub(crate) fn advice_on_files(config: &KafkaConfig, text: &str) -> Option<&'static str> {
    let files = [
        (
            "ssl.ca.location",
            &config.ca_file,
            "`ca_file` holds no certificates of authorities",
        ),
        (
            "ssl.certificate.location",
            &config.certificate_file,
            "`certificate_file` holds no certificate",
        ),
        (
            "ssl.key.location",
            &config.key_file,
            "`key_file` does not fit `certificate_file`, or `key_password` does not fit it",
        ),
    ];
    let mut named = files
        .into_iter()
        .filter(|(property, file, _)| file.is_some() && text.contains(property));
    named.next().map(|(_, _, advice)| advice)
}

#[cfg(test)]
mod tests {
    use RDKafkaErrorCode as C;

    use super::*;

    const ALERT: &str = "Receive failed: SSL routines::tlsv13 alert certificate required";
    const FOREIGN: &str = "SSL handshake failed: certificate verify failed: could not be verified";

    fn told(said: &[(C, &str)]) -> Told {
        let mut told = Told::default();
        for (code, reason) in said {
            told.note(Some(*code), reason);
        }
        told
    }

    fn error(told: Told) -> Error {
        let config = KafkaConfig::new(["a:1"]);
        let origin = Origin::new("kafka".into(), config.brokers());
        told.into_error(&config, &origin, "late".to_owned())
    }

    #[test]
    fn a_refusal_is_told_from_a_broker_that_is_away() {
        for (code, reason, kind, says) in [
            (C::Authentication, "no", ErrorKind::Unauthorized, "login"),
            (C::SSL, FOREIGN, ErrorKind::Unauthorized, "`ca_file`"),
            (C::SSL, ALERT, ErrorKind::Unauthorized, "`certificate_file`"),
            (
                C::BrokerTransportFailure,
                ALERT,
                ErrorKind::Unauthorized,
                "`certificate_file`",
            ),
            (C::SSL, "SSL wrong version", ErrorKind::Connect, "`tls`"),
            (C::Resolve, "no such host", ErrorKind::Connect, "late"),
        ] {
            let error = error(told(&[(code, reason)]));
            assert_eq!(error.kind(), kind, "{error}");
            let text = error.to_string();
            assert!(text.contains(says) && text.contains(reason), "{text}");
        }
    }

    #[test]
    fn one_broker_of_several_that_refuses_ends_nothing() {
        let mut one = told(&[(C::Authentication, "no")]);
        assert!(!one.is_final());
        one.note(Some(C::AllBrokersDown), "2/2 brokers are down");
        assert!(one.is_final());
        assert_eq!(error(one).kind(), ErrorKind::Unauthorized);
        let away = told(&[(C::Resolve, "no such host"), (C::AllBrokersDown, "1/1")]);
        assert!(!away.is_final(), "they may come back");
        let away = error(away);
        assert!(away.to_string().contains("no such host"), "{away}");
    }
}
