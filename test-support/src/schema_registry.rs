//! A schema registry for tests.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use testcontainers::ImageExt;

use crate::Certificates;
use crate::backend::{Backend, Disruption, unblock};
use crate::choice::docker_is_forced;
use crate::docker::{DockerServer, Image};
use crate::error::Error;
use crate::kafka_tools::cache;
use crate::names::free_port;
use crate::native::{NativeServer, Recipe};
use crate::process::Program;

/// It is ready in 0.05 s; this is for a machine that is busy with everything else.
const READY_DEADLINE: Duration = Duration::from_secs(30);

/// The version of the module, which `scripts/install` builds.
const GO_MOD: &str = include_str!("../../scripts/schema-registry/go.mod");

/// Redpanda has a registry of its own, which answers once its broker is up.
const IMAGE: Image = Image {
    name: "redpandadata/redpanda",
    tag: "v24.2.7",
    request: |image, port| {
        let arguments =
            "redpanda start --mode dev-container --smp 1 --memory 512M --schema-registry-addr";
        let arguments = arguments.split(' ').map(str::to_owned);
        image.with_cmd(arguments.chain([format!("0.0.0.0:{port}")]))
    },
    ready_deadline: Duration::from_secs(60),
    ready: answers,
};

/// A registry that speaks Confluent's API: `srfake` of franz-go, in memory, which others wrote to test their
/// client with, as a process of this machine. Its check of compatibility always says yes. With
/// `POLYBUS_TEST_SERVERS=docker`, one that services use: Redpanda's, in a container.
///
/// Dropping it ends it, and its schemas are gone.
#[derive(Debug)]
pub struct SchemaRegistryServer {
    backend: Arc<Backend>,
    scheme: &'static str,
    port: u16,
}

/// How a registry is reached: a process, since containers have neither login nor certificate.
#[derive(Debug, Default)]
pub struct SchemaRegistryOptions {
    login: String,
    certificate: Option<[PathBuf; 2]>,
}

impl SchemaRegistryOptions {
    /// Plain, without a login.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Demands basic authentication.
    #[must_use]
    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.login = format!("{user}:{password}");
        self
    }

    /// Speaks TLS, and nothing else.
    #[must_use]
    pub fn tls(mut self, certificates: &Certificates) -> Self {
        self.certificate = Some([certificates.server(), certificates.server_key()]);
        self
    }

    /// Starts it and waits until it serves (30 s at most).
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`] if it was not built; what its process says.
    ///
    /// # Cancel safety
    ///
    /// A server that was being started when the future was dropped is ended again.
    pub async fn start(self) -> Result<SchemaRegistryServer, Error> {
        unblock(move || self.start_blocking()).await
    }

    fn start_blocking(self) -> Result<SchemaRegistryServer, Error> {
        let program = program()?;
        let scheme = if self.certificate.is_some() {
            "https"
        } else {
            "http"
        };
        let native = NativeServer::start("schema-registry", |watchdog| {
            let port = free_port();
            let mut command = vec![
                OsString::from(&program),
                format!("127.0.0.1:{port}").into(),
                OsString::from(&self.login),
            ];
            command.extend(self.certificate.iter().flatten().map(OsString::from));
            Ok(Recipe {
                program: Program {
                    command,
                    log: watchdog.directory().join("schema-registry.log"),
                },
                port,
                ready_deadline: READY_DEADLINE,
                ready: |attempt| attempt.log.contains("listening"),
            })
        })?;
        Ok(SchemaRegistryServer {
            port: native.port(),
            backend: Arc::new(Backend::Native(native)),
            scheme,
        })
    }
}

impl SchemaRegistryServer {
    /// Starts one, plain and without a login.
    ///
    /// # Errors
    ///
    /// Those of [`SchemaRegistryOptions::start`]; what Docker says, where it is forced.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn start() -> Result<Self, Error> {
        if docker_is_forced()? {
            return unblock(Self::docker).await;
        }
        SchemaRegistryOptions::new().start().await
    }

    fn docker() -> Result<Self, Error> {
        let server = DockerServer::start(IMAGE)?;
        Ok(Self {
            port: server.port(),
            backend: Arc::new(Backend::Docker(server)),
            scheme: "http",
        })
    }

    /// The address as `http://localhost:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        let Self { scheme, port, .. } = self;
        format!("{scheme}://localhost:{port}")
    }

    /// Ends it with SIGKILL.
    ///
    /// # Errors
    ///
    /// When it can't be ended.
    ///
    /// # Cancel safety
    ///
    /// It is ended all the same.
    pub async fn kill(&self) -> Result<(), Error> {
        self.backend.disrupt(Disruption::Kill).await
    }

    /// Stops the process in its tracks: it answers nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] when it does not run.
    ///
    /// # Cancel safety
    ///
    /// It is stopped all the same.
    pub async fn pause(&self) -> Result<(), Error> {
        self.backend.disrupt(Disruption::Pause).await
    }

    /// Starts it again on its port. A process has lost its schemas.
    ///
    /// # Errors
    ///
    /// Those of a start.
    ///
    /// # Cancel safety
    ///
    /// It is started all the same.
    pub async fn restart(&self) -> Result<(), Error> {
        self.backend.disrupt(Disruption::Restart).await
    }
}

/// Whether a registry says what its subjects are.
fn answers(address: SocketAddr) -> bool {
    const PATIENCE: Duration = Duration::from_secs(2);
    let ask = || -> std::io::Result<bool> {
        let mut connection = TcpStream::connect_timeout(&address, PATIENCE)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.write_all(b"GET /subjects HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
        let mut answer = [0; 12];
        connection.read_exact(&mut answer)?;
        Ok(answer.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}

fn program() -> Result<PathBuf, Error> {
    let version = GO_MOD
        .lines()
        .find_map(|line| line.rsplit_once("/pkg/sr v"))
        .map_or("", |(_, version)| version.trim());
    let program = cache()
        .join(format!("schema-registry-{version}"))
        .join("schema-registry");
    if program.is_file() {
        return Ok(program);
    }
    Err(Error::NotInstalled {
        server: "schema registry",
        missing: program.display().to_string(),
        install: "scripts/install builds it, with Go",
    })
}
