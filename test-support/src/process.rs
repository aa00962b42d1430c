//! One run of a server's process.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::error::{Error, tail};
use crate::watchdog::{Ward, Watchdog};

/// How often a process is looked at while something is waited for. A Redis is ready in 40 ms.
const POLL: Duration = Duration::from_millis(10);

/// Waits for word on its standard input before it becomes the program: the watchdog has heard of its
/// id by then. Should the test process die in between, the pipe closes and nothing is started.
const LAUNCHER: &str = r#"read -r go && exec "$@" </dev/null"#;

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// The program and its arguments.
    pub(crate) command: Vec<OsString>,
    /// Where its standard output and error go; added to at the end.
    pub(crate) log: PathBuf,
}

impl Program {
    /// The program's name, for messages.
    pub(crate) fn name(&self) -> String {
        let words = self.command.iter().map(|word| word.to_string_lossy());
        words.take(1).collect::<String>()
    }
}

/// A started process. It is waited for, once, before its id is forgotten: signals reach no stranger.
#[derive(Debug)]
pub(crate) struct Process {
    program: Program,
    child: Child,
}

impl Process {
    /// Starts `program` in the care of `watchdog`.
    pub(crate) fn start(program: &Program, watchdog: &mut Watchdog) -> Result<Self, Error> {
        let log = append(&program.log)?;
        let errors = log.try_clone().map_err(Error::io("share the log"))?;
        let mut child = Command::new("sh")
            .args(["-c", LAUNCHER, "polybus-test-launcher"])
            .args(&program.command)
            .current_dir(watchdog.directory())
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(Error::io(format!("start {}", program.name())))?;
        watchdog.guard(Ward::Process(child.id()))?;
        let mut launcher = child.stdin.take().expect("standard input is a pipe");
        writeln!(launcher, "go").map_err(Error::io(format!("start {}", program.name())))?;
        let program = program.clone();
        Ok(Self { program, child })
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How the process ended, or `None` while it runs.
    pub(crate) fn exit_status(&mut self) -> Result<Option<ExitStatus>, Error> {
        let status = self.child.try_wait();
        status.map_err(Error::io(format!("look at {}", self.program.name())))
    }

    /// Sends a signal, unless the process has ended.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        if self.exit_status()?.is_some() {
            return Ok(());
        }
        // Ended but not waited for, the process still has its id, and the signal has no effect.
        kill_process(self.raw_id(), signal)
            .map_err(|refused| Error::io(format!("signal {}", self.program.name()))(refused.into()))
    }

    /// Waits until a process that was sent SIGSTOP stands still, or has ended. One of its threads takes
    /// the signal up, and the others work on until it has had its turn on a busy machine.
    pub(crate) fn wait_stopped(&mut self, deadline: Duration) -> Result<(), Error> {
        let id = self.raw_id();
        let look = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let stopped = poll(deadline, || {
            if self.exit_status()?.is_some() {
                return Ok(true);
            }
            let status = waitid(WaitId::Pid(id), look);
            let status = status.map_err(|error| {
                Error::io(format!("look at {}", self.program.name()))(error.into())
            });
            status.map(|status| status.is_some())
        })?;
        if stopped {
            return Ok(());
        }
        Err(self.late("stopped", deadline))
    }

    fn raw_id(&self) -> Pid {
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        id.expect("the system gave this id")
    }

    /// Waits until the process has ended.
    pub(crate) fn wait(&mut self, deadline: Duration) -> Result<ExitStatus, Error> {
        let mut ended = None;
        poll(deadline, || {
            ended = self.exit_status()?;
            Ok(ended.is_some())
        })?;
        ended.ok_or_else(|| self.late("gone", deadline))
    }

    /// Waits until `ready` says so. An end of the process is an error at once.
    pub(crate) fn wait_ready(
        &mut self,
        deadline: Duration,
        mut ready: impl FnMut(u32) -> bool,
    ) -> Result<(), Error> {
        let in_time = poll(deadline, || match self.exit_status()? {
            Some(status) => Err(self.ended_early(status)),
            None => Ok(ready(self.id())),
        })?;
        if in_time {
            return Ok(());
        }
        Err(self.late("ready", deadline))
    }

    /// The error for an end that was not wanted.
    pub(crate) fn ended_early(&self, status: ExitStatus) -> Error {
        Error::Exited {
            program: self.program.name(),
            status,
            log: tail(&self.program.log),
        }
    }

    fn late(&self, wanted: &'static str, deadline: Duration) -> Error {
        Error::Deadline {
            program: self.program.name(),
            wanted,
            deadline,
            log: tail(&self.program.log),
        }
    }
}

/// Asks again and again until the answer is yes; `false` when it is not in time.
pub(crate) fn poll(
    deadline: Duration,
    mut ask: impl FnMut() -> Result<bool, Error>,
) -> Result<bool, Error> {
    let begin = Instant::now();
    loop {
        if ask()? {
            return Ok(true);
        }
        if begin.elapsed() >= deadline {
            return Ok(false);
        }
        thread::sleep(POLL);
    }
}

fn append(log: &PathBuf) -> Result<File, Error> {
    let file = OpenOptions::new().create(true).append(true).open(log);
    file.map_err(Error::io(format!("open {}", log.display())))
}
