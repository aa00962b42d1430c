//! Topics, groups and members, and what happens between them.

use std::collections::{HashMap, VecDeque};
use std::slice;
use std::sync::Arc;

use polybus_core::topic::{TopicPattern, TopicSettings};
use polybus_core::transport::{AckToken, Content, Lag, Outgoing, Settlement, Start, Subscription};
use polybus_core::{Event, Text, Timestamp, Topic};
use tokio::sync::Notify;

use super::cursor::{Cursor, Stale};
use super::log::{Limits, Log, Measure, Record};
use super::member::{Joined, Member};
use super::topic::{GroupId, TopicId, TopicState};
use super::{MemberId, Wakes};

/// Everything a broker knows.
#[derive(Debug)]
pub(crate) struct State {
    limits: Limits,
    pub(super) topics: Vec<TopicState>,
    pub(super) topics_by_name: HashMap<Text, TopicId>,
    pub(super) groups: Vec<Group>,
    members: HashMap<MemberId, Member>,
    last_member: u32,
}

#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: Text,
    /// Topics that appear later and fit are the group's from their beginning, also while it has
    /// no member.
    patterns: Vec<TopicPattern>,
}

/// How far the publishing of one event has come.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Not stored yet.
    Open(Measure),
    /// Stored at an offset.
    Stored(u64),
    /// Larger than a whole topic may be: nothing makes room for it.
    TooLarge(u64),
}

/// An event on its way to a member.
pub(crate) struct Taken<'a> {
    pub(crate) token: AckToken,
    pub(crate) topic: &'a Topic,
    pub(crate) offset: u64,
    pub(crate) attempt: u32,
    pub(crate) record: &'a Record,
}

