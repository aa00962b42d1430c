//! Joining the groups of a subscription, now and after a failure; draining, moving and stopping it
//! alone.

use std::sync::Arc;

use futures::future::try_join_all;
use tokio::time::{Instant, timeout};

use crate::bus::Connected;
use crate::config::SubscriptionConfig;
use crate::report::SubscriptionReport;
use crate::routing::Reading;
use crate::runtime::{DelayedSubscriber, PartitionStatus, Source};
use crate::subscription::Subscription;
use crate::time::IntoDuration;
use crate::topic::TopicPrefix;
use crate::transport::{
    Admin, DynAdmin, DynSubscriber, Lag, Losses, Start, Subscription as Membership, TopicSpec,
    Transport,
};
use crate::{Error, ErrorKind, Result, Text, Topic};

/// What a subscription reads, and as whom.
pub(crate) struct Joining {
    pub(crate) settings: SubscriptionConfig,
    pub(crate) group: Text,
    pub(crate) reads: Vec<Reads>,
    pub(crate) losses: Losses,
}

/// What it reads on one transport.
pub(crate) struct Reads {
    pub(crate) connected: Connected,
    /// What stands before the names of the transport's topics.
    pub(crate) prefix: TopicPrefix,
    pub(crate) reading: Reading,
}

impl Joining {
    /// Joins the group on every transport.
    pub(crate) async fn join(&self) -> Result<Vec<Source>> {
        let joined = try_join_all(self.reads.iter().map(|reads| self.join_one(reads))).await?;
        Ok(joined.into_iter().flatten().collect())
    }

    /// Joins the group on one transport: its topics, and those in which failed events of them wait
    /// for a long pause to end, one membership for each pause.
    async fn join_one(&self, reads: &Reads) -> Result<Vec<Source>> {
        let (transport, reading) = (&reads.connected.transport, &reads.reading);
        let settings = &self.settings;
        let source = |subscriber| Source {
            subscriber,
            prefix: reads.prefix.clone(),
            publisher: reads.connected.publisher.clone(),
            admin: transport.admin(),
            topics: reading.topics.clone(),
            transport: reading.transport.clone(),
            capabilities: transport.capabilities(),
        };
        let mut waiting = Vec::new();
        for topics in delayed_topics(settings, &self.group, &reading.topics, &reads.prefix) {
            let specs: Vec<_> = topics.iter().map(|it| TopicSpec::new(it.name())).collect();
            transport.admin().ensure_topics(&specs).await?;
            let membership = Membership::new(self.group.clone(), topics)
                .takeover_after(settings.takeover_after)
                .losses(&self.losses);
            let subscriber = DelayedSubscriber::new(transport.subscribe(membership).await?);
            waiting.push(source(DynSubscriber::new(subscriber)));
        }
        let membership = Membership::new(self.group.clone(), reading.topics.clone())
            .patterns(reading.patterns.iter().cloned())
            .start(settings.start)
            .takeover_after(settings.takeover_after)
            .exactly_once(settings.exactly_once)
            .losses(&self.losses);
        let subscriber = transport.subscribe(membership).await?;
        waiting.insert(0, source(subscriber));
        Ok(waiting)
    }

    /// Who is asked how far the group is behind on the topics that are named.
    pub(crate) fn admins(&self) -> Vec<(Text, DynAdmin, Vec<Topic>)> {
        let admin = |reads: &Reads| {
            let admin = reads.connected.transport.admin();
            let Reading {
                transport, topics, ..
            } = &reads.reading;
            (transport.clone(), admin, topics.clone())
        };
        self.reads.iter().map(admin).collect()
    }
}

/// The topics in which failed events of some topics wait, for each pause.
pub(crate) fn delayed_topics(
    settings: &SubscriptionConfig,
    group: &str,
    named: &[Topic],
    prefix: &TopicPrefix,
) -> Vec<Vec<Topic>> {
    let delayed = settings.retry.delayed.as_ref();
    let Some(delayed) = delayed.filter(|_| !named.is_empty()) else {
        return Vec::new();
    };
    let of = |pause| {
        let topics = named.iter();
        topics
            .map(|topic| delayed.topic.fill(topic, prefix, group, pause))
            .collect()
    };
    delayed.pauses.iter().copied().map(of).collect()
}

/// How far a subscription is behind on a topic. See [`Subscription::lag`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicLag {
    /// The transport's name in the config.
    pub transport: Text,
    /// The topic.
    pub topic: Topic,
    /// What its group has left to do, over all members.
    pub lag: Lag,
}

impl Subscription {
    /// Lets it read nothing more and waits until everything that it has received is handled and
    /// settled. It is [paused](Self::pause) then, with its place in the group, until
    /// [`resume`](Self::resume).
    ///
    /// # Errors
    ///
    /// [`Timeout`](ErrorKind::Timeout) if events are left after the time, and
    /// [`Closed`](ErrorKind::Closed) if it ended before: it stays paused.
    /// [`Config`](ErrorKind::Config) if the time is no duration.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it is paused.
    pub async fn drain(&self, within: impl IntoDuration) -> Result<()> {
        let within = within.into_duration()?;
        self.pause();
        let idle = async {
            tokio::select! {
                biased;
                () = self.control.idle() => Ok(()),
                () = self.ended() => Err(self.gone("drain")),
            }
        };
        let left = || {
            let left = self.control.in_flight();
            let name = self.name();
            let message = format!("`{name}` has {left} events left after {within:?}");
            Error::new(ErrorKind::Timeout, message).with_operation("drain")
        };
        timeout(within, idle).await.unwrap_or_else(|_| Err(left()))
    }

