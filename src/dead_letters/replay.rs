use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::own_group::{self, OwnGroup};
use super::{Letter, PAGE};
use crate::bus::{Bus, Connected};
use crate::event::EventId;
use crate::runtime::provenance;
use crate::transport::{
    AckToken, Admin, Content, Delivery, Headers, Lag, Outgoing, Publisher, RawRecord, Settlement,
    Settler, Subscriber, Subscription as Membership, Transport,
};
use crate::{Error, ErrorKind, Result, Text, Topic};

/// The consumer group that keeps how far a replay has come.
const GROUP: &str = "polybus.replay";

/// Whether a group is that of a replay.
pub(crate) fn is_replay(group: &str) -> bool {
    group.starts_with(GROUP)
}

/// How long nothing may come before the server is asked whether there is more.
const TICK: Duration = Duration::from_millis(500);

/// How long nothing may come before what the server still counts is taken for what can't come:
/// gaps of a topic, or letters that this replay left.
const SILENCE: Duration = Duration::from_secs(5);

/// How long a replay that died may have its letters before this one gets them, and how long to
/// wait for them.
const TAKEOVER: Duration = Duration::from_secs(10);

/// How long leaving the group may take.
const CLOSE: Duration = Duration::from_secs(10);

type Filter = dyn Fn(&Letter) -> bool + Send + Sync;

/// Which dead letters are sent on their way again, and where to. See
/// [`DeadLetters::replay`](super::DeadLetters::replay).
#[derive(Clone)]
#[must_use = "nothing is replayed until it is given to `replay`"]
pub struct Replay {
    to: Option<Topic>,
    to_its_group: bool,
    transport: Option<Text>,
    filter: Option<(Text, Arc<Filter>)>,
    limit: Option<u64>,
}

/// What a replay did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ReplayReport {
    /// Letters that were sent on their way again.
    pub replayed: u64,
    /// Letters that the filter left out, and records that are no dead letters.
    pub passed_over: u64,
    /// Letters that came back while it ran, left for the next replay.
    pub returned: u64,
    /// Letters that can't go [to their group alone](Replay::to_its_group), left for a replay that
    /// goes elsewhere.
    pub left: u64,
}

impl Replay {
    /// To the transport and topic that each came from.
    pub fn to_origin() -> Self {
        Self {
            to: None,
            to_its_group: false,
            transport: None,
            filter: None,
            limit: None,
        }
    }

    /// To the group that each failed in, and to no other: other groups of the topic it came from do
    /// not see it. It goes to the topic in which the group's events wait for the shortest pause of
    /// [`retry.delayed`](crate::config::DelayedRetry), so that its subscription must have such
    /// pauses, in this bus's config as well. It is handled as an event of the topic it came from,
    /// with all attempts before it, once what waits there before it had its time: after the
    /// shortest pause at the latest.
    ///
    /// What can't go there is [left](ReplayReport::left): letters of a subscription without long
    /// pauses, or from a topic that it found by pattern; and records that are no events.
    pub fn to_its_group() -> Self {
        Self {
            to_its_group: true,
            ..Self::to_origin()
        }
    }

    /// To a topic: of the transport that the letters are on, unless [`on`](Self::on) names another.
    pub fn to(topic: impl Into<Topic>) -> Self {
        Self {
            to: Some(topic.into()),
            ..Self::to_origin()
        }
    }

    /// To a transport, also another than the letters are on. Not with
    /// [`to_its_group`](Self::to_its_group): its letters go to where the group reads.
    pub fn on(mut self, transport: impl Into<Text>) -> Self {
        self.transport = Some(transport.into());
        self
    }

    /// Only letters that a filter takes.
    ///
    /// What it leaves out counts as passed: the same filter is not asked again for it. So it has a
    /// name, under which its progress is kept apart from that of other filters, and of replays
    /// without one.
    pub fn filter(
        mut self,
        name: &str,
        takes: impl Fn(&Letter) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.filter = Some((name.into(), Arc::new(takes)));
        self
    }

