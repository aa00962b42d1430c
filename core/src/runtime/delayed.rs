use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::provenance::{self, FIRST_FAILED_AT, NOT_BEFORE, Provenance};
use crate::transport::{Delivery, DynSettler, DynSubscriber, Headers, Subscriber};
use crate::{Result, Timestamp, Topic};

/// How many deliveries are held until their time has come; the rest stays where it is. Those of
/// one pause come in the order of their times, so a few are enough.
const MOST_HELD: usize = 64;

/// Reads topics in which events wait for their next attempt, and delivers each when its time has
/// come: as a delivery of the topic it failed in, with the attempt that follows.
#[derive(Debug)]
pub struct DelayedSubscriber {
    inner: DynSubscriber,
    held: VecDeque<Held>,
}

#[derive(Debug)]
struct Held {
    due: Instant,
    delivery: Delivery,
}

impl DelayedSubscriber {
    /// Around a subscriber of such topics, all of one pause.
    pub fn new(inner: DynSubscriber) -> Self {
        Self {
            inner,
            held: VecDeque::new(),
        }
    }

    fn hold(&mut self, deliveries: Vec<Delivery>) {
        let (now, time) = (Instant::now(), Timestamp::now());
        self.held
            .extend(deliveries.into_iter().map(|delivery| Held {
                due: now + wait(delivery.headers(), time),
                delivery,
            }));
    }

    /// Takes out what is due.
    fn due(&mut self, max: usize) -> Vec<Delivery> {
        let now = Instant::now();
        let mut due = Vec::new();
        let mut index = 0;
        while index < self.held.len() && due.len() < max {
            if self.held[index].due > now {
                index += 1;
            } else if let Some(held) = self.held.remove(index) {
                due.push(restored(held.delivery));
            }
        }
        due
    }
}

impl Subscriber for DelayedSubscriber {
    type Settler = DynSettler;

    async fn recv(&mut self, max: usize) -> Result<Vec<Delivery>> {
        loop {
            let due = self.due(max.max(1));
            if !due.is_empty() {
                return Ok(due);
            }
            let room = MOST_HELD - self.held.len();
            let next = self.held.iter().map(|held| held.due).min();
            let next_due = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            // Nothing is awaited between receiving and holding: a dropped call loses nothing.
            tokio::select! {
                received = self.inner.recv(room), if room > 0 => self.hold(received?),
                () = next_due => {}
            }
        }
    }

    fn settler(&self) -> DynSettler {
        self.inner.settler()
    }

    async fn close(self, deadline: Instant) -> Result<()> {
        self.inner.close(deadline).await
    }
}

/// How long a delivery is to be held from a point in time on.
fn wait(headers: &Headers, now: Timestamp) -> Duration {
    let due = provenance::text(headers, NOT_BEFORE).and_then(|it| it.parse::<Timestamp>().ok());
    let wait = due.map(|due| due.duration_since(now));
    wait.and_then(|wait| Duration::try_from(wait).ok())
        .unwrap_or_default()
}

/// The delivery as one of the topic that the event failed in. One that nobody delayed stays as it
/// is.
fn restored(delivery: Delivery) -> Delivery {
    let headers = delivery.headers();
    let (Some(origin), Ok(event)) = (Provenance::read(headers), delivery.event()) else {
        return delivery;
    };
    let Some(position) = origin.position else {
        return delivery;
    };
    let mut kept = Provenance::strip(headers);
    // The next dead letter is to have it.
    let first = headers.first(FIRST_FAILED_AT).cloned();
    if first.is_some() {
        kept.push(FIRST_FAILED_AT, first);
    }
    let topic = Topic::new(origin.topic);
    Delivery::new(delivery.token(), topic, position, event.clone())
        .with_headers(kept)
        .with_attempt(delivery.deliveries())
        .with_earlier_attempts(origin.attempts)
}