    /// Goes on from another place: back to handle events again, or ahead to skip some. It reads
    /// nothing more, gives handlers that run `within` to finish and itself 5 s to leave its group, moves that as
    /// [`Topics::reset`](crate::Topics::reset) does, and joins it again. What it had received and not
    /// settled by then is abandoned: it comes again if it stands at the new place or behind it. No
    /// event behind the place is missed.
    ///
    /// All topics that it names are moved, over all transports, and those found by pattern that it
    /// has received from. What waits in topics of long pauses stays there, and comes in its time.
    /// With `idempotency`, events that are done are not handled again. A subscription that is paused
    /// stays so. A handler must not wait for this: it would wait for itself.
    ///
    /// ```no_run
    /// use polybus::{Start, Timestamp};
    /// # async fn example(deals: polybus::Subscription) -> polybus::Result<()> {
    /// let yesterday: Timestamp = "2026-11-20T00:00:00Z".parse().expect("a point in time");
    /// deals.seek(Start::time(yesterday), "30s").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`InUse`](ErrorKind::InUse) if its group has other members, which would go on from elsewhere:
    /// nothing was moved (with several transports: on this one and those behind it in the order of
    /// their names), and it goes on as before. [`Unsupported`](ErrorKind::Unsupported) where a
    /// transport can't move a group, before anything else;
    /// [`Closed`](ErrorKind::Closed) if it ended before; why it could not join again;
    /// [`Config`](ErrorKind::Config) if the time is no duration; those of the servers.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it takes place or not; the subscription goes on either way.
    pub async fn seek(&self, to: Start, within: impl IntoDuration) -> Result<()> {
        let within = within.into_duration()?;
        self.check_movable()?;
        let (admins, control) = (Arc::clone(&self.admins), Arc::clone(&self.control));
        let group = Text::from(self.group());
        let work = Box::pin(async move {
            let seen = control.partitions();
            for (transport, admin, named) in admins.iter() {
                let topics = with_seen(named, transport, &seen);
                admin.reset(&group, &topics, to).await?;
            }
            Ok(())
        });
        tokio::select! {
            biased;
            sought = self.control.recess(within, work) => sought,
            () = self.ended() => Err(self.gone("seek")),
        }
    }

    fn check_movable(&self) -> Result<()> {
        let bus = self.bus.upgrade().ok_or_else(|| self.gone("seek"))?;
        for (name, ..) in self.admins.iter() {
            if !bus.transports[name].transport.capabilities().reset {
                let why = "the transport can't move a group to another place";
                return Err(Error::new(ErrorKind::Unsupported, why)
                    .with_operation("seek")
                    .with_transport(name.clone()));
            }
        }
        Ok(())
    }

    /// Stops this subscription alone, as [`Bus::close`](crate::Bus::close) stops all: it takes
    /// nothing more in, what its handlers have started may finish, and it leaves its groups. The bus
    /// goes on, and another subscription may take the name and the group.
    ///
    /// # Errors
    ///
    /// [`Closed`](ErrorKind::Closed) if it was stopped before, or the bus closed;
    /// [`Config`](ErrorKind::Config) if the time is no duration. What went wrong in stopping is in the
    /// report.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it ends like a crash: what is not settled is delivered again.
    pub async fn stop(&self, within: impl IntoDuration) -> Result<SubscriptionReport> {
        let within = within.into_duration()?;
        let task = self.take_task().ok_or_else(|| self.gone("stop"))?;
        let deadline = Instant::now() + within;
        task.request_stop(within);
        Ok(task.finish(deadline).await)
    }

    /// How far its group is behind, asked of the servers: for each topic that it names, and each
    /// of those found by pattern that it has received from.
    ///
    /// # Errors
    ///
    /// Those of the servers.
    pub async fn lag(&self) -> Result<Vec<TopicLag>> {
        let seen = self.control.partitions();
        let asking = self.admins.iter().map(async |(transport, admin, named)| {
            let topics = with_seen(named, transport, &seen);
            let lags = admin.lag(self.group(), &topics).await?;
            let lags = topics.into_iter().zip(lags);
            let lag = |(topic, lag)| TopicLag {
                transport: transport.clone(),
                topic,
                lag,
            };
            Ok::<_, Error>(lags.map(lag).collect::<Vec<_>>())
        });
        Ok(try_join_all(asking).await?.concat())
    }

    fn gone(&self, operation: &'static str) -> Error {
        let message = format!("the subscription `{}` has ended", self.name());
        Error::new(ErrorKind::Closed, message).with_operation(operation)
    }
}

/// The topics of a transport that are named, and the others that were received from.
fn with_seen(named: &[Topic], transport: &Text, seen: &[PartitionStatus]) -> Vec<Topic> {
    let mut topics = named.to_vec();
    for partition in seen.iter().filter(|it| it.transport == *transport) {
        if !topics.contains(&partition.topic) {
            topics.push(partition.topic.clone());
        }
    }
    topics
}