    /// At most so many. The next replay goes on behind them.
    pub fn limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }

    fn group(&self) -> Text {
        match &self.filter {
            Some((name, _)) => Text::from(format!("{GROUP}.{name}")),
            None => Text::new_static(GROUP),
        }
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("to", &self.to)
            .field("to_its_group", &self.to_its_group)
            .field("transport", &self.transport)
            .field("filter", &self.filter.as_ref().map(|(name, _)| name))
            .field("limit", &self.limit)
            .finish()
    }
}

/// Replays what is there when it starts.
pub(super) async fn run(
    bus: &Bus,
    name: &Text,
    connected: &Connected,
    topic: &Topic,
    replay: Replay,
) -> Result<ReplayReport> {
    if replay.to_its_group && replay.transport.is_some() {
        let why = "a replay to the group of each letter can't go to another transport";
        return Err(Error::new(ErrorKind::Config, why).with_operation("replay"));
    }
    let admin = connected.transport.admin();
    let group = replay.group();
    let topics = std::slice::from_ref(topic);
    let there = first(admin.lag(&group, topics).await?);
    let membership = Membership::new(group.clone(), [topic.clone()]).takeover_after(TAKEOVER);
    let mut subscriber = connected.transport.subscribe(membership).await?;
    let settler = subscriber.settler();
    let mut running = Running {
        bus,
        name,
        id: EventId::generate().to_string(),
        limit: replay.limit.unwrap_or(u64::MAX),
        there: there.waiting + there.pending,
        own_groups: OwnGroup::new(bus),
        replay,
        report: ReplayReport::default(),
    };
    let mut heard = Instant::now();
    let outcome = loop {
        let most = running.most();
        if most == 0 {
            break Ok(());
        }
        match timeout(TICK, subscriber.recv(most)).await {
            Ok(Ok(deliveries)) => {
                heard = Instant::now();
                let (done, published) = running.pass_on(&deliveries).await;
                for result in settler.settle(&done).await {
                    if let Err(error) = result {
                        tracing::warn!(%topic, %error, "a letter was replayed and will be again");
                    }
                }
                if published.is_err() {
                    break published;
                }
            }
            Ok(Err(error)) if error.retryable() => tokio::time::sleep(TICK).await,
            Ok(Err(error)) => break Err(error),
            Err(_) => {
                let left = first(admin.lag(&group, topics).await?);
                if left.is_zero() || is_over(left, heard.elapsed(), running.unsettled()) {
                    break Ok(());
                }
            }
        }
    };
    let closed = subscriber.close(Instant::now() + CLOSE).await;
    outcome.and(closed).map(|()| running.report)
}

fn first(lag: Vec<Lag>) -> Lag {
    lag.into_iter().next().unwrap_or_default()
}

/// Whether what is left is not to be waited for.
fn is_over(left: Lag, silence: Duration, unsettled: u64) -> bool {
    let others = left.pending > unsettled;
    silence >= SILENCE && !others || silence >= 2 * TAKEOVER
}

struct Running<'a> {
    bus: &'a Bus,
    /// The transport that the letters are on.
    name: &'a Text,
    /// Of this replay.
    id: String,
    replay: Replay,
    limit: u64,
    /// How many letters there were at the start.
    there: u64,
    own_groups: OwnGroup<'a>,
    report: ReplayReport,
}

