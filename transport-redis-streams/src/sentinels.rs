//! Finding the server that takes writes by asking sentinels.

use std::fmt;

use polybus_core::{Effect, ErrorKind, Result, Text};
use tokio::time::{Instant, timeout_at};

use crate::client::{Client, Cmd, Value};
use crate::connection::Connection;
use crate::reply;

/// Sentinels, and what they call the server.
pub(crate) struct Sentinels {
    servers: Vec<Client>,
    master: Text,
}

impl Sentinels {
    pub(crate) fn new(servers: Vec<Client>, master: Text) -> Self {
        Self { servers, master }
    }

    /// Connects `client` to the server that takes writes. A sentinel that does not answer, does not
    /// know or is behind the times keeps none of the others from being asked.
    pub(crate) async fn open_primary(&self, client: &Client) -> Result<Connection> {
        let count = u32::try_from(self.servers.len()).unwrap_or(u32::MAX);
        // So that the last one is asked before the attempt as a whole ends.
        let patience = client.connect_deadline() / count.saturating_add(1);
        let origin = client.origin();
        let mut failed = origin.unreachable("there are no sentinels");
        for sentinel in &self.servers {
            let deadline = Instant::now() + patience;
            match timeout_at(deadline, self.open_by(sentinel, client)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => failed = error,
                Err(_) => {
                    let address = &sentinel.origin().address;
                    failed = origin.unreachable(&format!(
                        "the sentinel at {address}, or the server that it names, did not answer in time"
                    ));
                }
            }
        }
        Err(failed)
    }

    async fn open_by(&self, sentinel: &Client, client: &Client) -> Result<Connection> {
        // The caller ends it earlier.
        let deadline = Instant::now() + client.connect_deadline();
        let connection = sentinel.open_directly().await?;
        let mut command = Cmd::new();
        command.arg("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME");
        command.arg(self.master.as_str());
        let origin = sentinel.origin();
        let reply = connection.call(&command, deadline).await;
        let reply = reply.map_err(|failure| {
            let error = origin.error(failure, "connect");
            error.with_effect(Effect::NotApplied)
        })?;
        if reply == Value::Nil {
            let error = origin.plain(
                ErrorKind::Connect,
                format!(
                    "the sentinel at {} knows no `{}`",
                    origin.address, self.master
                ),
            );
            return Err(error
                .with_operation("connect")
                .with_note("is `master` right?"));
        }
        let (host, port) = address(reply).ok_or_else(|| origin.malformed("connect"))?;
        client.at(host, port).open_directly().await
    }
}

impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` of the sentinels", self.master)?;
        for sentinel in &self.servers {
            write!(f, " {}", sentinel.origin().address)?;
        }
        Ok(())
    }
}

/// `[host, port]`
fn address(reply: Value) -> Option<(String, u16)> {
    let reply = reply::array(reply)?;
    let port = u16::try_from(reply::number(reply.get(1)?)?).ok()?;
    Some((reply::text(reply.first()?)?, port))
}
