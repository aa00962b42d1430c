use std::collections::BTreeMap;

use polybus_core::transport::Outgoing;
use polybus_core::{Event, Timestamp, Topic};

use super::*;
use crate::broker::log::{Limits, Measure};

const A: MemberId = MemberId(1);
const B: MemberId = MemberId(2);
const C: MemberId = MemberId(3);

/// A log of events with these keys; an empty one is none.
fn log(keys: &[&str]) -> Log {
    let limits = Limits {
        events: usize::MAX,
        bytes: u64::MAX,
        settled: usize::MAX,
    };
    let mut log = Log::new(limits);
    keys.iter().for_each(|key| append(&mut log, key));
    log
}

fn append(log: &mut Log, key: &str) {
    let mut event = Event::builder("t").source("s");
    if !key.is_empty() {
        event = event.key(key);
    }
    let outgoing = Outgoing::new(Topic::new("t"), event.build().unwrap());
    log.append(&outgoing, Measure::of(&outgoing), Timestamp::UNIX_EPOCH);
}

fn cursor(members: &[MemberId]) -> Cursor {
    let mut cursor = Cursor::new(0);
    members.iter().for_each(|member| cursor.join(*member));
    cursor
}

/// What a member gets: offsets and attempts.
fn take(cursor: &mut Cursor, log: &Log, member: MemberId, max: usize) -> Vec<(u64, u32)> {
    let mut taken = Vec::new();
    cursor.take(log, member, max, |offset, attempt, _| {
        taken.push((offset, attempt));
    });
    taken
}

fn ack(cursor: &mut Cursor, log: &Log, member: MemberId, offset: u64) -> Result<bool, Stale> {
    cursor.settle(log, member, (offset, 1), Settlement::Ack)
}

fn release(cursor: &mut Cursor, log: &Log, member: MemberId, offset: u64) -> Result<bool, Stale> {
    cursor.settle(log, member, (offset, 1), Settlement::Release)
}

#[test]
fn members_share_the_events() {
    let log = log(&["a", "b", "", "c"]);
    let mut cursor = cursor(&[A, B]);
    assert_eq!(take(&mut cursor, &log, A, 2), [(0, 1), (1, 1)]);
    assert_eq!(take(&mut cursor, &log, B, 10), [(2, 1), (3, 1)]);
    assert_eq!((cursor.waiting(&log), cursor.pending()), (0, 4));
}

#[test]
fn an_event_of_a_held_key_waits_while_others_pass_it() {
    let log = log(&["a", "a", "b"]);
    let mut cursor = cursor(&[A, B]);
    assert_eq!(take(&mut cursor, &log, A, 1), [(0, 1)]);
    assert_eq!(take(&mut cursor, &log, B, 10), [(2, 1)]);
    assert_eq!((cursor.waiting(&log), cursor.pending()), (1, 2));
    assert_eq!(ack(&mut cursor, &log, A, 0), Ok(true), "event 1 is free");
    assert_eq!(take(&mut cursor, &log, B, 10), [(1, 1)]);
}

#[test]
fn the_holder_of_a_key_may_take_what_waits_for_it() {
    let log = log(&["a", "a", "b"]);
    let mut cursor = cursor(&[A, B]);
    take(&mut cursor, &log, A, 1);
    assert_eq!(take(&mut cursor, &log, B, 10), [(2, 1)]);
    assert_eq!(take(&mut cursor, &log, A, 10), [(1, 1)]);
}

#[test]
fn what_was_released_comes_back_before_anything_newer_and_counts_up() {
    let log = log(&["a", "", "a", "b"]);
    let mut cursor = cursor(&[A]);
    assert_eq!(take(&mut cursor, &log, A, 3), [(0, 1), (1, 1), (2, 1)]);
    for offset in [2, 0, 1] {
        assert_eq!(release(&mut cursor, &log, A, offset), Ok(true));
    }
    let all = [(0, 2), (1, 2), (2, 2), (3, 1)];
    assert_eq!(take(&mut cursor, &log, A, 10), all);
}

#[test]
fn what_a_member_held_goes_to_the_others_in_order_when_it_leaves() {
    let log = log(&["a", "a", "a", "b"]);
    let mut cursor = cursor(&[A, B]);
    assert_eq!(take(&mut cursor, &log, A, 2).len(), 2);
    assert_eq!(take(&mut cursor, &log, B, 10), [(3, 1)]);
    assert!(cursor.leave(&log, A));
    assert_eq!(cursor.members(), [B]);
    let all = [(0, 2), (1, 2), (2, 1)];
    assert_eq!(take(&mut cursor, &log, B, 10), all);
    assert_eq!(ack(&mut cursor, &log, A, 0), Err(Stale));
    assert!(!cursor.leave(&log, C), "it held nothing");
}

