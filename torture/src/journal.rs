//! Journals: one line of JSON for each step, written in one go, so that a kill keeps every line that
//! was begun before it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::Failure;

/// A journal that is being written.
#[derive(Debug)]
pub(crate) struct Journal(File);

/// A step, and when it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Milliseconds since 1970.
    #[serde(rename = "t")]
    pub(crate) time: u64,
    #[serde(flatten)]
    pub(crate) step: Step,
}

/// What a process tells of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "k", rename_all = "snake_case")]
pub(crate) enum Step {
    /// The producer is about to publish.
    Intent { id: String },
    /// What the bus said of it.
    Outcome {
        id: String,
        outcome: Told,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A handler begins.
    Start { id: String, attempt: u32 },
    /// It has done its work.
    Effect { id: String },
    /// It has ended, however.
    End { id: String },
    /// The process ends itself, as the event says.
    Abort { id: String },
    /// An event is marked as handled, and the store has said so.
    Marked { id: String },
    /// A settlement is given to the transport, and was taken.
    Ack { id: String },
    /// The process is ready.
    Ready,
    /// The process ends in good order.
    Done,
    /// A window of the nemesis begins.
    Window { fault: String },
    /// Its fault is over.
    Heal { fault: String },
    /// A child ended though nobody asked it to.
    Died { role: String, status: String },
    /// Kafka: for each partition, what the group has committed.
    Committed { offsets: Vec<(i32, i64)>, lag: u64 },
    /// Redis: what the group was given up to where, and what of it is not acknowledged.
    Acknowledged {
        last: String,
        pending: Vec<String>,
        lag: u64,
    },
    /// How large a child is.
    Size {
        role: String,
        resident: u64,
        files: u64,
    },
    /// A record that is no event was written past the bus.
    Malformed { value: String },
    /// Everything was handled, or not within the time for it.
    Drained { in_time: bool },
}

/// What the bus says of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Told {
    Accepted,
    Rejected,
    Unknown,
}

impl Journal {
    pub(crate) fn open(directory: &Path, name: &str) -> Result<Self, Failure> {
        let path = directory.join(format!("{name}.jsonl"));
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self(file))
    }

    /// Writes a step. A process that can't keep its journal is of no use.
    pub(crate) fn note(&self, step: Step) {
        let line = Line { time: now(), step };
        let mut text = serde_json::to_vec(&line).expect("a line is JSON");
        text.push(b'\n');
        let written = (&self.0).write(&text);
        assert_eq!(written.ok(), Some(text.len()), "the journal takes a line");
    }
}

/// The lines of every journal whose name begins so, by journal. A last line that a kill cut short is
/// left out.
pub(crate) fn read(directory: &Path, beginning: &str) -> Result<Vec<(String, Vec<Line>)>, Failure> {
    let mut journals = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let is_journal = path.extension().is_some_and(|it| it == "jsonl");
        if is_journal && name.starts_with(beginning) {
            let text = std::fs::read_to_string(&path)?;
            let lines = text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            journals.push((name.into_owned(), lines.collect()));
        }
    }
    journals.sort_by(|(one, _), (two, _)| one.cmp(two));
    Ok(journals)
}

/// Milliseconds since 1970. All processes have the same clock.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
