use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::time::{sleep, timeout};

use super::{Control, Shutdown};
use crate::backoff;
use crate::topic::TopicPrefix;
use crate::transport::{
    AckToken, Capabilities, Delivery, DynAdmin, DynPublisher, DynSettler, DynSubscriber,
    Settlement, Settler, Subscriber,
};
use crate::{Error, ErrorKind, Result, Text, Topic};

/// How long one settle call may take before it counts as failed and is made again.
const SETTLE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// What a subscription reads on one transport, and where its dead letters go.
pub struct Source {
    /// The transport's name in the config.
    pub transport: Text,
    /// What stands before the names of the transport's topics.
    pub prefix: TopicPrefix,
    /// The topics that were named. It may read others that discovery finds.
    pub topics: Vec<Topic>,
    /// Reads.
    pub subscriber: DynSubscriber,
    /// Publishes dead letters.
    pub publisher: DynPublisher,
    /// Creates the topics of dead letters.
    pub admin: DynAdmin,
    /// What the transport can do.
    pub capabilities: Capabilities,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

/// Owns a subscriber, also while it reads: reading is a future that gives the reader back.
pub(super) struct Reader {
    pub(super) source: usize,
    pub(super) subscriber: DynSubscriber,
    failures: u32,
}

pub(super) enum Read {
    Deliveries(Vec<Delivery>),
    /// The reader can go on after a pause, which the next read makes.
    Failed(Error),
    /// The subscription stops, or pauses.
    Stopped,
}

impl Reader {
    pub(super) fn new(source: usize, subscriber: DynSubscriber) -> Self {
        Self {
            source,
            subscriber,
            failures: 0,
        }
    }

    /// Reads once, after a pause if the last read failed. Ends early when a stop or a pause of the
    /// subscription is requested, without losing a delivery, as `recv` is cancel safe.
    pub(super) async fn read(
        mut self,
        max: usize,
        shutdown: Shutdown,
        control: Arc<Control>,
    ) -> (Self, Read) {
        let reading = async {
            if self.failures > 0 {
                sleep(backoff::reconnect(self.failures)).await;
            }
            self.subscriber.recv(max).await
        };
        let read = tokio::select! {
            biased;
            () = shutdown.requested() => Read::Stopped,
            () = control.paused() => Read::Stopped,
            received = reading => received.map_or_else(Read::Failed, Read::Deliveries),
        };
        match &read {
            Read::Failed(_) => self.failures = self.failures.saturating_add(1),
            Read::Deliveries(_) => self.failures = 0,
            Read::Stopped => {}
        }
        (self, read)
    }
}

pub(super) type Batch = Vec<(AckToken, Settlement)>;

/// The settlements of one source: collected, and sent one batch at a time.
pub(super) struct Settlements {
    source: usize,
    settler: DynSettler,
    waiting: Batch,
    sending: bool,
    failures: u32,
}

/// What came of a batch of settlements.
pub(super) struct Settled {
    pub(super) source: usize,
    pub(super) batch: Batch,
    pub(super) results: Vec<Result<()>>,
}

impl Settlements {
    pub(super) fn new(source: usize, settler: DynSettler) -> Self {
        Self {
            source,
            settler,
            waiting: Vec::new(),
            sending: false,
            failures: 0,
        }
    }

    pub(super) fn is_current(&self, token: AckToken) -> bool {
        self.settler.is_current(token)
    }

    pub(super) fn settler(&self) -> &DynSettler {
        &self.settler
    }

    pub(super) fn push(&mut self, token: AckToken, settlement: Settlement) {
        self.waiting.push((token, settlement));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && !self.sending
    }

    /// Sends what is waiting, if there is something and no batch is out.
    pub(super) fn send(&mut self) -> Option<BoxFuture<'static, Settled>> {
        if self.sending || self.waiting.is_empty() {
            return None;
        }
        self.sending = true;
        let batch = std::mem::take(&mut self.waiting);
        let (source, settler, failures) = (self.source, self.settler.clone(), self.failures);
        Some(Box::pin(async move {
            if failures > 0 {
                sleep(backoff::reconnect(failures)).await;
            }
            let results = timeout(SETTLE_TIMEOUT, settler.settle(&batch)).await;
            let results = results.unwrap_or_else(|_| batch.iter().map(|_| Err(late())).collect());
            Settled {
                source,
                batch,
                results,
            }
        }))
    }

    /// Notes that the batch is back, and whether it is to be tried again after a pause.
    pub(super) fn sent(&mut self, again: bool) {
        self.sending = false;
        self.failures = if again {
            self.failures.saturating_add(1)
        } else {
            0
        };
    }
}

fn late() -> Error {
    Error::new(
        ErrorKind::Timeout,
        format!("no answer within {SETTLE_TIMEOUT:?}"),
    )
    .with_operation("settle")
}

/// The error for a settlement that the transport passed over.
pub(super) fn missing_result() -> Error {
    Error::new(
        ErrorKind::Transport,
        "the transport reported no result for a settlement",
    )
    .with_operation("settle")
}
