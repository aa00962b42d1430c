//! Positions of a group that are stored together with events, in one transaction.

use std::sync::{Arc, Weak};
use std::time::Duration;

use polybus_core::transport::{AckToken, Outgoing, Position};
use polybus_core::{Effect, Error, ErrorKind, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout_at};

use super::context::Events;
use super::shared::{Plan, Shared, Unplanned};
use crate::asking::{self, PAUSE, Partition};
use crate::client::Transactional;
use crate::error::Origin;
use crate::ids::Id;
use crate::publisher::{Failed, Offsets, Session};

const OPERATION: &str = "settle_together";

/// Stores what a member has done and what comes of it.
///
/// The member's own producer, whose transactional id is that of the group: a member that starts
/// again in the place of a dead one shuts it out before it reads.
#[derive(Debug)]
pub(crate) struct Steps {
    shared: Arc<Shared>,
    origin: Origin,
    client: Transactional,
    delivery_deadline: Duration,
    state: Mutex<State>,
    /// Taken for as long as the member may publish.
    _id: Id,
}

#[derive(Debug, Default)]
struct State {
    session: Option<Session>,
    /// A step of which nobody knows whether it was stored.
    undecided: Option<Undecided>,
}

#[derive(Debug)]
struct Undecided {
    acks: Vec<AckToken>,
    next: Vec<(Partition, i64)>,
}

/// Why a step was not stored.
enum Refused {
    ForGood(Error),
    /// The group may be about to say something else.
    ForNow(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::ForGood(error)
    }
}

impl Steps {
    /// Makes the producer, which ends what its predecessor left open.
    pub(super) async fn new(
        shared: Arc<Shared>,
        origin: Origin,
        client: Transactional,
        delivery_deadline: Duration,
        id: Id,
        deadline: Instant,
    ) -> Result<Self> {
        let session = Session::open(&client, &origin, "subscribe", deadline).await?;
        Ok(Self {
            shared,
            origin,
            client,
            delivery_deadline,
            state: Mutex::new(State {
                session: Some(session),
                undecided: None,
            }),
            _id: id,
        })
    }

    /// Acknowledges and publishes, all or none.
    pub(crate) async fn settle(
        &self,
        acks: &[AckToken],
        batch: &[Outgoing],
    ) -> Result<Vec<Position>> {
        let deadline = Instant::now() + self.delivery_deadline;
        let Ok(mut state) = timeout_at(deadline, self.state.lock()).await else {
            let why = "another step took until `delivery_deadline`";
            return Err(self.origin.error(OPERATION, ErrorKind::Timeout, why));
        };
        loop {
            self.find_out(&mut state, deadline).await?;
            match self.attempt(&mut state, acks, batch, deadline).await {
                Ok(positions) => return Ok(positions),
                // The group is being shared out anew: its next generation may still have us.
                Err(Refused::ForNow(_)) if Instant::now() + PAUSE < deadline => sleep(PAUSE).await,
                Err(Refused::ForNow(error) | Refused::ForGood(error)) => return Err(error),
            }
        }
    }

    /// Acknowledges and publishes, if nothing is undecided.
    async fn attempt(
        &self,
        state: &mut State,
        acks: &[AckToken],
        batch: &[Outgoing],
        deadline: Instant,
    ) -> Result<Vec<Position>, Refused> {
        if state.session.is_none() {
            state.session = Some(self.session(deadline).await?);
        }
        // In this order: what the member knows of the group is then no newer than what it knows of
        // its partitions.
        let member = self.member().await?;
        let next = match self.shared.plan(acks) {
            Ok(Plan::Done) => return Ok(vec![unknown_position(); batch.len()]),
            Ok(Plan::Next(next)) => next,
            Err(unplanned) => return Err(self.unplanned(unplanned).into()),
        };
        let offsets = match (next.is_empty(), member) {
            (true, _) => None,
            (false, None) => return Err(self.unplanned(Unplanned::NotOwned).into()),
            (false, Some(member)) => Some(Offsets {
                positions: list(&next).map_err(|error| self.origin.client(OPERATION, error))?,
                member,
            }),
        };
        // Out of the state for as long as it is at work: a call that is dropped leaves the step
        // undecided, and no session.
        let session = state.session.take();
        let session = session.expect("it was made above");
        let acks = acks.to_vec();
        state.undecided = Some(Undecided { acks, next });
        let error = match session.run(batch, offsets, deadline).await {
            Ok(positions) => {
                state.session = Some(session);
                self.done(state);
                return Ok(positions);
            }
            Err(Failed::Undecided(error)) => return Err(error.into()),
            Err(Failed::Aborted(error)) => {
                state.session = Some(session);
                error
            }
            Err(Failed::Broken(error)) => error,
        };
        state.undecided = None;
        Err(match error.kind() {
            ErrorKind::Stale => Refused::ForNow(error),
            _ => Refused::ForGood(error),
        })
    }

