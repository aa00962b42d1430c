//! Publishing several events all or none.

use std::future::Future;
use std::sync::Arc;

use crate::bus::{Bus, closed};
use crate::transport::Transport;
use crate::{Error, ErrorKind, Result, Text, Transaction};

impl Bus {
    /// Publishes what the closure publishes in the transaction, on topics of one transport: all of
    /// it if the closure returns `Ok`, nothing if it returns `Err` or is dropped.
    ///
    /// The events wait in memory until the closure has ended and go to the server then, in one
    /// step. Of their routes' settings `validate` holds, and `retry` and `on_unknown` of the first
    /// event's; they pass by batches, `rate_limit`, `dedup`, `circuit_breaker`, `timeout` and
    /// `fallback`, and are not kept in [`failed`](Self::failed). They stand behind what was
    /// published before the call and has its outcome, and their order among each other is that in
    /// which they were published in the transaction.
    ///
    /// ```no_run
    /// # use polybus::{Bus, Event};
    /// # #[derive(Event, serde::Serialize, serde::Deserialize)]
    /// # #[event(type = "deal.closed")]
    /// # struct DealClosed {}
    /// # async fn example(bus: Bus, a: DealClosed, b: DealClosed) -> polybus::Result<()> {
    /// bus.transaction("kafka", async |tx| {
    ///     tx.publish(a).await?;
    ///     tx.publish(b).await
    /// })
    /// .await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The closure's; that of an event that was
    /// [refused](Transaction::publish), even if the closure passed over it;
    /// [`Config`](ErrorKind::Config) for a transport that is not in the config,
    /// [`Unsupported`](ErrorKind::Unsupported) for one without transactions; those of the transport.
    /// With an [effect](Error::effect) that is unknown, everything may be stored, or nothing; with
    /// any other error nothing is.
    ///
    /// # Cancel safety
    ///
    /// Dropped before the closure has ended, nothing is published; later, all or nothing.
    pub async fn transaction<T, F, Fut>(&self, transport: &str, work: F) -> Result<T>
    where
        F: FnOnce(Transaction) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        if self.is_closed() {
            return Err(closed());
        }
        let inner = &self.inner;
        let Some(connected) = inner.transports.get(transport) else {
            return Err(unknown(transport, inner.transports.keys()));
        };
        if !connected.transport.capabilities().transactions {
            let message = "the transport has no transactions";
            return Err(Error::new(ErrorKind::Unsupported, message)
                .with_operation("transaction")
                .with_transport(transport));
        }
        let transaction = Transaction::new(Arc::clone(&inner.prepare), transport);
        let working = work(transaction.clone());
        inner.publishing.transact(transaction, working).await
    }
}

fn unknown<'a>(transport: &str, known: impl Iterator<Item = &'a Text>) -> Error {
    let known: Vec<_> = known.map(|name| format!("`{name}`")).collect();
    Error::new(
        ErrorKind::Config,
        format!("there is no transport `{transport}` in the config"),
    )
    .with_operation("transaction")
    .with_note(format!("there are {}", known.join(", ")))
}
