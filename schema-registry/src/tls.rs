use std::path::Path;
use std::sync::Arc;

use polybus_core::{Error, ErrorKind, Result};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// TLS with the authorities of a file, or those of the system.
pub(crate) fn client(ca_file: Option<&Path>) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has cipher suites for TLS 1.2 and 1.3");
    let mut authorities = RootCertStore::empty();
    match ca_file {
        Some(file) => {
            let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
            let certificates: Vec<CertificateDer<'_>> =
                read.map_err(|error| unreadable(file, &error.to_string()))?;
            let (added, _) = authorities.add_parsable_certificates(certificates);
            if added == 0 {
                return Err(unreadable(file, "it holds no certificate"));
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            authorities.add_parsable_certificates(found.certs);
        }
    }
    Ok(builder
        .with_root_certificates(authorities)
        .with_no_client_auth())
}

fn unreadable(file: &Path, why: &str) -> Error {
    let what = format!(
        "schema_registry.ca_file: {} can't be read: {why}",
        file.display()
    );
    Error::new(ErrorKind::Config, what)
}
