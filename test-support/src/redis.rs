//! A Redis for tests.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use testcontainers::ImageExt;

use crate::backend::{Backend, Disruption, unblock};
use crate::choice::Ways;
use crate::docker::{DockerServer, Image};
use crate::error::Error;
use crate::external::ExternalServer;
use crate::names::free_port;
use crate::native::{NativeServer, Recipe, in_path};
use crate::probe::redis_process;
use crate::process::Program;
use crate::watchdog::Watchdog;

const VARIABLE: &str = "POLYBUS_TEST_REDIS_URL";

/// Redis is ready in 0.04 s; this is for a machine that is busy with everything else.
pub(crate) const READY_DEADLINE: Duration = Duration::from_secs(30);

const IMAGE: Image = Image {
    name: "redis",
    tag: "7",
    request: |image, port| {
        let command = std::iter::once("redis-server".to_owned()).chain(settings("0.0.0.0", port));
        image.with_cmd(command)
    },
    ready_deadline: READY_DEADLINE,
    ready: |address| redis_process(address).is_some(),
};

/// A real Redis. Every acknowledged write is on disk before it is acknowledged (`appendfsync always`),
/// so that a kill and a restart lose nothing.
///
/// Dropping it ends the server and removes its data. See the [crate's page](crate) for which server is
/// started.
#[derive(Debug)]
pub struct RedisServer {
    url: String,
    tls_url: Option<String>,
    backend: Arc<Backend>,
}

impl RedisServer {
    /// Starts a Redis that nobody else uses, and waits until it serves (30 s at most).
    ///
    /// # Errors
    ///
    /// When no way of getting a server works; the text says what was tried and what to install.
    ///
    /// # Cancel safety
    ///
    /// A server that was being started when the future was dropped is ended again.
    pub async fn start() -> Result<Self, Error> {
        unblock(Self::start_blocking).await
    }

    /// The Redis of this test binary: started by the first call, there until the process ends.
    ///
    /// # Panics
    ///
    /// When it cannot be started, with what [`Error`] says: a missing server fails the test.
    pub async fn shared() -> &'static Self {
        match Self::try_shared().await {
            Ok(server) => server,
            Err(error) => panic!("{error}"),
        }
    }

    /// As [`shared`](Self::shared), for callers that report the error themselves.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start). The first outcome stays; the start is not tried again.
    ///
    /// # Cancel safety
    ///
    /// The start goes on for the next caller when the future is dropped.
    pub async fn try_shared() -> Result<&'static Self, &'static Error> {
        static SHARED: OnceLock<Result<RedisServer, Error>> = OnceLock::new();
        unblock(|| SHARED.get_or_init(Self::start_blocking))
            .await
            .as_ref()
    }

    /// The address as `redis://127.0.0.1:PORT`, or as the environment gave it. The same after a restart.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port of a server of ours.
    pub(crate) fn port(&self) -> Option<u16> {
        self.url.rsplit(':').next()?.parse().ok()
    }

    /// The address for TLS as `rediss://127.0.0.1:PORT`, without a login: of a server that was started
    /// with [`RedisOptions::tls`](crate::RedisOptions::tls).
    #[must_use]
    pub fn tls_url(&self) -> Option<&str> {
        self.tls_url.as_deref()
    }

    /// The id of the server's process, while it runs as a process of this machine: not in a container, and
    /// not external.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.backend.process_id()
    }

    /// The directory of a native server's data and log; removed with the server.
    #[must_use]
    pub fn directory(&self) -> Option<PathBuf> {
        self.backend.directory()
    }

    /// Ends the server with SIGKILL; nothing happens when it does not run.
    ///
    /// # Errors
    ///
    /// [`Error::External`] when the server is not ours.
    pub async fn kill(&self) -> Result<(), Error> {
        self.backend.disrupt(Disruption::Kill).await
    }

    /// Stops the process in its tracks (SIGSTOP): connections stay open and nothing is answered.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] when it does not run, [`Error::External`] when it is not ours.
    pub async fn pause(&self) -> Result<(), Error> {
        self.backend.disrupt(Disruption::Pause).await
    }

    /// Lets a paused server go on (SIGCONT).
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause).
    pub async fn resume(&self) -> Result<(), Error> {
        self.backend.disrupt(Disruption::Resume).await
    }

    /// Ends the server in good order (SIGTERM, 30 s at most); nothing happens when it does not run.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`] when it does not end, [`Error::External`] when it is not ours.
    pub async fn stop(&self) -> Result<(), Error> {
        self.backend.disrupt(Disruption::Stop).await
    }

    /// Starts the server again, on the same port and the same data, and waits until it serves (30 s at
    /// most). A server that still runs is stopped first.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start) and [`stop`](Self::stop).
    ///
    /// # Cancel safety
    ///
    /// The restart is carried through when the future is dropped.
    pub async fn restart(&self) -> Result<(), Error> {
        self.backend.disrupt(Disruption::Restart).await
    }

    fn start_blocking() -> Result<Self, Error> {
        let ways = Ways {
            server: "Redis",
            variable: VARIABLE,
            external: Self::external,
            docker: Self::docker,
            native: Self::native,
        };
        ways.take()
    }

    fn external(url: String) -> Result<Self, Error> {
        let address = host_and_port(&url).ok_or_else(|| Error::Setting {
            variable: VARIABLE,
            // The value may hold a password.
            value: "...".to_owned(),
            problem: "must be a URL such as redis://127.0.0.1:6379",
        })?;
        let server = ExternalServer::reach("Redis", VARIABLE, &[address])?;
        Ok(Self::new(url, Backend::External(server)))
    }

    fn docker() -> Result<Self, Error> {
        let server = DockerServer::start(IMAGE)?;
        let url = format!("redis://127.0.0.1:{}", server.port());
        Ok(Self::new(url, Backend::Docker(server)))
    }

    /// A process with settings of its own.
    pub(crate) fn own(url: String, tls_url: Option<String>, server: NativeServer) -> Self {
        Self {
            tls_url,
            ..Self::new(url, Backend::Native(server))
        }
    }

    fn native() -> Result<Self, Error> {
        let program = redis_program()?;
        let server = NativeServer::start("redis", |watchdog| Ok(recipe(&program, watchdog)))?;
        let url = format!("redis://127.0.0.1:{}", server.port());
        Ok(Self::new(url, Backend::Native(server)))
    }

    fn new(url: String, backend: Backend) -> Self {
        let backend = Arc::new(backend);
        Self {
            url,
            tls_url: None,
            backend,
        }
    }
}