#[test]
fn a_settlement_counts_for_its_own_delivery_only() {
    let log = log(&["a"]);
    let mut cursor = cursor(&[A, B]);
    take(&mut cursor, &log, A, 1);
    assert_eq!(ack(&mut cursor, &log, B, 0), Err(Stale), "not B's");
    assert!(cursor.holds(A, 0, 1));
    assert_eq!(release(&mut cursor, &log, A, 0), Ok(true));
    assert!(!cursor.holds(A, 0, 1));
    assert_eq!(ack(&mut cursor, &log, A, 0), Err(Stale), "nobody's");
    assert_eq!(take(&mut cursor, &log, A, 1), [(0, 2)]);
    assert_eq!(ack(&mut cursor, &log, A, 0), Err(Stale), "the one before");
    assert_eq!(release(&mut cursor, &log, A, 0), Err(Stale));
    assert_eq!(ack(&mut cursor, &log, A, 7), Err(Stale), "never delivered");
    assert_eq!(cursor.pending(), 1);
}

#[test]
fn settling_again_is_harmless() {
    let log = log(&["a", "b"]);
    let mut cursor = cursor(&[A]);
    take(&mut cursor, &log, A, 2);
    for _ in 0..2 {
        assert!(ack(&mut cursor, &log, A, 1).is_ok());
        assert_eq!(cursor.low(), 0);
    }
    for _ in 0..2 {
        assert!(release(&mut cursor, &log, A, 0).is_ok());
        assert_eq!(cursor.waiting(&log), 1);
    }
    take(&mut cursor, &log, A, 2);
    for _ in 0..2 {
        let acked = cursor.settle(&log, A, (0, 2), Settlement::Ack);
        assert!(acked.is_ok());
        assert_eq!(cursor.low(), 2);
    }
    assert_eq!((cursor.waiting(&log), cursor.pending()), (0, 0));
}

#[test]
fn setting_aside_is_bounded_and_goes_on_where_it_stopped() {
    let mut keys = vec!["a"; 2 * MOST_SET_ASIDE];
    keys.push("b");
    let log = log(&keys);
    let mut cursor = cursor(&[A, B]);
    take(&mut cursor, &log, A, 1);
    let mut turns = 0;
    let mut delivered = 0;
    loop {
        let took = cursor.take(&log, B, 10, |_, _, _| {});
        turns += 1;
        delivered += took.delivered;
        if !took.more {
            break;
        }
    }
    assert_eq!((turns, delivered), (2, 1));
}

/// A generator of numbers that need to be no better than different (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What the promises say, kept beside the cursor in the simplest way.
#[derive(Default)]
struct Model {
    keys: Vec<&'static str>,
    held: BTreeMap<u64, (MemberId, u32)>,
    attempts: BTreeMap<u64, u32>,
    acked: BTreeMap<u64, ()>,
}

impl Model {
    fn deliver(&mut self, member: MemberId, offset: u64, attempt: u32) {
        assert!(!self.acked.contains_key(&offset), "{offset} is done");
        let attempts = self.attempts.entry(offset).or_default();
        *attempts += 1;
        assert_eq!(*attempts, attempt, "attempt of {offset}");
        let before = self.held.insert(offset, (member, attempt));
        assert_eq!(before, None, "{offset} is with two members");
        let key = self.keys[offset as usize];
        let earlier = (0..offset).filter(|it| self.keys[*it as usize] == key);
        for other in earlier.filter(|_| !key.is_empty()) {
            let done = self.acked.contains_key(&other);
            let own = self.held.get(&other).is_some_and(|it| it.0 == member);
            assert!(done || own, "{offset} overtook {other} of key {key}");
        }
    }

    fn one_of(&self, member: MemberId, numbers: &mut Numbers) -> Option<(u64, u32)> {
        let held = self.held.iter().filter(|(_, held)| held.0 == member);
        let held: Vec<_> = held.map(|(offset, held)| (*offset, held.1)).collect();
        let index = numbers.below(held.len().max(1) as u64) as usize;
        held.get(index).copied()
    }
}

