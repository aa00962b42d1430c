//! A server that runs as a process of this machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use uuid::Uuid;

use crate::error::Error;
use crate::probe::log_from;
use crate::process::{Process, Program};
use crate::watchdog::Watchdog;

/// How long a server may take to end. Kafka takes two seconds when it is asked to (SIGTERM).
const END_DEADLINE: Duration = Duration::from_secs(30);

/// How often a server is started on new ports when somebody was quicker on the old ones.
const PORT_ATTEMPTS: usize = 3;

/// How to run a server.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// The program, once its files are in place.
    pub(crate) program: Program,
    /// The port that clients use.
    pub(crate) port: u16,
    /// How long it may take until it is ready.
    pub(crate) ready_deadline: Duration,
    /// Whether the server that listens is this one and serves.
    pub(crate) ready: fn(&Attempt) -> bool,
}

/// One start of a server, for the question whether it is ready.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// The port that clients use.
    pub(crate) port: u16,
    /// The id of the process that was started.
    pub(crate) process: u32,
    /// What it has logged since it was started.
    pub(crate) log: String,
}

/// A server of our own and everything that it left in its directory.
#[derive(Debug)]
pub(crate) struct NativeServer {
    recipe: Recipe,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    process: Option<Process>,
    watchdog: Watchdog,
}

impl NativeServer {
    /// Prepares a directory, then starts the server in it and waits until it is ready. Other ports are
    /// tried when one is taken.
    pub(crate) fn start(
        name: &str,
        prepare: impl Fn(&mut Watchdog) -> Result<Recipe, Error>,
    ) -> Result<Self, Error> {
        retry_on_clash(|| Self::start_once(name, &prepare))
    }

    /// The port that clients use.
    pub(crate) fn port(&self) -> u16 {
        self.recipe.port
    }

    /// The id of the process, while it runs.
    pub(crate) fn process_id(&self) -> Option<u32> {
        self.state().process.as_ref().map(Process::id)
    }

    /// The directory of the server's files.
    pub(crate) fn directory(&self) -> PathBuf {
        self.state().watchdog.directory().to_path_buf()
    }

    /// Ends the server with SIGKILL.
    pub(crate) fn kill(&self) -> Result<(), Error> {
        self.state().end(Signal::KILL)
    }

    /// Ends the server with SIGTERM, so that it can put its things in order.
    pub(crate) fn stop(&self) -> Result<(), Error> {
        self.state().end(Signal::TERM)
    }

    /// Stops the process where it is; its connections stay open and are not answered.
    pub(crate) fn pause(&self) -> Result<(), Error> {
        self.signal("pause", Signal::STOP)?;
        match self.state().running()? {
            Some(process) => process.wait_stopped(END_DEADLINE),
            None => Ok(()),
        }
    }

    /// Lets a paused process go on.
    pub(crate) fn resume(&self) -> Result<(), Error> {
        self.signal("resume", Signal::CONT)
    }

    /// Starts the server again, on its port and its data, and waits until it is ready.
    pub(crate) fn restart(&self) -> Result<(), Error> {
        let mut state = self.state();
        state.end(Signal::TERM)?;
        state.begin(&self.recipe)
    }

    fn start_once(
        name: &str,
        prepare: impl Fn(&mut Watchdog) -> Result<Recipe, Error>,
    ) -> Result<Self, Error> {
        let mut watchdog = Watchdog::start(new_directory(name))?;
        let recipe = prepare(&mut watchdog)?;
        let mut state = State {
            process: None,
            watchdog,
        };
        state.begin(&recipe)?;
        let state = Mutex::new(state);
        Ok(Self { recipe, state })
    }

    fn signal(&self, operation: &'static str, signal: Signal) -> Result<(), Error> {
        match self.state().running()? {
            Some(process) => process.signal(signal),
            None => Err(Error::NotRunning {
                operation,
                program: self.recipe.program.name(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn begin(&mut self, recipe: &Recipe) -> Result<(), Error> {
        let already_logged = std::fs::metadata(&recipe.program.log).map_or(0, |log| log.len());
        let process = Process::start(&recipe.program, &mut self.watchdog)?;
        let process = self.process.insert(process);
        let ready = process.wait_ready(recipe.ready_deadline, |id| {
            (recipe.ready)(&Attempt {
                port: recipe.port,
                process: id,
                log: log_from(&recipe.program.log, already_logged),
            })
        });
        if ready.is_err() {
            self.end(Signal::KILL)?;
        }
        ready
    }

    fn end(&mut self, signal: Signal) -> Result<(), Error> {
        let Some(process) = self.running()? else {
            return Ok(());
        };
        process.signal(signal)?;
        // A paused process takes the signal only when it goes on.
        process.signal(Signal::CONT)?;
        process.wait(END_DEADLINE)?;
        self.forget()
    }

    /// The process, unless it has ended.
    fn running(&mut self) -> Result<Option<&mut Process>, Error> {
        let ended = match &mut self.process {
            Some(process) => process.exit_status()?.is_some(),
            None => false,
        };
        if ended {
            self.forget()?;
        }
        Ok(self.process.as_mut())
    }

    /// Forgets a process that has ended: its id may be somebody else's from now on.
    fn forget(&mut self) -> Result<(), Error> {
        self.process = None;
        self.watchdog.release()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // Should it fail, the watchdog, which is dropped next, does the same.
        let _ = self.end(Signal::KILL);
    }
}

/// Starts a server once more, on other ports, when somebody was quicker on the first.
pub(crate) fn retry_on_clash<S>(start: impl Fn() -> Result<S, Error>) -> Result<S, Error> {
    for _ in 1..PORT_ATTEMPTS {
        match start() {
            Err(clash) if clash.is_port_clash() => {}
            outcome => return outcome,
        }
    }
    start()
}

/// Where the server's files go. Made by the watchdog's owner, see [`Watchdog::start`].
pub(crate) fn new_directory(name: &str) -> PathBuf {
    let id = Uuid::new_v4().simple().to_string();
    std::env::temp_dir().join(format!("polybus-{name}-{}", &id[..12]))
}

/// The program `name` in `PATH`.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    let path: OsString = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(name));
    places.find(|place| is_program(place))
}

fn is_program(place: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let found = place.metadata();
    found.is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}
