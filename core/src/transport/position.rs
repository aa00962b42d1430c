use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorKind};

/// Where an event stands in its topic. Positions of one partition are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    partition: u32,
    offset: u64,
    /// An `Option` would take a third more room in every outcome.
    has_sequence: bool,
    sequence: u64,
}

impl Position {
    /// A partition and an offset, as Kafka has them.
    pub const fn new(partition: u32, offset: u64) -> Self {
        Self {
            partition,
            offset,
            has_sequence: false,
            sequence: 0,
        }
    }

    /// An id of two numbers, as Redis Streams has them: milliseconds and a sequence number.
    pub const fn with_sequence(partition: u32, milliseconds: u64, sequence: u64) -> Self {
        Self {
            partition,
            offset: milliseconds,
            has_sequence: true,
            sequence,
        }
    }

    /// The partition. 0 on a transport without partitions.
    pub const fn partition(&self) -> u32 {
        self.partition
    }

    /// The offset within the partition, or the milliseconds of an id of two numbers.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The second number of an id of two numbers.
    pub const fn sequence(&self) -> Option<u64> {
        if self.has_sequence {
            Some(self.sequence)
        } else {
            None
        }
    }
}

impl fmt::Display for Position {
    /// `partition:offset`, or `partition:milliseconds-sequence`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)?;
        self.sequence()
            .map_or(Ok(()), |sequence| write!(f, "-{sequence}"))
    }
}

impl FromStr for Position {
    type Err = Error;

    /// Reads what [`Display`](fmt::Display) writes.
    fn from_str(text: &str) -> Result<Self, Error> {
        let read = || {
            let (partition, rest) = text.split_once(':')?;
            let partition = partition.parse().ok()?;
            match rest.split_once('-') {
                None => Some(Self::new(partition, rest.parse().ok()?)),
                Some((milliseconds, sequence)) => Some(Self::with_sequence(
                    partition,
                    milliseconds.parse().ok()?,
                    sequence.parse().ok()?,
                )),
            }
        };
        read().ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("`{text}` is no position"))
                .with_note("write `partition:offset`, or `partition:milliseconds-sequence`")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written() {
        for position in [Position::new(3, 17), Position::with_sequence(0, 1_700, 2)] {
            assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
        }
        for text in ["", "1", "1:", ":1", "a:1", "1:2-", "1:2-x", "-1:2"] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }
}
