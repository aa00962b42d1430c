//! A Kafka with settings of its own.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::Certificates;
use crate::backend::unblock;
use crate::error::Error;
use crate::kafka::{KafkaServer, recipe};
use crate::kafka_files::Node;
use crate::kafka_tools::KafkaPrograms;
use crate::names::free_port;
use crate::native::NativeServer;

/// The mechanisms by which a user may log in. Tokens are not checked: any name is let in.
const MECHANISMS: &str = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER";

/// A Kafka to be started with settings of its own, always as a process of this machine.
///
/// ```no_run
/// # async fn example() -> Result<(), polybus_test_support::Error> {
/// use polybus_test_support::{Certificates, KafkaOptions};
///
/// let certificates = Certificates::generate()?;
/// let options = KafkaOptions::new().secure(&certificates).user("app", "secret");
/// let server = options.start().await?;
/// println!("{:?} {:?}", server.sasl_brokers(), server.mutual_tls_brokers());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct KafkaOptions {
    lines: Vec<String>,
    files: Option<Files>,
    users: Vec<(String, String)>,
}

/// The certificates that the server works with.
#[derive(Debug, Clone)]
struct Files {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

/// The ports beside the one without encryption.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doors {
    /// TLS, and a login.
    pub(crate) sasl: u16,
    /// TLS, and a certificate of the client.
    pub(crate) mutual_tls: u16,
}

impl KafkaOptions {
    /// The settings of every [`KafkaServer`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A line of `server.properties`, in place of what is set otherwise.
    #[must_use]
    pub fn line(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// Two more ports: one for TLS with a login ([`user`](Self::user); by PLAIN, SCRAM, or a token
    /// without a signature, which lets anybody in), and one for TLS with a certificate of the client.
    /// The one without encryption stays open. The certificates must outlive the server.
    #[must_use]
    pub fn secure(mut self, certificates: &Certificates) -> Self {
        self.files = Some(Files {
            authority: certificates.authority(),
            certificate: certificates.server(),
            key: certificates.server_key(),
        });
        self
    }

    /// Somebody who may log in by PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512. Neither name nor password
    /// may have quotes, commas or brackets.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.users.push((name.into(), password.into()));
        self
    }

    /// Starts the server, and waits until it serves (90 s at most, usually 5 s).
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`] without Java or Kafka's jars, and when the server does not come up: its
    /// log says which line it refuses.
    ///
    /// # Cancel safety
    ///
    /// A server that was being started when the future was dropped is ended again.
    pub async fn start(self) -> Result<KafkaServer, Error> {
        unblock(move || self.start_blocking()).await
    }

    fn start_blocking(self) -> Result<KafkaServer, Error> {
        let programs = KafkaPrograms::find()?;
        let doors = Mutex::new(None);
        let server = NativeServer::start("kafka", |watchdog| {
            let opened = self.files.is_some().then(|| Doors {
                sasl: free_port(),
                mutual_tls: free_port(),
            });
            *doors.lock().unwrap_or_else(PoisonError::into_inner) = opened;
            recipe(&programs, &self, opened, None, None, watchdog)
        })?;
        let doors = doors.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(KafkaServer::own(server, doors))
    }

    /// What stands behind the lines that every server has. Writes the keystore.
    pub(crate) fn lines(
        &self,
        node: &Node<'_>,
        doors: Option<Doors>,
        directory: &Path,
    ) -> Result<String, Error> {
        let mut lines = Vec::new();
        if let (Some(files), Some(doors)) = (&self.files, doors) {
            let keystore = directory.join("keystore.pem");
            write_keystore(files, &keystore)?;
            lines.extend(listeners(node, doors));
            lines.extend(stores(&keystore, &files.authority));
            lines.extend(self.logins());
        }
        lines.extend(self.lines.iter().cloned());
        Ok(lines.join("\n") + "\n")
    }

    /// What the storage is formatted with beside its id: those who log in by SCRAM.
    pub(crate) fn format_arguments(&self) -> Vec<String> {
        let users = self.users.iter().flat_map(|(name, password)| {
            ["SCRAM-SHA-256", "SCRAM-SHA-512"].map(|mechanism| {
                [
                    "--add-scram".to_owned(),
                    format!("{mechanism}=[name={name},password={password}]"),
                ]
            })
        });
        users.flatten().collect()
    }

    fn logins(&self) -> Vec<String> {
        let module = |mechanism: &str, class: &str, options: &str| {
            format!(
                "listener.name.sasl.{mechanism}.sasl.jaas.config=\
                 org.apache.kafka.common.security.{class} required{options};"
            )
        };
        let users: String = self
            .users
            .iter()
            .map(|(name, password)| format!(" user_{name}=\"{password}\""))
            .collect();
        vec![
            format!("listener.name.sasl.sasl.enabled.mechanisms={MECHANISMS}"),
            module("plain", "plain.PlainLoginModule", &users),
            module("scram-sha-256", "scram.ScramLoginModule", ""),
            module("scram-sha-512", "scram.ScramLoginModule", ""),
            module(
                "oauthbearer",
                "oauthbearer.OAuthBearerLoginModule",
                " unsecuredLoginStringClaim_sub=\"broker\"",
            ),
        ]
    }
}

/// The broker's key, its certificate and its authority, in one file as Kafka wants them.
fn write_keystore(files: &Files, keystore: &Path) -> Result<(), Error> {
    let mut text = Vec::new();
    for file in [&files.key, &files.certificate, &files.authority] {
        let part = std::fs::read(file).map_err(Error::io(format!("read {}", file.display())))?;
        text.extend(part);
    }
    std::fs::write(keystore, text).map_err(Error::io("write the broker's keystore"))
}

fn listeners(node: &Node<'_>, doors: Doors) -> Vec<String> {
    let Doors { sasl, mutual_tls } = doors;
    let secure = format!("SASL://127.0.0.1:{sasl},MTLS://127.0.0.1:{mutual_tls}");
    let (listen, advertise) = (node.listen, node.advertise);
    let controller = node.controller;
    let protocols = "PLAINTEXT:PLAINTEXT,SASL:SASL_SSL,MTLS:SSL,CONTROLLER:PLAINTEXT";
    vec![
        format!("listeners=PLAINTEXT://{listen},{secure},CONTROLLER://{controller}"),
        format!("advertised.listeners=PLAINTEXT://{advertise},{secure}"),
        format!("listener.security.protocol.map={protocols}"),
        "inter.broker.listener.name=PLAINTEXT".to_owned(),
    ]
}

fn stores(keystore: &Path, authority: &Path) -> Vec<String> {
    vec![
        "ssl.keystore.type=PEM".to_owned(),
        format!("ssl.keystore.location={}", keystore.display()),
        "ssl.truststore.type=PEM".to_owned(),
        format!("ssl.truststore.location={}", authority.display()),
        "listener.name.mtls.ssl.client.auth=required".to_owned(),
    ]
}
