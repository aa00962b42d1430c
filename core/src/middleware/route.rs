//! What the pipeline knows of a route.

use std::sync::Arc;

use crate::Topic;
use crate::config::{
    BatchConfig, GroupBy, OnUnknown, Priority, PublishConfig, RetryConfig, Validate,
};
use crate::routing::Partitioned;
use crate::topic::TopicPrefix;
use crate::transport::DynPublisher;
use crate::{Error, transport::Outcome};
use crate::{ErrorKind, Text};

/// A route's settings and its publisher with the route's layers around it.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) publisher: DynPublisher,
    pub(super) batch: BatchConfig,
    /// Whether events leave without gathering.
    pub(super) at_once: bool,
    retry: RetryConfig,
    on_unknown: OnUnknown,
    pub(super) validate: Validate,
    pub(super) fallback: Option<Arc<Fallback>>,
}

/// Where events go that the route's transport rejected.
#[derive(Debug)]
pub(super) struct Fallback {
    pub(super) transport: Text,
    /// Default: that of the route, with this transport's prefix.
    pub(super) topic: Option<Text>,
    pub(super) route_prefix: TopicPrefix,
    pub(super) prefix: TopicPrefix,
    pub(super) partitioned: Partitioned,
    pub(super) publisher: DynPublisher,
}

impl Fallback {
    /// Where an event of a topic goes.
    pub(super) fn topic_for(&self, topic: &Topic) -> Topic {
        let topic = match &self.topic {
            Some(own) => self.prefix.apply(own),
            None if self.route_prefix == self.prefix => topic.clone(),
            None => self.prefix.apply(self.route_prefix.strip(topic.name())),
        };
        self.partitioned.topic(&self.transport, topic)
    }
}

impl Route {
    pub(super) fn new(
        config: &PublishConfig,
        publisher: DynPublisher,
        fallback: Option<Fallback>,
    ) -> Self {
        let batch = config.batch.clone();
        Self {
            publisher,
            at_once: config.priority == Priority::High || batch.max_wait.is_zero(),
            batch,
            retry: config.retry.clone(),
            on_unknown: config.on_unknown,
            validate: config.validate,
            fallback: fallback.map(Arc::new),
        }
    }

    /// The name of the group of an event.
    pub(super) fn group(&self, topic: &Topic, event_type: &str) -> Text {
        let by = match self.batch.group_by {
            GroupBy::Topic => return topic.name().into(),
            GroupBy::Type => event_type,
            GroupBy::Segments(count) => first_segments(event_type, count),
        };
        // A type has no control characters that would let two names meet.
        crate::text::format_text!("{}\n{by}", topic.name())
    }

    /// Whether an event may be sent again after an outcome of its attempt number `attempts`.
    pub(super) fn retries(&self, outcome: &Outcome, attempts: u32) -> bool {
        let again = match outcome {
            Outcome::Accepted(_) => false,
            Outcome::Rejected(error) => error.retryable() && !self.has_way_around(error),
            Outcome::Unknown(_) => self.on_unknown == OnUnknown::Retry,
        };
        again && attempts < self.retry.max_attempts
    }

    /// An open circuit says that the transport is down: the fallback need not wait for attempts.
    fn has_way_around(&self, error: &Error) -> bool {
        self.fallback.is_some() && error.kind() == ErrorKind::CircuitOpen
    }

    pub(super) fn pause(&self, attempts: u32) -> std::time::Duration {
        crate::backoff::delay(self.retry.base, self.retry.max, attempts)
    }
}

fn first_segments(event_type: &str, count: usize) -> &str {
    let mut dots = event_type.match_indices('.');
    match dots.nth(count - 1) {
        Some((end, _)) => &event_type[..end],
        None => event_type,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_segments_of_a_type_are_cut_at_a_dot() {
        for (count, expected) in [(1, "a"), (2, "a.b"), (3, "a.b.c"), (4, "a.b.c")] {
            assert_eq!(first_segments("a.b.c", count), expected);
        }
    }
}
