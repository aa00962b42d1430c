use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::Pattern;
use crate::time::IntoDuration;

/// What shall go wrong, for [`TestBus::inject`](super::TestBus::inject). It strikes the first
/// event that fits the pattern from then on, unless [`nth`](Self::nth) or
/// [`times`](Self::times) say otherwise.
///
/// ```
/// use polybus::testing::Fault;
///
/// let third_mail_fails = Fault::reject("mail.*").nth(3);
/// let server_is_down = Fault::reject("*").times(10);
/// let late = Fault::delay("user.created", "5s");
/// # let _ = (third_mail_fails, server_is_down, late);
/// ```
#[derive(Debug, Clone)]
#[must_use = "a fault does nothing until it is injected"]
pub struct Fault {
    pub(super) kind: Kind,
    pattern: Pattern,
    first: u64,
    times: u64,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Reject,
    RejectDeadLetter,
    LoseAnswer,
    Delay(Duration),
    Redeliver,
    Reorder,
}

impl Kind {
    /// Whether it strikes when an event is published, rather than delivered.
    pub(super) fn is_of_publishing(self) -> bool {
        matches!(
            self,
            Self::Reject | Self::RejectDeadLetter | Self::LoseAnswer
        )
    }
}

impl Fault {
    /// The transport refuses a published event, as a server that can't be reached does:
    /// certainly not stored, worth another try.
    ///
    /// # Panics
    ///
    /// If the pattern is malformed, as every fault.
    #[track_caller]
    pub fn reject(pattern: &str) -> Self {
        Self::new(Kind::Reject, pattern)
    }

    /// The transport refuses a dead letter; the pattern is of the type of the event in it.
    #[track_caller]
    pub fn reject_dead_letter(pattern: &str) -> Self {
        Self::new(Kind::RejectDeadLetter, pattern)
    }

    /// The transport stores a published event and its answer is lost: the outcome is unknown.
    #[track_caller]
    pub fn lose_answer(pattern: &str) -> Self {
        Self::new(Kind::LoseAnswer, pattern)
    }

    /// An event reaches each group that reads it late, and the later ones of its key wait
    /// behind it. A matter of the clock: with paused time no real time passes.
    ///
    /// # Panics
    ///
    /// If the pattern or the duration is malformed.
    #[track_caller]
    pub fn delay(pattern: &str, by: impl IntoDuration) -> Self {
        match by.into_duration() {
            Ok(by) => Self::new(Kind::Delay(by), pattern),
            Err(error) => panic!("{error}"),
        }
    }

    /// An event is delivered again after it was handled and acknowledged, as if the
    /// acknowledgement had been lost. On a transport that gives released events back only when
    /// a member has left (Kafka), it comes again then.
    #[track_caller]
    pub fn redeliver(pattern: &str) -> Self {
        Self::new(Kind::Redeliver, pattern)
    }

    /// An event is delivered after the one that follows it, whatever their keys. If none follows
    /// within a second of the clock, it is delivered then.
    #[track_caller]
    pub fn reorder(pattern: &str) -> Self {
        Self::new(Kind::Reorder, pattern)
    }

    /// Strikes the nth event that fits, counted from 1, and not the ones before.
    pub fn nth(mut self, nth: u64) -> Self {
        self.first = nth.max(1);
        self
    }

    /// Strikes so many events in a row. Default: 1.
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    #[track_caller]
    fn new(kind: Kind, pattern: &str) -> Self {
        match Pattern::parse(pattern) {
            Ok(pattern) => Self {
                kind,
                pattern,
                first: 1,
                times: 1,
            },
            Err(error) => panic!("{error}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of `{}`", self.kind, self.pattern)
    }
}

/// A fault that was injected.
#[derive(Debug, Clone)]
pub struct Injected {
    hits: Arc<AtomicU64>,
}

impl Injected {
    /// How many events it has struck so far.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }
}

/// The faults of a bus, in the order in which they were injected.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Armed>);

#[derive(Debug)]
struct Armed {
    fault: Fault,
    seen: u64,
    hits: Arc<AtomicU64>,
}

impl Faults {
    pub(super) fn inject(&mut self, fault: Fault) -> Injected {
        let hits = Arc::new(AtomicU64::new(0));
        self.0.push(Armed {
            fault,
            seen: 0,
            hits: Arc::clone(&hits),
        });
        Injected { hits }
    }

    /// The first fault that strikes an event. Each one that could counts it.
    pub(super) fn strike(
        &mut self,
        event_type: &str,
        could: impl Fn(Kind) -> bool,
    ) -> Option<Kind> {
        let mut struck = None;
        for armed in &mut self.0 {
            let Fault {
                kind,
                pattern,
                first,
                times,
            } = &armed.fault;
            if !could(*kind) || !pattern.matches(event_type) {
                continue;
            }
            armed.seen += 1;
            let strikes = armed.seen >= *first && armed.seen - *first < *times;
            if strikes && struck.is_none() {
                armed.hits.fetch_add(1, Ordering::Relaxed);
                struck = Some(*kind);
            }
        }
        struck
    }
}