impl Running<'_> {
    /// How many letters may be taken.
    fn most(&self) -> usize {
        let ReplayReport {
            replayed,
            passed_over,
            ..
        } = self.report;
        let left = self
            .there
            .saturating_sub(replayed + passed_over + self.report.left);
        let left = left.min(self.limit.saturating_sub(replayed));
        usize::try_from(left).unwrap_or(usize::MAX).min(PAGE)
    }

    /// Publishes what is to be. Returns what is done, and whether all of it was.
    async fn pass_on(
        &mut self,
        deliveries: &[Delivery],
    ) -> (Vec<(AckToken, Settlement)>, Result<()>) {
        let mut done = Vec::with_capacity(deliveries.len());
        let mut outgoing: Vec<(AckToken, Text, Outgoing)> = Vec::new();
        for delivery in deliveries {
            let token = delivery.token();
            let letter = Letter::read(delivery);
            let takes = |letter: &Letter| match &self.replay.filter {
                Some((_, takes)) => takes(letter),
                None => true,
            };
            match letter {
                // It stays unsettled, and so with the group.
                Some(letter) if self.is_own(&letter) => self.report.returned += 1,
                Some(letter) if takes(&letter) => match self.place(&letter).await {
                    Ok(Some((transport, topic))) => {
                        let letter = self.restored(&letter, topic);
                        outgoing.push((token, transport, letter));
                    }
                    Ok(None) => self.report.left += 1,
                    Err(error) => return (done, Err(error)),
                },
                Some(_) | None => {
                    self.report.passed_over += 1;
                    done.push((token, Settlement::Ack));
                }
            }
        }
        let mut result = Ok(());
        for of_one in outgoing.chunk_by(|(_, one, _), (_, next, _)| one == next) {
            let published = self.publish(of_one, &mut done).await;
            result = result.and(published);
        }
        (done, result)
    }

    /// Publishes what goes to one transport.
    async fn publish(
        &mut self,
        letters: &[(AckToken, Text, Outgoing)],
        done: &mut Vec<(AckToken, Settlement)>,
    ) -> Result<()> {
        let Some((_, transport, _)) = letters.first() else {
            return Ok(());
        };
        let connected = self.bus.inner.transports.get(transport).ok_or_else(|| {
            let message = format!("no transport is named `{transport}`");
            Error::new(ErrorKind::Config, message)
                .with_note("name one of the config with `on`, and a topic with `Replay::to`")
        })?;
        let batch: Vec<_> = letters
            .iter()
            .map(|(_, _, letter)| letter.clone())
            .collect();
        let mut result = Ok(());
        let outcomes = connected.publisher.publish(&batch).await.into_iter();
        for ((token, ..), outcome) in letters.iter().zip(outcomes) {
            match outcome.into_result() {
                Ok(_) => {
                    self.report.replayed += 1;
                    done.push((*token, Settlement::Ack));
                }
                Err(error) => result = result.and(Err(error)),
            }
        }
        let before = self.report.replayed;
        result.map_err(|error: Error| {
            error.with_note(format!(
                "{before} letters were replayed before; the next replay goes on with the others"
            ))
        })
    }

    /// Whether a letter was replayed by this very replay, and failed again.
    fn is_own(&self, letter: &Letter) -> bool {
        let replay = letter.headers().first(provenance::REPLAY);
        replay.is_some_and(|it| it == self.id.as_bytes())
    }

    /// How many letters this replay got and leaves.
    fn unsettled(&self) -> u64 {
        self.report.returned + self.report.left
    }

    /// On which transport a letter goes on its way again, and to which topic.
    async fn place(&mut self, letter: &Letter) -> Result<Option<(Text, Topic)>> {
        let origin = letter.provenance();
        if self.replay.to_its_group {
            let topic = self.own_groups.topic(letter).await?;
            return Ok(topic.map(|topic| (origin.transport.clone(), topic)));
        }
        let (transport, topic) = match &self.replay.to {
            Some(topic) => (self.name.clone(), topic.clone()),
            None => (origin.transport.clone(), Topic::new(origin.topic.clone())),
        };
        let transport = self.replay.transport.clone().unwrap_or(transport);
        Ok(Some((transport, topic)))
    }

    /// What was received once, as it goes on its way again.
    fn restored(&self, letter: &Letter, topic: Topic) -> Outgoing {
        let origin = letter.provenance();
        let mark = [provenance::REPLAYED, provenance::REPLAY];
        let is_mark = |name: &str| mark.iter().any(|it| it.eq_ignore_ascii_case(name));
        let kept = letter.headers().iter().filter(|(name, _)| !is_mark(name));
        let mut headers: Headers = kept
            .map(|(name, value)| (Text::from(name), value.cloned()))
            .collect();
        let count = (origin.replayed + 1).to_string();
        headers.push(provenance::REPLAYED, Some(Bytes::from(count)));
        headers.push(provenance::REPLAY, Some(Bytes::from(self.id.clone())));
        if self.replay.to_its_group {
            own_group::push_origin(&mut headers, origin);
        }
        match letter.content() {
            Content::Event(event) => Outgoing::new(topic, event.clone()).with_headers(headers),
            Content::Raw(record) => {
                let RawRecord { key, value, .. } = *record.clone();
                Outgoing::raw(topic, RawRecord::new(key, headers, value))
            }
        }
    }
}
