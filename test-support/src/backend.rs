//! The ways in which a server runs, and what they have in common.

use std::path::PathBuf;
use std::sync::Arc;

use crate::docker::DockerServer;
use crate::error::Error;
use crate::external::ExternalServer;
use crate::native::NativeServer;

/// A server, whatever runs it.
#[derive(Debug)]
pub(crate) enum Backend {
    External(ExternalServer),
    Native(NativeServer),
    Docker(DockerServer),
}

/// What can be done to a server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Disruption {
    Kill,
    Pause,
    Resume,
    Stop,
    Restart,
}

impl Backend {
    /// Disrupts the server from an async function, without blocking its thread: a client under test may
    /// live on the same.
    pub(crate) async fn disrupt(self: &Arc<Self>, disruption: Disruption) -> Result<(), Error> {
        let backend = Arc::clone(self);
        unblock(move || backend.apply(disruption)).await
    }

    /// The id of the server's process, when it is one of ours and runs.
    pub(crate) fn process_id(&self) -> Option<u32> {
        match self {
            Self::External(_) | Self::Docker(_) => None,
            Self::Native(server) => server.process_id(),
        }
    }

    /// The directory of the server's files, when it is on this machine.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        match self {
            Self::External(_) => None,
            Self::Native(server) => Some(server.directory()),
            Self::Docker(server) => Some(server.directory()),
        }
    }

    fn apply(&self, disruption: Disruption) -> Result<(), Error> {
        match self {
            Self::External(server) => Err(server.refuse(disruption.name())),
            Self::Native(server) => match disruption {
                Disruption::Kill => server.kill(),
                Disruption::Pause => server.pause(),
                Disruption::Resume => server.resume(),
                Disruption::Stop => server.stop(),
                Disruption::Restart => server.restart(),
            },
            Self::Docker(server) => match disruption {
                Disruption::Kill => server.kill(),
                Disruption::Pause => server.pause(),
                Disruption::Resume => server.resume(),
                Disruption::Stop => server.stop(),
                Disruption::Restart => server.restart(),
            },
        }
    }
}

impl Disruption {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Stop => "stop",
            Self::Restart => "restart",
        }
    }
}

/// Runs blocking work on a thread of its own, for whatever runtime the test has.
///
/// Servers are started and disrupted by blocking code, so that one that is shared by a test binary
/// depends on no test's runtime.
pub(crate) async fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}
