//! A Redis with a replica, and three sentinels that watch them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::backend::unblock;
use crate::error::Error;
use crate::names::free_port;
use crate::native::{NativeServer, Recipe};
use crate::probe::{ask_redis, redis_process};
use crate::process::Program;
use crate::redis::{READY_DEADLINE, RedisServer, redis_program};
use crate::redis_options::RedisOptions;
use crate::watchdog::Watchdog;

/// How long the sentinels may take to find one another (2 s on a machine that has nothing else to do).
const AGREEMENT_DEADLINE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(50);

/// A primary, a replica and three sentinels, all processes of this machine. The sentinels make the
/// replica the primary when the primary has been away for a second.
#[derive(Debug)]
pub struct RedisSentinels {
    primary: RedisServer,
    replica: RedisServer,
    sentinels: Vec<NativeServer>,
}

impl RedisSentinels {
    /// What the sentinels call the primary.
    pub const MASTER: &'static str = "bus";

    /// Starts all five, and waits until the sentinels agree (60 s at most; 3 s are usual).
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`] without `redis-server`; [`Error::Io`] when the sentinels do not agree.
    ///
    /// # Cancel safety
    ///
    /// What was being started when the future was dropped is ended again.
    pub async fn start() -> Result<Self, Error> {
        let options = RedisOptions::new().line("repl-diskless-sync-delay 0");
        let primary = options.clone().start().await?;
        let port = primary
            .port()
            .expect("the address of a server of ours ends with its port");
        let replica = options.line(format!("replicaof 127.0.0.1 {port}"));
        let replica = replica.start().await?;
        unblock(move || Self::watch(primary, replica, port)).await
    }

    /// The server that was the primary at first.
    #[must_use]
    pub fn primary(&self) -> &RedisServer {
        &self.primary
    }

    /// The server that was the replica at first.
    #[must_use]
    pub fn replica(&self) -> &RedisServer {
        &self.replica
    }

    /// The sentinels' addresses as `redis://127.0.0.1:PORT`.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        let url = |sentinel: &NativeServer| format!("redis://127.0.0.1:{}", sentinel.port());
        self.sentinels.iter().map(url).collect()
    }

    /// Ends one of the sentinels with SIGKILL.
    ///
    /// # Errors
    ///
    /// When the process can't be ended.
    ///
    /// # Panics
    ///
    /// When there is none of this index.
    pub fn kill_sentinel(&self, index: usize) -> Result<(), Error> {
        self.sentinels[index].kill()
    }

    fn watch(primary: RedisServer, replica: RedisServer, port: u16) -> Result<Self, Error> {
        // What the sentinels don't see when they begin to look they look for 10 s later.
        wait("the replica", port, "INFO replication", "state=online")?;
        let program = redis_program()?;
        let sentinels: Result<Vec<_>, _> = (0..3)
            .map(|_| NativeServer::start("sentinel", |watchdog| recipe(&program, port, watchdog)))
            .collect();
        let sentinels = sentinels?;
        for sentinel in &sentinels {
            let agreed = "slaves=1,sentinels=3";
            wait("a sentinel", sentinel.port(), "INFO sentinel", agreed)?;
        }
        Ok(Self {
            primary,
            replica,
            sentinels,
        })
    }
}

fn wait(who: &str, port: u16, command: &str, wanted: &str) -> Result<(), Error> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Instant::now() + AGREEMENT_DEADLINE;
    loop {
        let answer = ask_redis(address, &format!("{command}\r\nQUIT\r\n"));
        if answer.as_ref().is_ok_and(|answer| answer.contains(wanted)) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let said = format!("{who} at {address} has no `{wanted}`: {answer:?}");
            return Err(Error::io("wait for the sentinels")(std::io::Error::other(
                said,
            )));
        }
        thread::sleep(POLL);
    }
}

fn recipe(program: &Path, primary: u16, watchdog: &Watchdog) -> Result<Recipe, Error> {
    let directory = watchdog.directory();
    let (port, master) = (free_port(), RedisSentinels::MASTER);
    let lines = format!(
        "bind 127.0.0.1\nport {port}\nprotected-mode no\n\
         sentinel monitor {master} 127.0.0.1 {primary} 2\n\
         sentinel down-after-milliseconds {master} 1000\n\
         sentinel failover-timeout {master} 5000\n"
    );
    // The sentinel writes down there what it learns.
    let file = directory.join("sentinel.conf");
    std::fs::write(&file, lines).map_err(Error::io("write sentinel.conf"))?;
    Ok(Recipe {
        program: Program {
            command: vec![program.into(), file.into(), "--sentinel".into()],
            log: directory.join("sentinel.log"),
        },
        port,
        ready_deadline: READY_DEADLINE,
        ready: |attempt| {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, attempt.port));
            redis_process(address) == Some(attempt.process)
        },
    })
}