impl State {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            topics: Vec::new(),
            topics_by_name: HashMap::new(),
            groups: Vec::new(),
            members: HashMap::new(),
            last_member: 0,
        }
    }

    /// Stores the open events for which there is room, in order; in a topic that is full, none
    /// after the first that finds none. Whether that was everything.
    pub(crate) fn append(
        &mut self,
        batch: &[Outgoing],
        progress: &mut [Progress],
        now: Timestamp,
        trimmed: &mut Vec<Record>,
        wakes: &mut Wakes,
    ) -> bool {
        let mut last: Option<(&Topic, TopicId)> = None;
        let mut full: Vec<TopicId> = Vec::new();
        let mut appended: Vec<TopicId> = Vec::new();
        for (outgoing, progress) in batch.iter().zip(progress) {
            let Progress::Open(measure) = *progress else {
                continue;
            };
            let id = match last {
                Some((topic, id)) if *topic == outgoing.topic => id,
                _ => self.topic(&outgoing.topic, wakes),
            };
            if last.is_none_or(|(_, last)| last != id) && !appended.contains(&id) {
                appended.push(id);
            }
            last = Some((&outgoing.topic, id));
            let topic = &mut self.topics[id.index()];
            if full.contains(&id) {
                continue;
            }
            if topic.make_room(1, measure.size, trimmed) {
                let offset = topic.log.append(outgoing, measure, now);
                *progress = Progress::Stored(offset);
            } else {
                full.push(id);
            }
        }
        self.appended(&appended, trimmed, wakes);
        full.is_empty()
    }

    /// Stores an event, whether or not there is room.
    pub(super) fn append_one(
        &mut self,
        id: TopicId,
        outgoing: &Outgoing,
        measure: Measure,
        now: Timestamp,
    ) -> u64 {
        self.topics[id.index()].log.append(outgoing, measure, now)
    }

    /// Tells the readers of topics that something was appended.
    pub(super) fn appended(
        &mut self,
        ids: &[TopicId],
        trimmed: &mut Vec<Record>,
        wakes: &mut Wakes,
    ) {
        for (index, id) in ids.iter().enumerate() {
            if !ids[..index].contains(id) {
                self.topics[id.index()].trim_settled(self.limits.settled, trimmed);
                self.signal_topic(*id, wakes);
            }
        }
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    pub(super) fn topic_state(&mut self, id: TopicId) -> &mut TopicState {
        &mut self.topics[id.index()]
    }

    /// Adds a member to a group, which gets a position on every topic it has none on yet.
    pub(crate) fn subscribe(
        &mut self,
        subscription: &Subscription,
        wake: Arc<Notify>,
        wakes: &mut Wakes,
    ) -> MemberId {
        let group = self.group(&subscription.group);
        let fits = |topic: &TopicState| {
            let mut patterns = subscription.patterns.iter();
            patterns.any(|pattern| pattern.matches(topic.topic.name()))
        };
        let mut topics: Vec<_> = (0..)
            .zip(&self.topics)
            .filter(|(_, topic)| fits(topic))
            .map(|(index, _)| TopicId(index))
            .collect();
        for topic in &subscription.topics {
            topics.push(self.topic(topic, wakes));
        }
        for pattern in &subscription.patterns {
            let known = &mut self.groups[group.0].patterns;
            if !known.contains(pattern) {
                known.push(pattern.clone());
            }
        }
        let id = self.add_member(group, subscription, wake);
        for topic in topics {
            self.join(id, topic, subscription.start);
        }
        id
    }

    /// Takes a member out of its group; what it held goes to the others.
    pub(crate) fn leave(&mut self, member: MemberId, wakes: &mut Wakes) {
        let Some(left) = self.members.remove(&member) else {
            return;
        };
        for (id, joined) in left.joined {
            let topic = &mut self.topics[id.index()];
            let (_, cursor) = &mut topic.cursors[joined.cursor];
            if cursor.leave(&topic.log, member) {
                self.signal(id, joined.cursor, wakes);
            }
        }
    }

    /// Takes up to `max` events for a member, over its topics in turn. `false` if there are none
    /// now and the member is to wait until it is woken.
    pub(crate) fn take(
        &mut self,
        member: MemberId,
        max: usize,
        mut deliver: impl FnMut(Taken<'_>),
    ) -> bool {
        let mut left = max;
        let Some(topics) = self.members.get(&member).map(|it| it.ready.len()) else {
            return false;
        };
        for _ in 0..topics {
            if left == 0 {
                break;
            }
            left -= self.take_next(member, left, &mut deliver);
        }
        let Some(state) = self.members.get_mut(&member) else {
            return false;
        };
        state.idle = left == max && state.ready.is_empty();
        !state.idle
    }

    /// Settles deliveries of a member, one result for each.
    pub(crate) fn settle(
        &mut self,
        member: MemberId,
        batch: &[(AckToken, Settlement)],
        wakes: &mut Wakes,
    ) -> Vec<Result<(), Stale>> {
        let mut results = Vec::with_capacity(batch.len());
        for run in batch.chunk_by(|(one, _), (next, _)| one.source == next.source) {
            let id = TopicId(run[0].0.source);
            let joined = self.members.get(&member).and_then(|it| it.joined.get(&id));
            let Some(index) = joined.map(|joined| joined.cursor) else {
                results.extend(run.iter().map(|_| Err(Stale)));
                continue;
            };
            let topic = &mut self.topics[id.index()];
            let (_, cursor) = &mut topic.cursors[index];
            let mut available = false;
            results.extend(run.iter().map(|&(token, settlement)| {
                let delivery = delivery(member, token).ok_or(Stale)?;
                available |= cursor.settle(&topic.log, member, delivery, settlement)?;
                Ok(())
            }));
            if available {
                self.signal(id, index, wakes);
            }
        }
        results
    }

    /// Stores a record and acknowledges the delivery that it takes the place of. `false`, and
    /// nothing done, if there is no room for it.
    pub(crate) fn forward(
        &mut self,
        member: MemberId,
        (token, outgoing): &(AckToken, Outgoing),
        progress: &mut Progress,
        now: Timestamp,
        trimmed: &mut Vec<Record>,
        wakes: &mut Wakes,
    ) -> Result<bool, Stale> {
        // What is not held was settled before, or is stale.
        if self.holds(member, *token) {
            let (batch, progress) = (slice::from_ref(outgoing), slice::from_mut(progress));
            if !self.append(batch, progress, now, trimmed, wakes) {
                return Ok(false);
            }
        }
        let settled = self.settle(member, &[(*token, Settlement::Ack)], wakes);
        let settled: Result<Vec<()>, Stale> = settled.into_iter().collect();
        settled.map(|_| true)
    }

    /// What a topic holds behind an offset.
    pub(crate) fn browse(
        &self,
        topic: &str,
        from: u64,
        mut deliver: impl FnMut(Taken<'_>) -> bool,
    ) {
        let Some(topic) = self.find(topic) else {
            return;
        };
        // No member's token: it settles nothing.
        let token = AckToken::new(u32::MAX, 0, [0, 0]);
        for (offset, record) in topic.log.records_from(from) {
            let taken = Taken {
                token,
                topic: &topic.topic,
                offset,
                attempt: 1,
                record,
            };
            if !deliver(taken) {
                return;
            }
        }
    }

    /// Removes everything before an offset of a topic.
    pub(crate) fn purge(
        &mut self,
        topic: &str,
        bound: u64,
        trimmed: &mut Vec<Record>,
        wakes: &mut Wakes,
    ) {
        let Some(id) = self.topics_by_name.get(topic).copied() else {
            return;
        };
        for cursor in self.topics[id.index()].purge(bound, trimmed) {
            self.signal(id, cursor, wakes);
        }
    }

    /// Whether a delivery is with a member and not settled.
    pub(crate) fn holds(&self, member: MemberId, token: AckToken) -> bool {
        let id = TopicId(token.source);
        let joined = self.members.get(&member).and_then(|it| it.joined.get(&id));
        let (Some(joined), Some((offset, attempt))) = (joined, delivery(member, token)) else {
            return false;
        };
        let (_, cursor) = &self.topics[id.index()].cursors[joined.cursor];
        cursor.holds(member, offset, attempt)
    }

    /// Whether deliveries of a member were settled before.
    pub(super) fn are_settled(&self, member: MemberId, tokens: &[AckToken]) -> bool {
        tokens.iter().all(|token| {
            let id = TopicId(token.source);
            let joined = self.members.get(&member).and_then(|it| it.joined.get(&id));
            let (Some(joined), Some((offset, attempt))) = (joined, delivery(member, *token)) else {
                return false;
            };
            let (_, cursor) = &self.topics[id.index()].cursors[joined.cursor];
            cursor.is_settled(offset, attempt)
        })
    }

    /// Makes a topic unless there is one.
    pub(crate) fn ensure_topic(&mut self, topic: &Topic, wakes: &mut Wakes) {
        self.topic(topic, wakes);
    }

    /// How many events a topic holds.
    pub(crate) fn len(&self, topic: &str) -> Option<u64> {
        Some(self.find(topic)?.log.len())
    }

    /// How far a group is behind on a topic; `None` if there is no such topic. A group that has
    /// no position has everything before it.
    pub(crate) fn lag(&self, group: &str, topic: &str) -> Option<Lag> {
        let topic = self.find(topic)?;
        let mut cursors = topic.cursors.iter();
        let cursor = cursors.find(|(id, _)| self.groups[id.0].name == group);
        Some(match cursor {
            Some((_, cursor)) => Lag::new(cursor.waiting(&topic.log), cursor.pending()),
            None => Lag::new(topic.log.len(), 0),
        })
    }

    /// Whether a group has members.
    pub(crate) fn has_members(&self, group: &str) -> bool {
        let mut members = self.members.values();
        members.any(|member| self.groups[member.group.0].name == group)
    }

    /// Moves a group, which has no members, to another place in a topic, if there is such a one.
    pub(crate) fn reset(&mut self, group: &str, topic: &str, to: Start) {
        let group = self.group(&group.into());
        if let Some(id) = self.topics_by_name.get(topic) {
            self.topics[id.index()].reset(group, to);
        }
    }

    /// The group that keeps the most from being trimmed, and how much that is.
    pub(crate) fn slowest_group(&self, topic: &str) -> Option<(Text, u64)> {
        let topic = self.find(topic)?;
        let slowest = topic.cursors.iter().min_by_key(|(_, it)| it.low())?;
        let (id, cursor) = slowest;
        let unsettled = topic.log.end() - cursor.low();
        Some((self.groups[id.0].name.clone(), unsettled))
    }

    /// The names of all topics, sorted.
    pub(crate) fn topics(&self) -> Vec<Text> {
        let mut names: Vec<_> = self.topics_by_name.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// The events that a topic holds.
    pub(crate) fn events(&self, topic: &str) -> Vec<Event> {
        let records = self
            .find(topic)
            .into_iter()
            .flat_map(|topic| topic.log.records());
        let events = records.filter_map(|record| match &record.content {
            Content::Event(event) => Some(event.clone()),
            Content::Raw(_) => None,
        });
        events.collect()
    }

    pub(super) fn find(&self, topic: &str) -> Option<&TopicState> {
        let id = self.topics_by_name.get(topic)?;
        Some(&self.topics[id.index()])
    }

    /// The topic's id. A new topic goes to every group that has a pattern for it.
    pub(super) fn topic(&mut self, topic: &Topic, wakes: &mut Wakes) -> TopicId {
        if let Some(id) = self.topics_by_name.get(topic.name()) {
            return *id;
        }
        let index = u32::try_from(self.topics.len()).expect("memory holds fewer than 2^32 topics");
        let id = TopicId(index);
        self.topics.push(TopicState {
            topic: topic.clone(),
            log: Log::new(self.limits),
            cursors: Vec::new(),
            settings: TopicSettings::default(),
        });
        self.topics_by_name.insert(topic.name().into(), id);
        let fits = |patterns: &[TopicPattern]| patterns.iter().any(|it| it.matches(topic.name()));
        for (index, group) in self.groups.iter().enumerate() {
            if fits(&group.patterns) {
                let cursor = (GroupId(index), Cursor::new(0));
                self.topics[id.index()].cursors.push(cursor);
            }
        }
        let members = self.members.iter();
        let members = members.filter(|(_, member)| fits(&member.patterns));
        let members: Vec<_> = members.map(|(member, _)| *member).collect();
        for member in members {
            self.join(member, id, Start::Beginning);
        }
        self.signal_topic(id, wakes);
        id
    }

    pub(super) fn group(&mut self, name: &Text) -> GroupId {
        let known = self.groups.iter().position(|group| group.name == *name);
        GroupId(known.unwrap_or_else(|| {
            self.groups.push(Group {
                name: name.clone(),
                patterns: Vec::new(),
            });
            self.groups.len() - 1
        }))
    }

    fn add_member(
        &mut self,
        group: GroupId,
        subscription: &Subscription,
        wake: Arc<Notify>,
    ) -> MemberId {
        self.last_member = self
            .last_member
            .checked_add(1)
            .expect("a broker in memory does not live for 2^32 members");
        let id = MemberId(self.last_member);
        let member = Member {
            group,
            patterns: subscription.patterns.clone(),
            joined: HashMap::new(),
            ready: VecDeque::new(),
            idle: false,
            wake,
        };
        self.members.insert(id, member);
        id
    }

    /// Lets a member read a topic. The group starts there as asked if it has no position.
    fn join(&mut self, id: MemberId, topic_id: TopicId, start: Start) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        if member.joined.contains_key(&topic_id) {
            return;
        }
        let topic = &mut self.topics[topic_id.index()];
        let cursor = topic.cursor(member.group, start);
        topic.cursors[cursor].1.join(id);
        let ready = true;
        member.joined.insert(topic_id, Joined { cursor, ready });
        member.ready.push_back(topic_id);
    }

    /// Takes from the topic that the member looked at longest ago.
    fn take_next(
        &mut self,
        id: MemberId,
        max: usize,
        deliver: &mut impl FnMut(Taken<'_>),
    ) -> usize {
        let Some(member) = self.members.get_mut(&id) else {
            return 0;
        };
        let Some(topic_id) = member.ready.pop_front() else {
            return 0;
        };
        let Some(joined) = member.joined.get_mut(&topic_id) else {
            return 0;
        };
        let TopicState {
            topic,
            log,
            cursors,
            ..
        } = &mut self.topics[topic_id.index()];
        let (_, cursor) = &mut cursors[joined.cursor];
        let took = cursor.take(log, id, max, |offset, attempt, record| {
            let token = AckToken::new(topic_id.0, id.0, [offset, u64::from(attempt)]);
            deliver(Taken {
                token,
                topic,
                offset,
                attempt,
                record,
            });
        });
        joined.ready = took.more;
        if took.more {
            member.ready.push_back(topic_id);
        }
        took.delivered
    }

    /// Tells all members of all groups on a topic that it may have something for them.
    fn signal_topic(&mut self, id: TopicId, wakes: &mut Wakes) {
        for index in 0..self.topics[id.index()].cursors.len() {
            self.signal(id, index, wakes);
        }
    }

    /// Tells the members of a group that a topic may have something for them.
    fn signal(&mut self, id: TopicId, cursor: usize, wakes: &mut Wakes) {
        let (_, cursor) = &self.topics[id.index()].cursors[cursor];
        for member in cursor.members() {
            if let Some(member) = self.members.get_mut(member) {
                member.signal(id, wakes);
            }
        }
    }
}

/// Which delivery a token names, if it is one of the member's.
fn delivery(member: MemberId, token: AckToken) -> Option<(u64, u32)> {
    let [offset, attempt] = token.id;
    let attempt = u32::try_from(attempt).ok()?;
    (token.epoch == member.0).then_some((offset, attempt))
}
