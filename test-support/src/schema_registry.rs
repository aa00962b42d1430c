//! A schema registry for tests.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::Certificates;
use crate::backend::unblock;
use crate::error::Error;
use crate::kafka_tools::cache;
use crate::names::free_port;
use crate::native::{NativeServer, Recipe};
use crate::process::Program;

/// It is ready in 0.05 s; this is for a machine that is busy with everything else.
const READY_DEADLINE: Duration = Duration::from_secs(30);

/// The version of the module, which `scripts/install` builds.
const GO_MOD: &str = include_str!("../../scripts/schema-registry/go.mod");

/// A registry that speaks Confluent's API, in memory: `srfake` of franz-go, which others wrote to test
/// their client with. Its check of compatibility always says yes.
///
/// Always a process of this machine. Dropping it ends it, and its schemas are gone.
#[derive(Debug)]
pub struct SchemaRegistryServer {
    native: NativeServer,
    scheme: &'static str,
}

/// How a registry is reached.
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
        Ok(SchemaRegistryServer { native, scheme })
    }
}

impl SchemaRegistryServer {
    /// Starts one, plain and without a login.
    ///
    /// # Errors
    ///
    /// Those of [`SchemaRegistryOptions::start`].
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub async fn start() -> Result<Self, Error> {
        SchemaRegistryOptions::new().start().await
    }

    /// The address as `http://localhost:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        let (scheme, port) = (self.scheme, self.native.port());
        format!("{scheme}://localhost:{port}")
    }

    /// Ends it with SIGKILL.
    ///
    /// # Errors
    ///
    /// When the process can't be ended.
    pub fn kill(&self) -> Result<(), Error> {
        self.native.kill()
    }

    /// Stops the process in its tracks: it answers nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] when it does not run.
    pub fn pause(&self) -> Result<(), Error> {
        self.native.pause()
    }

    /// Starts it again on its port, without the schemas that it had.
    ///
    /// # Errors
    ///
    /// Those of a start.
    pub fn restart(&self) -> Result<(), Error> {
        self.native.restart()
    }
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