    /// Finds out whether the last step was stored, if nobody knows: its positions are then the
    /// group's.
    async fn find_out(&self, state: &mut State, deadline: Instant) -> Result<()> {
        let Some(undecided) = &state.undecided else {
            return Ok(());
        };
        let unknown = |error: Error| error.with_effect(Effect::Unknown);
        // A new session ends the transaction, one way or the other.
        state.session = None;
        let session = self.session(deadline).await.map_err(unknown)?;
        let partitions: Vec<_> = undecided.next.iter().map(|(it, _)| it.clone()).collect();
        let within = deadline.saturating_duration_since(Instant::now());
        let consumer = self.shared.consumer();
        let asked = move || {
            Some(asking::committed(
                &*consumer?.upgrade()?,
                &partitions,
                within,
            ))
        };
        let committed = match spawn_blocking(asked).await {
            Ok(Some(Ok(committed))) => committed,
            Ok(Some(Err(error))) => return Err(unknown(self.origin.client(OPERATION, error))),
            Ok(None) | Err(_) => return Err(unknown(self.gone())),
        };
        state.session = Some(session);
        let mut reached = undecided.next.iter().zip(committed);
        let stored = reached.all(|((_, next), committed)| committed.is_some_and(|it| it >= *next));
        match stored {
            true => self.done(state),
            false => state.undecided = None,
        }
        Ok(())
    }

    /// Notes that the last step was stored.
    fn done(&self, state: &mut State) {
        if let Some(undecided) = state.undecided.take() {
            self.shared.settled_together(&undecided.acks);
        }
    }

    async fn session(&self, deadline: Instant) -> Result<Session> {
        Session::open(&self.client, &self.origin, OPERATION, deadline).await
    }

    /// How the group knows this member; `None` if it does not any more.
    async fn member(&self) -> Result<Option<rdkafka::consumer::ConsumerGroupMetadata>> {
        let consumer = self.shared.consumer();
        let asked = move || {
            let consumer = consumer?.upgrade()?;
            let member = consumer.group_metadata();
            // Asked for behind it: a member that has lost its partitions has also lost its name.
            (!consumer.assignment_lost()).then_some(member)?
        };
        spawn_blocking(asked).await.map_err(|_| self.gone())
    }

    fn unplanned(&self, unplanned: Unplanned) -> Error {
        match unplanned {
            Unplanned::NotOwned => {
                let why = "a delivery belongs to another member by now";
                self.origin.error(OPERATION, ErrorKind::Stale, why)
            }
            Unplanned::Gap(topic) => {
                let why = "an earlier delivery of the partition is not settled";
                let error = self.origin.error(OPERATION, ErrorKind::Config, why);
                error.with_topic(topic.name())
            }
        }
    }

    fn gone(&self) -> Error {
        let why = "the subscriber has ended";
        self.origin.error(OPERATION, ErrorKind::Closed, why)
    }
}

/// The position of an event of a step that was stored and whose answer was lost.
fn unknown_position() -> Position {
    Position::new(u32::MAX, u64::MAX)
}

fn list(next: &[(Partition, i64)]) -> rdkafka::error::KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(next.len());
    for ((topic, partition), offset) in next {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    Ok(list)
}

/// A consumer that lives on its member's thread.
pub(super) type Handle = Weak<BaseConsumer<Events>>;
