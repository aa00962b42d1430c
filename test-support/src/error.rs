//! What can go wrong with a server of a test.

use std::fmt;
use std::io;
use std::time::Duration;

/// Why a server of a test could not be started, reached or disrupted.
///
/// The text says what happened and, where something is missing, what to install. [`fmt::Debug`] writes
/// the same text, so that an `unwrap` in a test shows it readably.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program or file that the server needs is not on this machine.
    #[error("{server}: {missing} was not found; {install}")]
    NotInstalled {
        /// The server that needs it: `Redis` or `Kafka`.
        server: &'static str,
        /// The program or file that was looked for, and where.
        missing: String,
        /// What to install, and with which command.
        install: &'static str,
    },
    /// No way of starting the server worked.
    #[error("no {server} for the tests:\n  docker: {docker}\n  native: {native}")]
    NoServer {
        /// The server that was wanted: `Redis` or `Kafka`.
        server: &'static str,
        /// Why Docker was passed over.
        docker: Box<Error>,
        /// Why the server could not be run as a process.
        native: Box<Error>,
    },
    /// An environment variable that chooses the server cannot be used.
    #[error("{variable}={value:?}: {problem}")]
    Setting {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it, and what it should be.
        problem: &'static str,
    },
    /// The server was given from outside through an environment variable, so it is not ours to disrupt.
    #[error(
        "cannot {operation} the external {server} named by {variable}: \
         unset {variable} so that the tests start one of their own"
    )]
    External {
        /// What was to be done: `kill`, `pause`, `resume`, `stop` or `restart`.
        operation: &'static str,
        /// The server: `Redis` or `Kafka`.
        server: &'static str,
        /// The environment variable that names it.
        variable: &'static str,
    },
    /// The server named by an environment variable does not answer.
    #[error("{variable} names {address}, which does not accept connections: {source}")]
    Unreachable {
        /// The environment variable that names it.
        variable: &'static str,
        /// Host and port that were tried.
        address: String,
        /// Why the connection failed.
        source: io::Error,
    },
    /// The process ended before it was ready.
    #[error("{program} ended with {status} before it was ready; end of its log:\n{log}")]
    Exited {
        /// The program.
        program: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The last lines of its log.
        log: String,
    },
    /// The server did not get ready, or did not end, in time.
    #[error("{program} was not {wanted} after {} s; end of its log:\n{log}", deadline.as_secs())]
    Deadline {
        /// The program.
        program: String,
        /// What was waited for: `ready` or `gone`.
        wanted: &'static str,
        /// How long it was waited for.
        deadline: Duration,
        /// The last lines of its log.
        log: String,
    },
    /// The server does not run, so it cannot be paused or resumed.
    #[error("cannot {operation} {program}: it does not run; call restart() first")]
    NotRunning {
        /// What was to be done.
        operation: &'static str,
        /// The program.
        program: String,
    },
    /// A tool of the server failed.
    #[error("{tool} ended with {status}:\n{output}")]
    Tool {
        /// The tool's class or program.
        tool: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// What it wrote.
        output: String,
    },
    /// The Docker engine refused something or did not answer.
    #[error("cannot {doing}: {reason}")]
    Docker {
        /// What was being done.
        doing: String,
        /// What the engine answered.
        reason: String,
    },
    /// The operating system refused something.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system answered.
        source: io::Error,
    },
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    /// Makes an `io::Error` say what was being done.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// Whether a server could not start because somebody else has its port.
    pub(crate) fn is_port_clash(&self) -> bool {
        let text = match self {
            Self::Exited { log, .. } => log,
            Self::Docker { reason, .. } => reason,
            _ => return false,
        };
        let text = text.to_lowercase();
        ["address already in use", "port is already allocated"]
            .iter()
            .any(|clash| text.contains(clash))
    }
}

/// The last lines of a log, for an error message.
pub(crate) fn tail(log: &std::path::Path) -> String {
    const LINES: usize = 25;
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
