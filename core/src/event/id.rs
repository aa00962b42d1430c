use std::cell::Cell;
use std::fmt;

use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::{Text, Timestamp};

/// The `id` of an event. A UUID in its usual spelling is held inline, without an allocation.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EventId(Repr);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Repr {
    Uuid([u8; Hyphenated::LENGTH]),
    Text(Text),
}

impl EventId {
    /// A new id: a UUID version 7, so that ids made later sort later: on one thread exactly, over
    /// threads and machines by the milliseconds of their clocks.
    pub fn generate() -> Self {
        Self::generate_at(Timestamp::now())
    }

    /// A new id for a point in time, which the caller has looked up already.
    pub(super) fn generate_at(now: Timestamp) -> Self {
        Last::next(now).into_uuid().into()
    }

    /// Stands where an id will be.
    pub(super) const fn unset() -> Self {
        Self(Repr::Text(Text::new_static("")))
    }

    /// How many bytes it has as text.
    pub(super) fn len(&self) -> usize {
        match &self.0 {
            Repr::Uuid(text) => text.len(),
            Repr::Text(text) => text.len(),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Uuid(text) => {
                std::str::from_utf8(text).expect("only ASCII is ever stored in this variant")
            }
            Repr::Text(text) => text,
        }
    }
}

/// The id that this thread has made last.
///
/// The 74 bits behind the time are random for the first id of a millisecond and count up from there
/// (RFC 9562, section 6.2, method 2 with steps of one): two threads meet only where their random
/// beginnings do, and an id costs no random number.
#[derive(Clone, Copy)]
struct Last {
    milliseconds: u64,
    tail: u128,
}

impl Last {
    /// The highest bit of the tail is left free, so that counting never overflows.
    const RANDOM: u128 = (1 << 73) - 1;

    fn next(now: Timestamp) -> Self {
        thread_local! {
            static LAST: Cell<Last> = const { Cell::new(Last { milliseconds: 0, tail: 0 }) };
        }
        let milliseconds = u64::try_from(now.as_millisecond()).unwrap_or(0);
        let last = LAST.get();
        let next = if milliseconds > last.milliseconds {
            let tail = Uuid::new_v4().as_u128() & Self::RANDOM;
            Self { milliseconds, tail }
        } else {
            // Also while a clock that was set back catches up.
            Self {
                tail: last.tail + 1,
                ..last
            }
        };
        LAST.set(next);
        next
    }

    /// Version and variant stand in between the bits of the tail.
    fn into_uuid(self) -> Uuid {
        const LOWER: u32 = 62;
        let lower = self.tail & ((1 << LOWER) - 1);
        let upper = (self.tail >> LOWER) << 64;
        let fixed = (0x7 << 76) | (0b10 << LOWER);
        Uuid::from_u128((u128::from(self.milliseconds) << 80) | fixed | upper | lower)
    }
}

impl From<Uuid> for EventId {
    fn from(uuid: Uuid) -> Self {
        let mut text = [0; Hyphenated::LENGTH];
        uuid.hyphenated().encode_lower(&mut text);
        Self(Repr::Uuid(text))
    }
}

impl From<&str> for EventId {
    fn from(id: &str) -> Self {
        match <[u8; Hyphenated::LENGTH]>::try_from(id.as_bytes()) {
            Ok(text) if id.is_ascii() => Self(Repr::Uuid(text)),
            _ => Self(Repr::Text(id.into())),
        }
    }
}

impl From<String> for EventId {
    fn from(id: String) -> Self {
        id.as_str().into()
    }
}

impl From<Text> for EventId {
    fn from(id: Text) -> Self {
        id.as_str().into()
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use uuid::Variant;

    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).unwrap()
    }

    fn uuid(id: &EventId) -> Uuid {
        Uuid::parse_str(id.as_str()).unwrap()
    }

    #[test]
    fn a_generated_id_is_a_uuid_of_version_7_with_its_time() {
        let now = 4_000_000_000_123;
        for _ in 0..1000 {
            let id = uuid(&EventId::generate_at(at(now)));
            assert_eq!(id.get_version_num(), 7);
            assert_eq!(id.get_variant(), Variant::RFC4122);
            assert_eq!(id.as_u128() >> 80, now as u128);
        }
    }

    #[test]
    fn ids_of_a_thread_ascend_whatever_the_clock_does() {
        let clock = [
            5_000_000_000_000,
            5_000_000_000_000,
            4_999_999_999_999,
            0,
            -7,
            5_000_000_000_001,
        ];
        let ids: Vec<_> = clock
            .map(|now| EventId::generate_at(at(now)).to_string())
            .into();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    }

    #[test]
    fn threads_do_not_make_the_same_ids() {
        let make = || (0..1000).map(|_| EventId::generate().to_string());
        let threads: Vec<_> = (0..4)
            .map(|_| std::thread::spawn(move || make().collect::<Vec<_>>()))
            .collect();
        let ids = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap());
        assert_eq!(ids.collect::<HashSet<_>>().len(), 4000);
    }
}
