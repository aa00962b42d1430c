use std::collections::HashSet;
use std::time::Duration;

use super::{Letter, Reader, note};
use crate::time::IntoDuration;
use crate::transport::{Admin, Position};
use crate::{Result, Timestamp};

/// Which dead letters are deleted. See [`DeadLetters::purge`](super::DeadLetters::purge).
///
/// A topic is deleted from its oldest record on, so what is deleted of a partition is always all up
/// to some letter, records between that are no dead letters included.
#[derive(Debug, Clone)]
#[must_use = "nothing is deleted until it is given to `purge`"]
pub struct Purge(Which);

#[derive(Debug, Clone)]
enum Which {
    All,
    Through(Vec<Position>),
    OlderThan(Duration),
}

impl Purge {
    /// All that the topic holds when it is asked.
    pub fn all() -> Self {
        Self(Which::All)
    }

    /// All up to and with a letter, in its partition.
    pub fn through(letter: &Letter) -> Self {
        Self(Which::Through(vec![letter.position()]))
    }

    /// All that failed for good longer ago, up to the first that did not.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) if it is no duration.
    pub fn older_than(age: impl IntoDuration) -> Result<Self> {
        Ok(Self(Which::OlderThan(age.into_duration()?)))
    }
}

/// Deletes, and returns how many records.
pub(super) async fn run(mut reader: Reader, purge: Purge) -> Result<u64> {
    let before = match purge.0 {
        Which::OlderThan(age) => Some(Timestamp::now().checked_sub(age).unwrap_or(Timestamp::MIN)),
        Which::All | Which::Through(_) => None,
    };
    let mut last = Vec::new();
    let mut count = 0;
    // Partitions in which nothing more is deleted.
    let mut kept: HashSet<u32> = HashSet::new();
    while let Some(delivery) = reader.next().await? {
        let position = delivery.position();
        let failed_at = || Letter::read(&delivery)?.provenance().failed_at;
        let goes = match (&purge.0, before) {
            (Which::All, _) => true,
            (Which::Through(positions), _) => positions
                .iter()
                .any(|it| it.partition() == position.partition() && position <= *it),
            (Which::OlderThan(_), Some(before)) => failed_at().is_none_or(|at| at < before),
            (Which::OlderThan(_), None) => false,
        };
        if !goes {
            kept.insert(position.partition());
        } else if !kept.contains(&position.partition()) {
            note(&mut last, position);
            count += 1;
        }
    }
    if !last.is_empty() {
        reader.admin.purge(&reader.topic, &last).await?;
    }
    Ok(count)
}
