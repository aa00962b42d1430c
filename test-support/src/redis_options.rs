//! A Redis with settings of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::Certificates;
use crate::backend::unblock;
use crate::error::Error;
use crate::names::free_port;
use crate::native::{Attempt, NativeServer, Recipe};
use crate::probe::{guarded_redis_process, redis_process};
use crate::process::Program;
use crate::redis::{READY_DEADLINE, RedisServer, redis_program, setting_lines};
use crate::watchdog::Watchdog;

/// What the user `default` of a guarded server must give.
const PASSWORD: &str = "administrator";

/// A Redis to be started with settings of its own, always as a process of this machine.
///
/// ```no_run
/// # async fn example() -> Result<(), polybus_test_support::Error> {
/// use polybus_test_support::{Certificates, RedisOptions};
///
/// let certificates = Certificates::generate()?;
/// let options = RedisOptions::new().guarded().tls(&certificates);
/// let server = options.line("user app on >secret ~* +@all").start().await?;
/// println!("{:?}", server.tls_url());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    lines: Vec<String>,
    guarded: bool,
    tls: bool,
}

impl RedisOptions {
    /// The settings of every [`RedisServer`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A line of `redis.conf`. It replaces a setting of ours of the same name.
    #[must_use]
    pub fn line(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// The user `default` needs a password, which [`RedisServer::url`] then holds.
    #[must_use]
    pub fn guarded(mut self) -> Self {
        self.guarded = true;
        self.line(format!("requirepass {PASSWORD}"))
    }

    /// A second port, for TLS. It demands a certificate of the client, unless a line
    /// `tls-auth-clients no` says otherwise. The certificates must outlive the server.
    #[must_use]
    pub fn tls(mut self, certificates: &Certificates) -> Self {
        self.tls = true;
        self.line(format!("tls-cert-file {}", certificates.server().display()))
            .line(format!(
                "tls-key-file {}",
                certificates.server_key().display()
            ))
            .line(format!(
                "tls-ca-cert-file {}",
                certificates.authority().display()
            ))
    }

    /// Starts the server, and waits until it serves (30 s at most).
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`] without `redis-server`, and when the server does not come up: its log
    /// says which line it refuses.
    ///
    /// # Cancel safety
    ///
    /// A server that was being started when the future was dropped is ended again.
    pub async fn start(self) -> Result<RedisServer, Error> {
        unblock(move || self.start_blocking()).await
    }

    fn start_blocking(self) -> Result<RedisServer, Error> {
        let program = redis_program()?;
        let tls_port = Mutex::new(None);
        let server = NativeServer::start("redis", |watchdog| {
            let port = self.tls.then(free_port);
            *tls_port.lock().unwrap_or_else(PoisonError::into_inner) = port;
            self.recipe(&program, port, watchdog)
        })?;
        let login = if self.guarded {
            format!(":{PASSWORD}@")
        } else {
            String::new()
        };
        let url = format!("redis://{login}127.0.0.1:{}", server.port());
        let tls_port = tls_port
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let tls_url = tls_port.map(|port| format!("rediss://127.0.0.1:{port}"));
        Ok(RedisServer::own(url, tls_url, server))
    }

    fn recipe(
        &self,
        program: &Path,
        tls_port: Option<u16>,
        watchdog: &Watchdog,
    ) -> Result<Recipe, Error> {
        let directory = watchdog.directory();
        let port = free_port();
        // The last line of a name holds: those asked for replace ours.
        let mut lines = setting_lines("127.0.0.1", port);
        lines.push_str(&self.lines.join("\n"));
        if let Some(port) = tls_port {
            lines.push_str(&format!("\ntls-port {port}"));
        }
        let file = directory.join("redis.conf");
        std::fs::write(&file, lines).map_err(Error::io("write redis.conf"))?;
        Ok(Recipe {
            program: Program {
                command: vec![program.into(), file.into()],
                log: directory.join("redis.log"),
            },
            port,
            ready_deadline: READY_DEADLINE,
            ready: if self.guarded { guarded_ready } else { ready },
        })
    }
}

fn ready(attempt: &Attempt) -> bool {
    redis_process(address(attempt)) == Some(attempt.process)
}

fn guarded_ready(attempt: &Attempt) -> bool {
    guarded_redis_process(address(attempt), PASSWORD) == Some(attempt.process)
}

fn address(attempt: &Attempt) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, attempt.port))
}