/// One random step: publish, take, settle, crash or join.
fn step(numbers: &mut Numbers, log: &mut Log, cursor: &mut Cursor, model: &mut Model) {
    let member = [A, B, C][numbers.below(3) as usize];
    if !cursor.members().contains(&member) {
        cursor.join(member);
        return;
    }
    match numbers.below(20) {
        0..5 => {
            let key = ["", "a", "b", "c"][numbers.below(4) as usize];
            model.keys.push(key);
            append(log, key);
        }
        5..10 => {
            let max = 1 + numbers.below(4) as usize;
            for (offset, attempt) in take(cursor, log, member, max) {
                model.deliver(member, offset, attempt);
            }
        }
        10..19 => {
            let Some(delivery) = model.one_of(member, numbers) else {
                return;
            };
            let released = numbers.below(4) == 0;
            let settlement = if released {
                Settlement::Release
            } else {
                model.acked.insert(delivery.0, ());
                Settlement::Ack
            };
            model.held.remove(&delivery.0);
            assert!(cursor.settle(log, member, delivery, settlement).is_ok());
        }
        _ => {
            cursor.leave(log, member);
            model.held.retain(|_, held| held.0 != member);
        }
    }
}

/// Takes and acknowledges until nothing is left.
fn drain(log: &Log, cursor: &mut Cursor, model: &mut Model) {
    for member in [A, B, C] {
        cursor.leave(log, member);
    }
    model.held.clear();
    cursor.join(A);
    loop {
        let taken = take(cursor, log, A, 3);
        if taken.is_empty() {
            return;
        }
        for (offset, attempt) in taken {
            model.deliver(A, offset, attempt);
            model.held.remove(&offset);
            model.acked.insert(offset, ());
            assert!(
                cursor
                    .settle(log, A, (offset, attempt), Settlement::Ack)
                    .is_ok()
            );
        }
    }
}

#[test]
fn whatever_happens_every_event_is_done_once_and_keys_keep_their_order() {
    for seed in 0..200 {
        let mut numbers = Numbers(seed);
        let (mut log, mut cursor, mut model) = (log(&[]), cursor(&[A, B, C]), Model::default());
        for _ in 0..600 {
            step(&mut numbers, &mut log, &mut cursor, &mut model);
            let unsettled = log.end() - model.acked.len() as u64;
            let known = cursor.waiting(&log) + cursor.pending();
            assert_eq!(known, unsettled, "seed {seed}");
        }
        drain(&log, &mut cursor, &mut model);
        assert_eq!(model.acked.len() as u64, log.end(), "seed {seed}");
        assert_eq!(cursor.low(), log.end(), "seed {seed}");
        assert!(cursor.order.is_empty(), "seed {seed}");
    }
}

#[test]
fn what_is_counted_as_settled_from_outside_is_gone_whatever_became_of_it() {
    let log = log(&["a", "a", "b", "b", "c"]);
    let mut cursor = cursor(&[A, B]);
    assert_eq!(take(&mut cursor, &log, A, 1), [(0, 1)]);
    assert_eq!(take(&mut cursor, &log, B, 1), [(2, 1)]);
    assert_eq!(cursor.waiting(&log), 3, "event 1 is queued behind its key");
    cursor.settle_before(&log, 2);
    assert_eq!(
        (cursor.low(), cursor.waiting(&log), cursor.pending()),
        (2, 2, 1)
    );
    assert_eq!(
        ack(&mut cursor, &log, A, 0),
        Ok(false),
        "too late, and harmless"
    );
    assert_eq!(release(&mut cursor, &log, A, 0), Err(Stale));
    assert_eq!(take(&mut cursor, &log, A, 10), [(4, 1)]);
    assert_eq!(
        take(&mut cursor, &log, B, 10),
        [(3, 1)],
        "the key is still held"
    );
    assert!(!cursor.settle_before(&log, 5));
    assert_eq!(
        (cursor.low(), cursor.waiting(&log), cursor.pending()),
        (5, 0, 0)
    );
    assert!(cursor.order.is_empty());
}

#[test]
fn what_waits_for_a_key_is_free_when_the_event_that_was_held_is_gone() {
    let log = log(&["a", "b", "a"]);
    let mut cursor = cursor(&[A, B]);
    take(&mut cursor, &log, A, 1);
    assert_eq!(take(&mut cursor, &log, B, 10), [(1, 1)]);
    assert!(cursor.settle_before(&log, 1), "event 2 is free");
    assert_eq!(take(&mut cursor, &log, B, 10), [(2, 1)]);
}

#[test]
fn a_group_that_has_not_come_so_far_goes_on_behind_what_is_gone() {
    let log = log(&["a", "b", "c"]);
    let mut cursor = cursor(&[A]);
    assert!(!cursor.settle_before(&log, 2));
    assert_eq!(take(&mut cursor, &log, A, 10), [(2, 1)]);
}
