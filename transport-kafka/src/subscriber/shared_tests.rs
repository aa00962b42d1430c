use polybus_core::ErrorKind;

use super::*;

fn shared(events: usize, unsettled: usize) -> Shared {
    Shared::new(Limits {
        events,
        bytes: 1_000_000,
        unsettled,
    })
}

/// A partition with records of some offsets, and what is delivered of them.
struct Owned {
    source: u32,
    epoch: u32,
}

impl Owned {
    fn new(shared: &Shared, partition: i32) -> Self {
        let (source, epoch) = shared.own(&Topic::new("topic"), partition);
        Self { source, epoch }
    }

    fn token(&self, offset: u64) -> AckToken {
        AckToken::new(self.source, self.epoch, [offset, 0])
    }

    fn push(&self, shared: &Shared, offsets: impl IntoIterator<Item = u64>) {
        let records = offsets
            .into_iter()
            .map(|offset| Packed::of_key(self.token(offset), "key"));
        shared.push(&mut records.collect());
    }

    fn settle(&self, shared: &Shared, offset: u64, settlement: Settlement) -> bool {
        let results = shared.settle(&[(self.token(offset), settlement)]);
        results.iter().all(Result::is_ok)
    }
}

fn received(shared: &Shared, max: usize) -> Vec<u64> {
    match shared.receive(max) {
        Received::Records(records) => {
            let offsets = records.iter().map(|(_, record)| record.token.id[0]);
            offsets.collect()
        }
        Received::Error(_) | Received::Nothing | Received::Ended => Vec::new(),
    }
}

#[test]
fn only_what_was_received_waits_to_be_settled() {
    let shared = shared(10, 100);
    let owned = Owned::new(&shared, 0);
    owned.push(&shared, 5..9);
    assert!(shared.is_drained(&[owned.source]), "queued is not started");
    assert_eq!(received(&shared, 2), [5, 6]);
    assert!(!shared.is_drained(&[owned.source]));
    assert!(owned.settle(&shared, 6, Settlement::Ack));
    assert_eq!(shared.position(owned.source), None);
    assert!(owned.settle(&shared, 5, Settlement::Ack));
    assert_eq!(shared.position(owned.source), Some(7));
    assert!(shared.is_drained(&[owned.source]));
    assert!(
        !owned.settle(&shared, 7, Settlement::Ack),
        "not delivered yet"
    );
}

#[test]
fn what_is_taken_back_is_not_delivered_and_what_was_is_not_to_be_started() {
    let shared = shared(10, 100);
    let (gone, kept) = (Owned::new(&shared, 0), Owned::new(&shared, 1));
    gone.push(&shared, 0..3);
    kept.push(&shared, 0..3);
    assert_eq!(received(&shared, 1), [0]);
    shared.revoke(&[gone.source]);
    assert!(!shared.is_current(gone.token(0)));
    assert!(shared.is_current(kept.token(0)));
    assert_eq!(received(&shared, 10), [0, 1, 2], "those of the other");
    assert!(gone.settle(&shared, 0, Settlement::Release));
    assert!(shared.is_drained(&[gone.source]));
    assert_eq!(shared.room().events, 10);
}

#[test]
fn nothing_settled_is_lost_between_the_commit_and_the_end() {
    let shared = shared(10, 100);
    let owned = Owned::new(&shared, 0);
    owned.push(&shared, 0..3);
    received(&shared, 10);
    owned.settle(&shared, 0, Settlement::Ack);
    // The server has 1; meanwhile another one is settled.
    owned.settle(&shared, 1, Settlement::Ack);
    assert_eq!(shared.disown(&[(owned.source, Some(1))], true), None);
    assert!(shared.is_current(owned.token(2)), "it is still owned");
    let done = shared.disown(&[(owned.source, Some(2))], true);
    assert_eq!(done, Some(vec![Some(2)]));
    assert!(!owned.settle(&shared, 2, Settlement::Ack), "stale");
    assert!(!shared.is_current(owned.token(2)));
}

#[test]
fn another_ownership_of_a_partition_keeps_its_source_and_changes_its_epoch() {
    let shared = shared(10, 100);
    let first = Owned::new(&shared, 0);
    shared.disown(&[(first.source, None)], false);
    let other = Owned::new(&shared, 1);
    let again = Owned::new(&shared, 0);
    assert_eq!(first.source, again.source);
    assert_ne!(first.source, other.source);
    assert_ne!(first.epoch, again.epoch);
    assert!(!shared.is_current(first.token(0)));
}

#[test]
fn what_was_current_is_not_once_its_ownership_has_changed() {
    let shared = shared(10, 100);
    let (first, other) = (Owned::new(&shared, 0), Owned::new(&shared, 1));
    // Asked twice: the second answer is one that was remembered.
    let is_current = |owned: &Owned| [0, 1].map(|id| shared.is_current(owned.token(id)));
    assert_eq!(is_current(&first), [true, true]);
    shared.revoke(&[first.source]);
    assert_eq!(is_current(&first), [false, false]);
    assert_eq!(is_current(&other), [true, true]);
    shared.disown(&[(first.source, None)], false);
    let again = Owned::new(&shared, 0);
    assert_eq!(is_current(&again), [true, true]);
    assert_eq!(is_current(&first), [false, false]);
    shared.disown(&[(again.source, None)], false);
    assert_eq!(is_current(&again), [false, false]);
    assert_eq!(is_current(&other), [true, true]);
    shared.end();
    assert_eq!(is_current(&other), [false, false]);
}

#[test]
fn room_is_bounded_and_comes_back() {
    let shared = shared(4, 100);
    let owned = Owned::new(&shared, 0);
    owned.push(&shared, 0..4);
    let room = shared.room();
    assert_eq!(room.events, 0);
    received(&shared, 3);
    assert_eq!(shared.room().events, 3);
    received(&shared, 3);
    assert_eq!(shared.room().bytes, 1_000_000);
}

#[test]
fn a_partition_is_not_read_far_past_one_that_is_not_settled() {
    let shared = shared(100, 3);
    let (held, free) = (Owned::new(&shared, 0), Owned::new(&shared, 1));
    held.push(&shared, 0..2);
    assert!(shared.may_read(held.source));
    received(&shared, 1);
    held.push(&shared, 2..3);
    assert!(!shared.may_read(held.source), "one held and two queued");
    assert!(shared.may_read(free.source));
    held.settle(&shared, 0, Settlement::Ack);
    assert!(shared.may_read(held.source));
}

#[test]
fn an_error_waits_behind_what_is_there_and_the_end_behind_the_error() {
    let shared = shared(10, 100);
    let owned = Owned::new(&shared, 0);
    owned.push(&shared, 0..1);
    shared.report(Error::new(ErrorKind::Connect, "away"));
    assert_eq!(received(&shared, 10), [0]);
    assert!(matches!(shared.receive(1), Received::Error(_)));
    assert!(matches!(shared.receive(1), Received::Nothing));
    shared.end();
    assert!(matches!(shared.receive(1), Received::Ended));
    assert!(!owned.settle(&shared, 0, Settlement::Ack), "stale");
}
