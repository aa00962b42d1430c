//! Joining the groups of a subscription, now and after a failure; draining and stopping it alone.

use futures::future::try_join_all;
use tokio::time::{Instant, timeout};

use crate::bus::Connected;
use crate::config::SubscriptionConfig;
use crate::report::SubscriptionReport;
use crate::routing::Reading;
use crate::runtime::{DelayedSubscriber, Source};
use crate::subscription::Subscription;
use crate::time::IntoDuration;
use crate::topic::TopicPrefix;
use crate::transport::{
    Admin, DynAdmin, DynSubscriber, Lag, Subscription as Membership, TopicSpec, Transport,
};
use crate::{Error, ErrorKind, Result, Text, Topic};

/// What a subscription reads, and as whom.
pub(crate) struct Joining {
    pub(crate) settings: SubscriptionConfig,
    pub(crate) group: Text,
    pub(crate) reads: Vec<Reads>,
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
        for topics in self.delayed_topics(reads) {
            let specs: Vec<_> = topics.iter().map(|it| TopicSpec::new(it.name())).collect();
            transport.admin().ensure_topics(&specs).await?;
            let membership =
                Membership::new(self.group.clone(), topics).takeover_after(settings.takeover_after);
            let subscriber = DelayedSubscriber::new(transport.subscribe(membership).await?);
            waiting.push(source(DynSubscriber::new(subscriber)));
        }
        let membership = Membership::new(self.group.clone(), reading.topics.clone())
            .patterns(reading.patterns.iter().cloned())
            .start(settings.start)
            .takeover_after(settings.takeover_after)
            .exactly_once(settings.exactly_once);
        let subscriber = transport.subscribe(membership).await?;
        waiting.insert(0, source(subscriber));
        Ok(waiting)
    }

    /// The topics in which failed events of those that are named wait, for each pause.
    fn delayed_topics(&self, reads: &Reads) -> Vec<Vec<Topic>> {
        let (named, prefix) = (&reads.reading.topics, &reads.prefix);
        let delayed = self.settings.retry.delayed.as_ref();
        let Some(delayed) = delayed.filter(|_| !named.is_empty()) else {
            return Vec::new();
        };
        let of = |pause| {
            let topics = named.iter();
            topics
                .map(|topic| delayed.topic.fill(topic, prefix, &self.group, pause))
                .collect()
        };
        delayed.pauses.iter().copied().map(of).collect()
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
            let mut topics = named.clone();
            for partition in seen.iter().filter(|it| it.transport == *transport) {
                if !topics.contains(&partition.topic) {
                    topics.push(partition.topic.clone());
                }
            }
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
