//! The bound of what a bus holds that has no outcome yet.

use std::sync::Arc;

use tokio::sync::{Semaphore, TryAcquireError};

use crate::config::PublishingConfig;
use crate::{Error, ErrorKind, Result};

/// How many events and bytes may be waiting or sent without an outcome.
#[derive(Debug)]
pub(super) struct Room {
    events: Semaphore,
    bytes: Semaphore,
    max_events: u32,
    max_bytes: u32,
}

/// Room that was taken and not yet given to an event. Dropped, it is free again.
#[derive(Debug)]
pub(super) struct Taken {
    room: Arc<Room>,
    events: u32,
    bytes: u32,
}

impl Room {
    pub(super) fn new(config: &PublishingConfig) -> Self {
        Self {
            events: Semaphore::new(config.max_queued_events as usize),
            bytes: Semaphore::new(config.max_queued_bytes as usize),
            max_events: config.max_queued_events,
            max_bytes: config.max_queued_bytes,
        }
    }

    /// What an event of a size takes: no more than there is, so that any event can go.
    pub(super) fn charge(&self, size: usize) -> u32 {
        u32::try_from(size).map_or(self.max_bytes, |size| size.min(self.max_bytes))
    }

    pub(super) fn limits(&self) -> (u32, u32) {
        (self.max_events, self.max_bytes)
    }

    /// # Errors
    ///
    /// [`ErrorKind::Full`] or [`ErrorKind::Closed`].
    pub(super) fn try_take(&self, events: u32, bytes: u32) -> Result<()> {
        let refused = |error| match error {
            TryAcquireError::Closed => closed(),
            TryAcquireError::NoPermits => self.full(),
        };
        let first = self.events.try_acquire_many(events).map_err(refused)?;
        match self.bytes.try_acquire_many(bytes) {
            Ok(second) => {
                first.forget();
                second.forget();
                Ok(())
            }
            Err(error) => {
                drop(first);
                Err(refused(error))
            }
        }
    }

    /// Waits for room, in the order of the calls.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`].
    pub(super) async fn take(self: &Arc<Self>, events: u32, bytes: u32) -> Result<Taken> {
        let first = self.events.acquire_many(events).await;
        let first = first.map_err(|_| closed())?;
        let second = self.bytes.acquire_many(bytes).await;
        second.map_err(|_| closed())?.forget();
        first.forget();
        Ok(self.taken(events, bytes))
    }

    /// Guards room that [`try_take`](Self::try_take) gave.
    pub(super) fn taken(self: &Arc<Self>, events: u32, bytes: u32) -> Taken {
        Taken {
            room: Arc::clone(self),
            events,
            bytes,
        }
    }

    pub(super) fn give_back(&self, events: u32, bytes: u32) {
        self.events.add_permits(events as usize);
        self.bytes.add_permits(bytes as usize);
    }

    /// Refuses whoever waits and whoever comes.
    pub(super) fn close(&self) {
        self.events.close();
        self.bytes.close();
    }

    /// Events and bytes that are held.
    pub(super) fn held(&self) -> (usize, usize) {
        (
            (self.max_events as usize).saturating_sub(self.events.available_permits()),
            (self.max_bytes as usize).saturating_sub(self.bytes.available_permits()),
        )
    }

    fn full(&self) -> Error {
        let (events, bytes) = self.held();
        let message = format!("{events} events of {bytes} bytes wait to be published: no room");
        Error::new(ErrorKind::Full, message)
            .with_operation("publish")
            .with_note("wait with `publish`, or raise `max_queued_events` or `max_queued_bytes` under [publishing]")
    }
}

impl Taken {
    /// An event takes its part over.
    pub(super) fn hand_over(&mut self, bytes: u32) {
        self.events -= 1;
        self.bytes -= bytes;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.give_back(self.events, self.bytes);
    }
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the bus is closed").with_operation("publish")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(events: u32, bytes: u32) -> Arc<Room> {
        Arc::new(Room::new(&PublishingConfig {
            max_queued_events: events,
            max_queued_bytes: bytes,
            ..PublishingConfig::default()
        }))
    }

    #[test]
    fn room_is_bounded_in_events_and_in_bytes() {
        let room = room(2, 10);
        room.try_take(1, 8).unwrap();
        let error = room.try_take(1, 3).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
        assert!(error.to_string().contains("1 events of 8 bytes"), "{error}");
        room.try_take(1, 2).unwrap();
        assert_eq!(room.try_take(1, 0).unwrap_err().kind(), ErrorKind::Full);
        room.give_back(2, 10);
        assert_eq!(room.held(), (0, 0));
    }

    #[test]
    fn what_is_larger_than_all_room_takes_all_of_it() {
        let room = room(2, 10);
        assert_eq!(room.charge(usize::MAX), 10);
        assert_eq!(room.charge(11), 10);
        assert_eq!(room.charge(3), 3);
    }

    #[tokio::test]
    async fn room_that_no_event_took_over_is_free_again() {
        let room = room(3, 10);
        let mut taken = room.take(3, 9).await.unwrap();
        taken.hand_over(2);
        drop(taken);
        assert_eq!(room.held(), (1, 2));
        room.close();
        assert_eq!(room.take(1, 1).await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(room.try_take(1, 1).unwrap_err().kind(), ErrorKind::Closed);
    }
}
