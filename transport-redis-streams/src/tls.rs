//! TLS: which certificates are accepted and shown, and what its refusals mean.

use std::io;
use std::path::Path;
use std::sync::Arc;

use polybus_core::{Effect, Error, ErrorKind, Result};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use crate::config::RedisConfig;
use crate::error::Origin;

/// What is said where the server may miss a certificate of ours.
const CERTIFICATE_ADVICE: &str = "does the server demand a certificate of its clients? It is set by `certificate_file` and `key_file`";

/// What is said where the server may not expect TLS.
pub(crate) const PORT_ADVICE: &str = "does the server speak TLS on this port?";

/// How connections are encrypted.
#[derive(Clone)]
pub(crate) struct Tls(TlsConnector);

impl Tls {
    /// Reads the certificates that the config names.
    pub(crate) fn new(config: &RedisConfig) -> Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has cipher suites for TLS 1.2 and 1.3")
            .with_root_certificates(authorities(config)?);
        let client = match (&config.certificate_file, &config.key_file) {
            (Some(certificate), Some(key)) => {
                let chain = certificates(config, "certificate_file", certificate)?;
                let key = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| unreadable(config, "key_file", key, &error))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| {
                    config
                        .wrong("key_file", "is no key for the certificate")
                        .with_source(error)
                })?
            }
            _ => builder.with_no_client_auth(),
        };
        Ok(Self(TlsConnector::from(Arc::new(client))))
    }

    /// Encrypts a connection.
    pub(crate) async fn encrypt(
        &self,
        host: &str,
        socket: TcpStream,
        origin: &Origin,
    ) -> Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| {
            origin
                .plain(
                    ErrorKind::Config,
                    format!("`{host}` is no name that a certificate can have"),
                )
                .with_operation("connect")
                .with_source(error)
        })?;
        let encrypted = self.0.connect(name, socket).await;
        encrypted.map_err(|error| failed_handshake(origin, error))
    }
}

/// What a connection that was encrypted and ended while logging in means: with TLS 1.3 the server
/// looks at the client's certificate only after the client has finished.
pub(crate) fn ended_at_login(error: Error) -> Error {
    let refused = error.kind() == ErrorKind::Connect && says_alert(&error);
    let error = if refused {
        let alert = Error::new(
            ErrorKind::Unauthorized,
            "the server refused the TLS certificate of this client, or the lack of one",
        );
        let alert = match error.transport() {
            Some(transport) => alert.with_transport(transport),
            None => alert,
        };
        alert.with_operation("connect").with_source(error)
    } else {
        error
    };
    match error.kind() {
        ErrorKind::Connect => error.with_note(CERTIFICATE_ADVICE),
        ErrorKind::Unauthorized if refused => error.with_note(CERTIFICATE_ADVICE),
        _ => error,
    }
}

/// The library hands on the text of an alert, and not the alert.
fn says_alert(error: &Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.to_string().contains("received fatal alert") {
            return true;
        }
        cause = error.source();
    }
    false
}

fn failed_handshake(origin: &Origin, error: io::Error) -> Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    let address = &origin.address;
    let (kind, message, retryable, advice) = match cause {
        Some(rustls::Error::InvalidCertificate(why)) => (
            ErrorKind::Unauthorized,
            format!("the certificate of Redis at {address} is not accepted: {why}"),
            false,
            "the authority of the server's certificate is set by `ca_file`, and the certificate must name the host of the URL",
        ),
        Some(rustls::Error::AlertReceived(alert)) => (
            ErrorKind::Unauthorized,
            format!("Redis at {address} refused TLS with this client: {alert:?}"),
            false,
            CERTIFICATE_ADVICE,
        ),
        _ => (
            ErrorKind::Connect,
            format!("no TLS connection to Redis at {address}: {error}"),
            true,
            PORT_ADVICE,
        ),
    };
    origin
        .plain(kind, message)
        .with_operation("connect")
        .with_effect(Effect::NotApplied)
        .with_retryable(retryable)
        .with_note(advice)
        .with_source(error)
}

/// The authorities that a server's certificate may come from.
fn authorities(config: &RedisConfig) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    if let Some(file) = &config.ca_file {
        for certificate in certificates(config, "ca_file", file)? {
            store.add(certificate).map_err(|error| {
                config
                    .wrong(
                        "ca_file",
                        "holds a certificate that is none of an authority",
                    )
                    .with_source(error)
            })?;
        }
        return Ok(store);
    }
    // Some of the system's may be of a kind that rustls does not know.
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        return Err(config
            .wrong(
                "ca_file",
                "is needed: the operating system trusts no authority",
            )
            .with_note("install the package `ca-certificates`, or name a PEM file"));
    }
    Ok(store)
}

fn certificates(
    config: &RedisConfig,
    key: &str,
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let found: Vec<_> = read.map_err(|error| unreadable(config, key, file, &error))?;
    if found.is_empty() {
        let why = format!(
            "names {}, which holds no certificate in PEM",
            file.display()
        );
        return Err(config.wrong(key, &why));
    }
    Ok(found)
}

/// The cause is told as text: it may quote what the file holds.
fn unreadable(
    config: &RedisConfig,
    key: &str,
    file: &Path,
    error: &rustls::pki_types::pem::Error,
) -> Error {
    use rustls::pki_types::pem::Error as Pem;
    let why = match error {
        Pem::Io(error) => error.to_string(),
        Pem::NoItemsFound => "it holds none in PEM".to_owned(),
        _ => "it is no PEM file".to_owned(),
    };
    config.wrong(
        key,
        &format!("names {}, which can't be read: {why}", file.display()),
    )
}
