//! The processes of a run.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Duration, timeout};

use crate::Failure;
use crate::journal::{Journal, Step};
use crate::task::{CrashPoint, Task};

/// How long a process may take to end in good order; its own deadline is 10 s.
const END_WITHIN: Duration = Duration::from_secs(25);

/// A producer or a consumer, through all its lives.
#[derive(Debug)]
pub(crate) struct Role {
    name: &'static str,
    task: Task,
    child: Option<Child>,
    /// Open for as long as the process is to live: waiting for it would close one of its own.
    pipe: Option<ChildStdin>,
}

/// Ends this process when the one that started it is gone: its end of the pipe closes.
pub(crate) fn end_with_parent() {
    tokio::spawn(async {
        let mut nothing = [0];
        let _ = tokio::io::stdin().read(&mut nothing).await;
        std::process::exit(3);
    });
}

impl Role {
    pub(crate) fn new(name: &'static str, task: Task) -> Self {
        Self {
            name,
            task,
            child: None,
            pipe: None,
        }
    }

    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.name, self.task.slot)
    }

    /// Starts the next life.
    pub(crate) fn start(&mut self, crash: Option<CrashPoint>) -> Result<(), Failure> {
        self.task.life += 1;
        self.task.crash = crash;
        let word = if self.name == "producer" {
            "produce"
        } else {
            "consume"
        };
        let log = self.task.directory.join(format!("{}.log", self.name()));
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)?;
        let mut child = Command::new(std::env::current_exe()?)
            .args([word, &serde_json::to_string(&self.task)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        self.pipe = child.stdin.take();
        self.child = Some(child);
        Ok(())
    }

    /// Lets its later lives make poison, or not.
    pub(crate) fn set_poison(&mut self, poison: bool) {
        self.task.poison = poison;
    }

    /// Lets its next life, or no later one, publish an event that ends every process that handles it.
    pub(crate) fn set_deadly(&mut self, deadly: bool) {
        self.task.deadly = deadly;
    }

    /// Ends it by SIGKILL.
    pub(crate) async fn kill(&mut self) -> Result<(), Failure> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Ends it by SIGTERM. Whether it ended in good order and in time.
    pub(crate) async fn stop(&mut self) -> Result<bool, Failure> {
        let Some(mut child) = self.child.take() else {
            return Ok(true);
        };
        send(&child, Signal::TERM);
        match timeout(END_WITHIN, child.wait()).await {
            Ok(status) => Ok(status?.success()),
            Err(_) => {
                child.kill().await?;
                Ok(false)
            }
        }
    }

    /// Halts it where it is, or lets it go on.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            send(child, signal);
        }
    }

    /// Waits until it has ended by itself, as at a crash point; kills it if it does not.
    pub(crate) async fn ended(&mut self, within: Duration) -> Result<(), Failure> {
        if let Some(child) = &mut self.child
            && let Ok(status) = timeout(within, child.wait()).await
        {
            status?;
            self.child = None;
        }
        self.kill().await
    }

    /// Starts it again if it has ended though nobody asked it to.
    pub(crate) fn revive(&mut self, journal: &Journal) -> Result<(), Failure> {
        let status = match &mut self.child {
            None => return self.start(None),
            Some(child) => child.try_wait()?,
        };
        if let Some(status) = status {
            journal.note(Step::Died {
                role: self.name(),
                status: status.to_string(),
            });
            self.start(None)?;
        }
        Ok(())
    }

    /// Notes how large it is.
    pub(crate) fn measure(&self, journal: &Journal) {
        let Some(id) = self.child.as_ref().and_then(Child::id) else {
            return;
        };
        let memory = std::fs::read_to_string(format!("/proc/{id}/statm")).unwrap_or_default();
        let pages = memory
            .split(' ')
            .nth(1)
            .and_then(|it| it.parse::<u64>().ok());
        let files = std::fs::read_dir(format!("/proc/{id}/fd"));
        if let (Some(pages), Ok(files)) = (pages, files) {
            journal.note(Step::Size {
                role: format!("{}-{}", self.name(), self.task.life),
                resident: pages * rustix::param::page_size() as u64,
                files: files.count() as u64,
            });
        }
    }
}

fn send(child: &Child, signal: Signal) {
    let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    if let Some(id) = id {
        // An error: it has ended, which is seen elsewhere.
        let _ = kill_process(id, signal);
    }
}
