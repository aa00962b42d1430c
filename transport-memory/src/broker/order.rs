//! Which queued event may go to which member: one member at a time holds a key.
//!
//! An event is queued when the group has come across it and no member has it: it was released, its
//! member has left, or another member held its key. The queued events of a key stand in order,
//! and only the first of them, its *head*, can be taken: by the member that holds the key, else
//! by anyone. Events without a key are heads of their own.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::MemberId;
use super::log::KeyHash;

/// The keys that are held and the events that are queued.
#[derive(Debug, Default)]
pub(crate) struct Order {
    keys: HashMap<KeyHash, Key, BuildHasherDefault<AlreadyHashed>>,
    /// Heads that any member may take.
    free: BTreeSet<u64>,
    /// Heads that only the holder of their key may take. Without an entry: none.
    reserved: HashMap<MemberId, BTreeSet<u64>>,
}

/// A key that is held, or of which events are queued. There is no entry for any other.
#[derive(Debug, Default)]
struct Key {
    holder: Option<Holder>,
    queue: VecDeque<u64>,
}

#[derive(Debug)]
struct Holder {
    member: MemberId,
    events: u32,
}

impl Order {
    /// The oldest queued event that a member may take.
    pub(crate) fn first_for(&self, member: MemberId) -> Option<u64> {
        let free = self.free.first();
        let reserved = self.reserved.get(&member).and_then(BTreeSet::first);
        free.into_iter().chain(reserved).min().copied()
    }

    /// Gives the event of [`first_for`](Self::first_for) to the member.
    pub(crate) fn take(&mut self, offset: u64, key: Option<KeyHash>, member: MemberId) {
        if !self.free.remove(&offset) {
            self.unreserve(member, offset);
        }
        let Some(key) = key else { return };
        let entry = self.keys.entry(key).or_default();
        entry.queue.pop_front();
        entry.hold(member);
        if let Some(&head) = entry.queue.front() {
            self.free.remove(&head);
            self.reserved.entry(member).or_default().insert(head);
        }
    }

    /// Gives an event that was not queued to a member, unless another holds its key or older
    /// events of the key are queued: then `false`.
    pub(crate) fn try_hold(&mut self, key: Option<KeyHash>, member: MemberId) -> bool {
        let Some(key) = key else { return true };
        let entry = self.keys.entry(key).or_default();
        let others = entry.holder.as_ref().is_some_and(|it| it.member != member);
        if others || !entry.queue.is_empty() {
            return false;
        }
        entry.hold(member);
        true
    }

    /// Queues an event in its place among those of its key.
    pub(crate) fn queue(&mut self, offset: u64, key: Option<KeyHash>) {
        let Some(key) = key else {
            self.free.insert(offset);
            return;
        };
        let entry = self.keys.entry(key).or_default();
        let place = entry.queue.partition_point(|other| *other < offset);
        entry.queue.insert(place, offset);
        if place > 0 {
            return;
        }
        let old_head = entry.queue.get(1);
        let heads = match &entry.holder {
            Some(holder) => self.reserved.entry(holder.member).or_default(),
            None => &mut self.free,
        };
        if let Some(old_head) = old_head {
            heads.remove(old_head);
        }
        heads.insert(offset);
    }

    /// Takes an event out of its queue.
    pub(crate) fn dequeue(&mut self, offset: u64, key: Option<KeyHash>) {
        let Some(key) = key else {
            self.free.remove(&offset);
            return;
        };
        let Some(entry) = self.keys.get_mut(&key) else {
            return;
        };
        let was_head = entry.queue.front() == Some(&offset);
        entry.queue.retain(|queued| *queued != offset);
        let head = entry.queue.front().copied();
        let holder = entry.holder.as_ref().map(|holder| holder.member);
        if head.is_none() && holder.is_none() {
            self.keys.remove(&key);
        }
        if !was_head {
            return;
        }
        match holder {
            Some(member) => {
                self.unreserve(member, offset);
                if let Some(head) = head {
                    self.reserved.entry(member).or_default().insert(head);
                }
            }
            None => {
                self.free.remove(&offset);
                self.free.extend(head);
            }
        }
    }

