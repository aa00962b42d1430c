//! The process that ends a server when the test process is gone.

use std::fmt;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::error::Error;

/// What the watchdog does is written here, with its reasons.
const SCRIPT: &str = include_str!("watchdog.sh");

/// A running watchdog. Dropping it ends what it guards and removes the directory, as the death of the
/// test process does.
#[derive(Debug)]
pub(crate) struct Watchdog {
    process: Child,
    directory: PathBuf,
}

/// What a watchdog ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ward<'a> {
    /// A process, by its id.
    Process(u32),
    /// A container, by its name. It need not exist yet.
    Container(&'a str),
}

impl fmt::Display for Ward<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(id) => write!(f, "process {id}"),
            Self::Container(name) => write!(f, "container {name}"),
        }
    }
}

impl Watchdog {
    /// Starts a watchdog and then makes the directory: there is no moment in which the directory is
    /// there and nobody is about to remove it.
    pub(crate) fn start(directory: PathBuf) -> Result<Self, Error> {
        let process = Command::new("sh")
            .args(["-c", SCRIPT, "polybus-test-watchdog"])
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Out of the terminal's process group, which Ctrl-C signals as a whole.
            .process_group(0)
            .spawn()
            .map_err(Error::io("start the watchdog (sh)"))?;
        std::fs::create_dir(&directory)
            .map_err(Error::io(format!("create {}", directory.display())))?;
        Ok(Self { process, directory })
    }

    /// The directory that goes with the server.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// From now on `ward` ends with the test process, in place of what was guarded before.
    pub(crate) fn guard(&mut self, ward: Ward<'_>) -> Result<(), Error> {
        self.order(&format!("guard {ward}"))
    }

    /// From now on only the directory is removed.
    ///
    /// Must be called as soon as a process has been waited for: its id may be somebody else's then.
    pub(crate) fn release(&mut self) -> Result<(), Error> {
        self.order("release")
    }

    fn order(&mut self, line: &str) -> Result<(), Error> {
        let pipe = self.process.stdin.as_mut();
        let pipe = pipe.expect("the pipe is taken only in drop");
        writeln!(pipe, "{line}").map_err(Error::io("give the watchdog an order: it is gone"))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        // The script bounds its own time. An error here has nobody left to be told.
        let _ = self.process.wait();
    }
}