/// The program `redis-server`.
pub(crate) fn redis_program() -> Result<PathBuf, Error> {
    in_path("redis-server").ok_or_else(|| Error::NotInstalled {
        server: "Redis",
        missing: "redis-server in PATH".to_owned(),
        install: "run scripts/install, or: apt-get install redis-server",
    })
}

fn recipe(program: &Path, watchdog: &Watchdog) -> Recipe {
    let port = free_port();
    let mut command = vec![program.into()];
    command.extend(settings("127.0.0.1", port).map(OsString::from));
    Recipe {
        program: Program {
            command,
            log: watchdog.directory().join("redis.log"),
        },
        port,
        ready_deadline: READY_DEADLINE,
        ready: |attempt| {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, attempt.port));
            redis_process(address) == Some(attempt.process)
        },
    }
}

/// The server's arguments.
fn settings(bind: &str, port: u16) -> impl Iterator<Item = String> {
    let settings = defaults(bind, port).into_iter();
    settings.flat_map(|(name, value)| [format!("--{name}"), value])
}

/// The same as lines of `redis.conf`.
pub(crate) fn setting_lines(bind: &str, port: u16) -> String {
    let settings = defaults(bind, port).into_iter();
    settings
        .map(|(name, value)| format!("{name} \"{value}\"\n"))
        .collect()
}

/// Durable, and open to whoever reaches the address it listens on.
fn defaults(bind: &str, port: u16) -> [(&'static str, String); 7] {
    [
        ("bind", bind.to_owned()),
        ("port", port.to_string()),
        ("protected-mode", "no".to_owned()),
        ("save", String::new()),
        ("appendonly", "yes".to_owned()),
        ("appendfsync", "always".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
    ]
}

/// `host:port` of a Redis URL, the port 6379 unless given.
fn host_and_port(url: &str) -> Option<String> {
    let rest = url
        .strip_prefix("redis://")
        .or_else(|| url.strip_prefix("rediss://"))?;
    let authority = rest.split(['/', '?']).next()?;
    let address = authority.rsplit('@').next()?;
    let port = address.rsplit_once(':').map(|(_, port)| port);
    match port {
        // The colons of an IPv6 address stand inside its brackets.
        Some(port) if !port.ends_with(']') => Some(address.to_owned()),
        _ if address.is_empty() => None,
        _ => Some(format!("{address}:6379")),
    }
}

#[cfg(test)]
mod tests {
    use super::host_and_port;

    fn check(url: &str, wanted: Option<&str>) {
        assert_eq!(host_and_port(url).as_deref(), wanted, "{url}");
    }

    #[test]
    fn the_address_of_a_url_has_a_port_and_no_secrets() {
        check("redis://127.0.0.1:7000", Some("127.0.0.1:7000"));
        check("redis://redis", Some("redis:6379"));
        check("rediss://user:pa:ss@redis:7000/3?x=y", Some("redis:7000"));
        check("redis://[::1]/0", Some("[::1]:6379"));
        check("redis://[::1]:7000", Some("[::1]:7000"));
        check("redis://", None);
        check("127.0.0.1:6379", None);
    }
}
