//! A server that was given from outside.

use std::time::Duration;

use crate::error::Error;
use crate::probe::knock;
use crate::process::poll;

/// An external server may still be starting, as in a CI job that has only just begun it.
const REACHABLE_DEADLINE: Duration = Duration::from_secs(15);

/// A server that somebody else runs. It can be used and not disrupted.
#[derive(Debug)]
pub(crate) struct ExternalServer {
    server: &'static str,
    variable: &'static str,
}

impl ExternalServer {
    /// Makes sure that one of `addresses` (`host:port`) accepts connections.
    pub(crate) fn reach(
        server: &'static str,
        variable: &'static str,
        addresses: &[String],
    ) -> Result<Self, Error> {
        let mut refused = None;
        let reachable = poll(REACHABLE_DEADLINE, || {
            for address in addresses {
                match knock(address) {
                    Ok(()) => return Ok(true),
                    Err(source) => refused = Some((address.clone(), source)),
                }
            }
            Ok(false)
        })?;
        match refused {
            Some((address, source)) if !reachable => Err(Error::Unreachable {
                variable,
                address,
                source,
            }),
            _ => Ok(Self { server, variable }),
        }
    }

    /// The error for what only the owner of a server can do.
    pub(crate) fn refuse(&self, operation: &'static str) -> Error {
        Error::External {
            operation,
            server: self.server,
            variable: self.variable,
        }
    }
}
