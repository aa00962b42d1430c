//! Waits until nothing is in flight.

use std::fmt::Write;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::journal::Journal;
use crate::bus::Bus;
use crate::status::{SubscriptionState, SubscriptionStatus};
use crate::transport::{Admin, Lag, Subscription as Membership, Transport};
use crate::{Error, ErrorKind, Result, Text, Topic};

/// How often a server is asked that notes settlements later than it takes them.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Work that is not done.
struct Open {
    transport: Text,
    topic: Topic,
    group: Text,
    lag: Lag,
}

/// Waits until every group has settled every event that it gets, and nothing is being published.
pub(super) async fn settle(bus: &Bus, journal: &Journal, within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    let mut changes = journal.changes();
    bus.inner.publishing.flush(deadline).await?;
    loop {
        changes.mark_unchanged();
        let (publishing, open) = open(bus, journal).await?;
        if publishing == 0 && open.is_empty() {
            return Ok(());
        }
        let ended = bus.ended_subscriptions();
        if Instant::now() >= deadline || (publishing == 0 && !ended.is_empty()) {
            let error = unsettled(publishing, &open, &ended, within);
            return Err(bus
                .status()
                .iter()
                .filter_map(how_it_is)
                .fold(error, Error::with_note));
        }
        let until = deadline.min(Instant::now() + ASK_EVERY);
        // Either way the next round looks again.
        let _ = timeout_at(until, changes.changed()).await;
    }
}

/// The calls of publish that are out, and what the groups have left to do. Asked group by group,
/// the answers belong together only if nothing was published meanwhile.
async fn open(bus: &Bus, journal: &Journal) -> Result<(usize, Vec<Open>)> {
    loop {
        let before = journal.log().publishes;
        let members = journal.log().members.clone();
        let mut open = Vec::new();
        for (transport, membership) in &members {
            open.extend(left(bus, journal, transport, membership).await?);
        }
        let log = journal.log();
        if log.publishes == before || !open.is_empty() {
            // What waits in a batch or for a retry is not out yet, and a dead letter never waits.
            let queued = bus.publish_stats().queued_events;
            return Ok((log.publishing.max(queued), open));
        }
    }
}

async fn left(
    bus: &Bus,
    journal: &Journal,
    transport: &Text,
    membership: &Membership,
) -> Result<Vec<Open>> {
    let topics = journal.log().topics_of(transport, membership);
    let admin = bus.inner.transports[transport].transport.admin();
    let mut open = Vec::new();
    for topic in topics {
        let lag = match admin
            .lag(&membership.group, std::slice::from_ref(&topic))
            .await
        {
            Ok(lag) => lag.first().copied().unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::TopicNotFound => Lag::default(),
            Err(error) => return Err(error),
        };
        if !lag.is_zero() {
            open.push(Open {
                transport: transport.clone(),
                topic,
                group: membership.group.clone(),
                lag,
            });
        }
    }
    Ok(open)
}

fn unsettled(publishing: usize, open: &[Open], ended: &[Text], within: Duration) -> Error {
    let mut message = if ended.is_empty() {
        format!("the bus did not settle within {within:?}")
    } else {
        format!("the bus can't settle: `{}` has ended", ended.join("`, `"))
    };
    if publishing > 0 {
        // Writing to a String can't fail.
        let _ = write!(message, "; {publishing} events are being published");
    }
    let notes = open.iter().map(|open| {
        let Lag {
            waiting, pending, ..
        } = open.lag;
        format!(
            "group `{}` on `{}` of `{}`: {waiting} events waiting, {pending} delivered and not settled",
            open.group, open.topic, open.transport
        )
    });
    notes.fold(
        Error::new(ErrorKind::Timeout, message).with_operation("settle"),
        Error::with_note,
    )
}

/// What a subscription has to do with it, unless it has nothing to do and is well.
fn how_it_is(status: &SubscriptionStatus) -> Option<String> {
    let SubscriptionStatus {
        name,
        state,
        in_flight,
        last_error,
        ..
    } = status;
    let is_well = *state == SubscriptionState::Running && *in_flight == 0;
    let last_error = last_error.as_ref();
    let last_error = last_error.map_or("no error".to_owned(), |it| {
        format!("last error: {}", it.message)
    });
    (!is_well)
        .then(|| format!("subscription `{name}`: {state:?}, {in_flight} in flight, {last_error}"))
}
