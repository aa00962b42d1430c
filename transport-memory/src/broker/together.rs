//! Several events, and what a member has done with others, in one step.

use polybus_core::transport::{AckToken, Outgoing, Settlement};
use polybus_core::{Timestamp, Topic};

use super::log::{Measure, Record};
use super::state::State;
use super::topic::TopicId;
use super::{MemberId, Wakes};

/// What is to be done in one step.
pub(crate) struct Step<'a> {
    /// Deliveries that a member acknowledges.
    pub(crate) acks: Option<(MemberId, &'a [AckToken])>,
    pub(crate) batch: &'a [Outgoing],
    pub(crate) measures: &'a [Measure],
}

/// What became of it.
pub(crate) enum Together {
    /// All of it is done: the offsets of the events. Done before, they are `u64::MAX`.
    Stored(Vec<u64>),
    /// A delivery is not with the member any more.
    Stale,
    /// There is no room in a topic now.
    Full(Topic),
    /// There never is.
    TooLarge(Topic),
}

impl State {
    /// Does all of it, or nothing.
    pub(crate) fn together(
        &mut self,
        step: &Step<'_>,
        now: Timestamp,
        trimmed: &mut Vec<Record>,
        wakes: &mut Wakes,
    ) -> Together {
        if let Some((member, acks)) = step.acks {
            let held = |ack: &&AckToken| self.holds(member, **ack);
            match acks.iter().filter(held).count() {
                all if all == acks.len() => {}
                0 if self.are_settled(member, acks) => {
                    return Together::Stored(vec![u64::MAX; step.batch.len()]);
                }
                _ => return Together::Stale,
            }
        }
        let ids: Vec<TopicId> = step
            .batch
            .iter()
            .map(|it| self.topic(&it.topic, wakes))
            .collect();
        if let Some(refused) = self.lacks_room(&ids, step.measures, trimmed) {
            return refused;
        }
        if let Some((member, acks)) = step.acks {
            let acks: Vec<_> = acks.iter().map(|ack| (*ack, Settlement::Ack)).collect();
            // Each of them is held.
            let _ = self.settle(member, &acks, wakes);
        }
        let events = step.batch.iter().zip(step.measures).zip(&ids);
        let stored = events
            .map(|((outgoing, measure), id)| self.append_one(*id, outgoing, *measure, now))
            .collect();
        self.appended(&ids, trimmed, wakes);
        Together::Stored(stored)
    }

    /// What there is against storing all of it, after trimming what may be.
    fn lacks_room(
        &mut self,
        ids: &[TopicId],
        measures: &[Measure],
        trimmed: &mut Vec<Record>,
    ) -> Option<Together> {
        let mut needs: Vec<(TopicId, usize, u64)> = Vec::new();
        for (id, measure) in ids.iter().zip(measures) {
            match needs.iter_mut().find(|(known, ..)| known == id) {
                Some((_, events, bytes)) => {
                    *events += 1;
                    *bytes += measure.size;
                }
                None => needs.push((*id, 1, measure.size)),
            }
        }
        needs.into_iter().find_map(|(id, events, bytes)| {
            let limits = self.limits();
            let topic = self.topic_state(id);
            if events > limits.events || bytes > limits.bytes {
                return Some(Together::TooLarge(topic.topic.clone()));
            }
            let has_room = topic.make_room(events, bytes, trimmed);
            (!has_room).then(|| Together::Full(topic.topic.clone()))
        })
    }
}
