//! Which partitions this member owns for the time being.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use polybus_core::transport::Subscription;
use polybus_core::{Text, Topic};
use tokio::time::Instant;

use crate::partition;

/// A partition that this member reads while it has the lease of it.
pub(crate) struct Partition {
    /// Its index among the streams of the member.
    pub(crate) source: u32,
    pub(crate) topic: Topic,
    pub(crate) number: u32,
    pub(crate) stream: Topic,
    /// The key that says who has the lease, in the slot of the stream.
    pub(crate) lease: String,
    tenure: Mutex<Option<Tenure>>,
}

/// A lease that this member has, as far as it knows.
struct Tenure {
    /// What stands under the key: of this tenure alone.
    token: Text,
    /// When the server is known to have heard of us, at the earliest.
    fresh: Instant,
    /// It is about to be given up.
    going: bool,
}

impl Partition {
    /// The partitions of those topics of a subscription that have any.
    pub(crate) fn all(subscription: &Subscription) -> Vec<Self> {
        let mut topics: Vec<&Topic> = Vec::new();
        for topic in &subscription.topics {
            if topic.partitions().is_some() && !topics.contains(&topic) {
                topics.push(topic);
            }
        }
        let all = topics.into_iter().flat_map(|topic| {
            let streams = (0..).zip(partition::streams(topic));
            streams.map(move |(number, stream)| (topic.clone(), number, stream))
        });
        let group = &subscription.group;
        let one = |(source, (topic, number, stream)): (u32, (Topic, u32, Topic))| Self {
            source,
            topic,
            number,
            lease: format!("{}:lease:{group}", stream.name()),
            stream,
            tenure: Mutex::default(),
        };
        (0..).zip(all).map(one).collect()
    }

    /// The server gave us the lease, at `fresh` or later.
    pub(crate) fn take(&self, token: Text, fresh: Instant) {
        let going = false;
        *self.lock() = Some(Tenure {
            token,
            fresh,
            going,
        });
    }

    /// What stands under the key of the lease, if we have it.
    pub(crate) fn token(&self) -> Option<Text> {
        self.lock().as_ref().map(|it| it.token.clone())
    }

    /// For how long the server has not heard of us, if we have the lease.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.lock().as_ref().map(|it| it.fresh.elapsed())
    }

    /// The server has heard of us.
    pub(crate) fn renew(&self, fresh: Instant) {
        if let Some(tenure) = &mut *self.lock() {
            tenure.fresh = tenure.fresh.max(fresh);
        }
    }

    /// The lease is about to be given up: nothing of it is begun any more.
    pub(crate) fn give_notice(&self) {
        if let Some(tenure) = &mut *self.lock() {
            tenure.going = true;
        }
    }

    /// The lease is not ours any more.
    pub(crate) fn lose(&self) {
        *self.lock() = None;
    }

    /// Whether what came by this lease may still be handed out.
    pub(crate) fn is_held_by(&self, token: &str) -> bool {
        let tenure = self.lock();
        tenure
            .as_ref()
            .is_some_and(|it| !it.going && it.token == token)
    }

    /// Whether it is ours beyond doubt and to stay, where leases end after `duration`. One that is
    /// found too old here has ended, even if the server would renew it: something was refused because
    /// of it, and must come again before what is behind it.
    pub(crate) fn is_ours(&self, duration: Duration) -> bool {
        let mut tenure = self.lock();
        let is_late = |it: &Tenure| it.fresh.elapsed() >= duration;
        if tenure.as_ref().is_some_and(is_late) {
            *tenure = None;
        }
        tenure.as_ref().is_some_and(|it| !it.going)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Tenure>> {
        self.tenure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(60);

    fn partitions() -> Vec<Partition> {
        let topics = [
            Topic::new("a").with_partitions(2),
            Topic::new("plain"),
            Topic::new("b").with_partitions(1),
            Topic::new("a").with_partitions(2),
        ];
        Partition::all(&Subscription::new("g", topics))
    }

    #[test]
    fn sources_are_counted_over_all_partitioned_topics() {
        let all = partitions();
        let all: Vec<_> = all
            .iter()
            .map(|it| (it.source, it.lease.as_str()))
            .collect();
        assert_eq!(
            all,
            [
                (0, "{a:0}:lease:g"),
                (1, "{a:1}:lease:g"),
                (2, "{b:0}:lease:g")
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_ours_until_its_time_is_over_by_our_own_clock() {
        let partition = &partitions()[0];
        assert!(!partition.is_ours(LEASE));
        partition.take("t".into(), Instant::now());
        tokio::time::advance(LEASE / 2).await;
        partition.renew(Instant::now());
        tokio::time::advance(LEASE * 3 / 4).await;
        assert!(partition.is_ours(LEASE));
        tokio::time::advance(LEASE / 4).await;
        assert!(partition.is_held_by("t"));
        assert!(!partition.is_ours(LEASE) && !partition.is_held_by("t"));
        // The answer to a renewal that was on its way comes too late.
        partition.renew(Instant::now());
        assert!(!partition.is_ours(LEASE));
    }

    #[tokio::test]
    async fn nothing_is_begun_of_what_is_to_be_given_up() {
        let partition = &partitions()[0];
        partition.take("t".into(), Instant::now());
        assert!(partition.is_held_by("t") && !partition.is_held_by("u"));
        partition.give_notice();
        assert!(!partition.is_ours(LEASE) && !partition.is_held_by("t"));
        assert_eq!(partition.token().unwrap(), "t");
        partition.lose();
        assert_eq!(partition.token(), None);
    }
}