    /// Ends a member's hold of one event. Whether queued events became free by that.
    pub(crate) fn unhold(&mut self, key: Option<KeyHash>) -> bool {
        let Some(key) = key else { return false };
        let Some(entry) = self.keys.get_mut(&key) else {
            return false;
        };
        let Some(member) = entry.unhold() else {
            return false;
        };
        let Some(&head) = entry.queue.front() else {
            self.keys.remove(&key);
            return false;
        };
        self.unreserve(member, head);
        self.free.insert(head);
        true
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.free.is_empty() && self.reserved.is_empty()
    }

    fn unreserve(&mut self, member: MemberId, head: u64) {
        if let Some(heads) = self.reserved.get_mut(&member) {
            heads.remove(&head);
            if heads.is_empty() {
                self.reserved.remove(&member);
            }
        }
    }
}

impl Key {
    fn hold(&mut self, member: MemberId) {
        let holder = self.holder.get_or_insert(Holder { member, events: 0 });
        debug_assert_eq!(holder.member, member, "one member at a time holds a key");
        holder.events += 1;
    }

    /// The member, if this was the last event it held.
    fn unhold(&mut self) -> Option<MemberId> {
        let holder = self.holder.as_mut()?;
        holder.events -= 1;
        if holder.events > 0 {
            return None;
        }
        self.holder.take().map(|holder| holder.member)
    }
}

/// A [`KeyHash`] is a hash: hashing it again would only cost time.
#[derive(Debug, Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn write(&mut self, bytes: &[u8]) {
        // `KeyHash` calls `write_u64`; this keeps any other type correct, if slow.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MemberId = MemberId(1);
    const B: MemberId = MemberId(2);
    const K: Option<KeyHash> = Some(KeyHash(42));

    #[test]
    fn a_held_key_is_refused_to_others_until_its_last_event_is_settled() {
        let mut order = Order::default();
        assert!(order.try_hold(K, A));
        assert!(order.try_hold(K, A));
        assert!(!order.try_hold(K, B));
        assert!(!order.unhold(K));
        assert!(!order.try_hold(K, B));
        order.unhold(K);
        assert!(order.try_hold(K, B));
    }

    #[test]
    fn what_waits_for_a_key_goes_to_its_holder_or_once_free_to_anyone() {
        let mut order = Order::default();
        assert!(order.try_hold(K, A));
        order.queue(5, K);
        order.queue(6, K);
        assert_eq!(order.first_for(B), None);
        assert_eq!(order.first_for(A), Some(5));
        assert!(order.unhold(K), "event 5 became free");
        assert_eq!(order.first_for(B), Some(5));
        order.take(5, K, B);
        assert_eq!(order.first_for(A), None);
        assert_eq!(order.first_for(B), Some(6));
    }

    #[test]
    fn a_new_event_does_not_overtake_queued_ones_of_its_key() {
        let mut order = Order::default();
        order.queue(5, K);
        assert!(!order.try_hold(K, A));
        assert!(order.try_hold(Some(KeyHash(43)), A));
        assert!(order.try_hold(None, A));
    }

    #[test]
    fn released_events_stand_in_order_before_what_waits() {
        let mut order = Order::default();
        (0..3).for_each(|_| assert!(order.try_hold(K, A)));
        order.queue(9, K);
        for offset in [2, 1, 3] {
            order.queue(offset, K);
            order.unhold(K);
        }
        for offset in [1, 2, 3, 9] {
            assert_eq!(order.first_for(B), Some(offset));
            order.take(offset, K, B);
            assert_eq!(order.first_for(A), None);
        }
        assert_eq!(order.first_for(B), None);
    }

    #[test]
    fn events_without_a_key_wait_for_nobody() {
        let mut order = Order::default();
        order.queue(4, None);
        order.queue(3, None);
        assert_eq!(order.first_for(A), Some(3));
        order.take(3, None, A);
        assert_eq!(order.first_for(B), Some(4));
    }

    #[test]
    fn nothing_is_kept_of_keys_that_are_done() {
        let mut order = Order::default();
        assert!(order.try_hold(K, A));
        order.queue(1, K);
        order.take(1, K, A);
        order.unhold(K);
        order.unhold(K);
        assert!(order.is_empty());
    }
}
