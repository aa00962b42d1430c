//! The thread that writes positions.
//!
//! The client tells the outcome of a commit only to a call that blocks until it is known. That
//! must not be the thread that polls: a coordinator that is away would stop its reading.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::RDKafkaErrorCode;

use super::context::Events;
use super::shared::Shared;
use crate::asking::{self, Partition};
use crate::error::code_of;

/// Positions to be written, each the offset to go on from.
type Positions = Vec<(Partition, i64)>;

/// Writes one set of positions after the other.
pub(super) struct Committer {
    orders: Option<SyncSender<Positions>>,
    answers: Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
    /// There is an order without an answer.
    pub(super) is_busy: bool,
}

/// What became of a set of positions.
pub(super) struct Answer {
    pub(super) positions: Positions,
    pub(super) error: Option<RDKafkaErrorCode>,
}

impl Committer {
    pub(super) fn new(
        consumer: Arc<BaseConsumer<Events>>,
        shared: Arc<Shared>,
    ) -> std::io::Result<Self> {
        // One order at a time: neither channel ever holds more.
        let (orders, given) = sync_channel::<Positions>(1);
        let (answer, answers) = sync_channel(1);
        let thread = thread::Builder::new().name("polybus-kafka-commit".to_owned());
        let thread = thread.spawn(move || {
            for positions in given {
                let error = asking::commit_once(&consumer, &positions).err();
                let error = error.map(|e| code_of(&e).unwrap_or(RDKafkaErrorCode::Fail));
                if answer.send(Answer { positions, error }).is_err() {
                    break;
                }
                shared.wake_thread();
            }
        })?;
        Ok(Self {
            orders: Some(orders),
            answers,
            thread: Some(thread),
            is_busy: false,
        })
    }

    /// Gives an order. There must be none without an answer.
    pub(super) fn commit(&mut self, positions: Positions) {
        let sent = self
            .orders
            .as_ref()
            .is_some_and(|o| o.try_send(positions).is_ok());
        debug_assert!(sent, "one order at a time, to a thread that lives");
        self.is_busy = sent;
    }

    /// The answer, if it is there.
    pub(super) fn answer(&mut self) -> Option<Answer> {
        let answer = self.answers.try_recv().ok()?;
        self.is_busy = false;
        Some(answer)
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // Its panic would be one of the client.
            let _ = thread.join();
        }
    }
}
