//! The sessions of a publisher: each publishes one transaction at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use polybus_core::transport::{Outgoing, Position};
use polybus_core::{Effect, Error, ErrorKind, Result, Text};
use tokio::sync::{Semaphore, SemaphorePermit, TryAcquireError};
use tokio::time::{Instant, timeout_at};

use super::session::{Failed, Session};
use crate::client;
use crate::config::KafkaConfig;
use crate::error::Origin;
use crate::ids::{Id, Ids};

/// How many transactions are published at once. Further ones wait: each session costs the client
/// some threads and connections of its own.
const MOST_AT_ONCE: u32 = 4;

const OPERATION: &str = "publish_together";

/// The sessions of a publisher, made as they are needed.
#[derive(Debug)]
pub(super) struct Pool {
    config: Arc<KafkaConfig>,
    client_id: Text,
    origin: Origin,
    ids: Arc<Ids>,
    /// Those that nobody uses, the latest one last.
    idle: Mutex<Vec<Slot>>,
    places: Semaphore,
}

/// An id, and its session if there is one.
#[derive(Debug)]
struct Slot {
    id: Id,
    session: Option<Session>,
    /// The call that used it last was dropped, and what it had begun may still go on.
    interrupted: bool,
}

/// A slot in use. Dropped, it is idle again.
struct InUse<'a> {
    pool: &'a Pool,
    slot: Option<Slot>,
    _place: SemaphorePermit<'a>,
}

impl Pool {
    pub(super) fn new(
        config: Arc<KafkaConfig>,
        client_id: Text,
        origin: Origin,
        ids: Arc<Ids>,
    ) -> Self {
        Self {
            config,
            client_id,
            origin,
            ids,
            idle: Mutex::default(),
            places: Semaphore::new(MOST_AT_ONCE as usize),
        }
    }

    /// Stores all events, or none.
    pub(super) async fn publish(
        &self,
        batch: &[Outgoing],
        deadline: Instant,
    ) -> Result<Vec<Position>> {
        let mut used = self.take(deadline).await?;
        let slot = used.slot.as_mut().expect("taken in `drop` alone");
        let after_drop = std::mem::replace(&mut slot.interrupted, true);
        let mut stored = self.publish_once(slot, batch, deadline).await;
        if let Err(error) = &stored
            && after_drop
            && error.effect() == Effect::NotApplied
        {
            // What the dropped call had begun may have ended only now, and shut this session out.
            stored = self.publish_once(slot, batch, deadline).await;
        }
        slot.interrupted = false;
        stored
    }

    async fn publish_once(
        &self,
        slot: &mut Slot,
        batch: &[Outgoing],
        deadline: Instant,
    ) -> Result<Vec<Position>> {
        // Out of the slot for as long as it is at work: if this call is dropped, so is the session.
        let session = match slot.session.take() {
            Some(session) => session,
            None => {
                let id = slot.id.to_string();
                let client = client::transactional(&self.config, &self.client_id, &id);
                Session::open(&client, &self.origin, OPERATION, deadline).await?
            }
        };
        let error = match session.run(batch, None, deadline).await {
            Ok(positions) => {
                slot.session = Some(session);
                return Ok(positions);
            }
            Err(Failed::Aborted(error)) => {
                slot.session = Some(session);
                error
            }
            Err(Failed::Broken(error) | Failed::Undecided(error)) => error,
        };
        Err(error)
    }

    /// Waits for the transactions that are under way.
    pub(super) async fn flush(&self, deadline: Instant) -> Result<()> {
        match timeout_at(deadline, self.places.acquire_many(MOST_AT_ONCE)).await {
            // Closed, there are none.
            Ok(_) => Ok(()),
            Err(_) => {
                let why = "a transaction has no outcome at the deadline";
                Err(self.origin.error("flush", ErrorKind::Timeout, why))
            }
        }
    }

    /// Takes no more, and ends the sessions that nobody uses.
    pub(super) async fn close(&self, deadline: Instant) {
        self.places.close();
        let idle = std::mem::take(&mut *self.lock());
        let sessions = idle.into_iter().filter_map(|slot| slot.session);
        for mut stopped in sessions.map(Session::stop).collect::<Vec<_>>() {
            let _ = timeout_at(deadline, stopped.changed()).await;
        }
    }

    async fn take(&self, deadline: Instant) -> Result<InUse<'_>> {
        let place = match self.places.try_acquire() {
            Ok(place) => place,
            Err(TryAcquireError::Closed) => return Err(self.closed()),
            Err(TryAcquireError::NoPermits) => {
                let place = timeout_at(deadline, self.places.acquire()).await;
                let place = place.map_err(|_| self.busy())?;
                place.map_err(|_| self.closed())?
            }
        };
        let idle = self.lock().pop();
        let slot = idle.unwrap_or_else(|| Slot {
            id: self.ids.take("publish"),
            session: None,
            interrupted: false,
        });
        Ok(InUse {
            pool: self,
            slot: Some(slot),
            _place: place,
        })
    }

    fn busy(&self) -> Error {
        let why = "other transactions took until `delivery_deadline`";
        self.origin.error(OPERATION, ErrorKind::Timeout, why)
    }

    fn closed(&self) -> Error {
        let why = "the publisher is closed";
        self.origin.error(OPERATION, ErrorKind::Closed, why)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Slot>> {
        // A list can't be left half changed by a panic.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take()
            && !self.pool.places.is_closed()
        {
            self.pool.lock().push(slot);
        }
    }
}
