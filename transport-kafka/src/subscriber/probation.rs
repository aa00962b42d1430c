//! Finding an event that ends its process, on a server that keeps one position and counts nothing.
//!
//! For each partition a mark is kept beside the group's position, as the metadata of a position of
//! a second group, `<group>.marks`:
//!
//! - `open`: nothing from this offset on was handed out. It is raised far ahead, so that it costs
//!   one request in a thousand events or more, and half that way before it is reached, so that
//!   nobody waits for it. A member that leaves in good order takes it away.
//! - `batch`: a member that finds `open` follows one that died. Up to there it marks each batch
//!   that it hands out, before it does.
//! - A member that finds `batch` too follows one that died with that batch: its events are handed
//!   out as delivered before, and the runtime notes and handles them one at a time.
//! - `trials`: which of them is at work, the last one, and those that were when a member died, with
//!   how many times each was.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use polybus_core::transport::{AckToken, Delivery};
use polybus_core::{Error, ErrorKind, Result};
use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::shared::Shared;
use crate::asking::{OffThread, Partition};
use crate::error::Origin;

/// How far ahead `open` is raised: by the least where that is seldom, by more where it is often.
const LEAST_AHEAD: u64 = 1_000;
const MOST_AHEAD: u64 = 256_000;
const SELDOM: Duration = Duration::from_secs(1);

/// How long nothing is marked after the server did not answer: each question may take long then.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// How many events that were at work when a member died are kept in mind.
const MOST_TRIALS: usize = 16;

/// What is known of the partitions of a subscriber. Clones share it.
#[derive(Clone)]
pub(crate) struct Probation(Arc<Inner>);

struct Inner {
    settings: ClientConfig,
    origin: Origin,
    within: Duration,
    /// Made when it is first needed. Taken for each request, which it waits for.
    client: Mutex<Option<OffThread<BaseConsumer>>>,
    /// By source.
    partitions: Mutex<Partitions>,
    /// Held from the making of a mark until it is written: marks are written whole.
    writing: Arc<tokio::sync::Mutex<()>>,
    /// Some partition has suspects.
    suspects: AtomicBool,
    /// The subscriber is gone.
    ended: AtomicBool,
}

#[derive(Default)]
struct Partitions {
    known: HashMap<u32, Known>,
    /// The server does not let marks be kept.
    off: bool,
    /// The server did not answer: until then it is not asked, and nothing is marked.
    off_until: Option<Instant>,
}

/// A partition that this subscriber reads.
#[derive(Clone)]
struct Known {
    epoch: u32,
    partition: Partition,
    /// The mark as the server has it.
    mark: Mark,
    /// Up to where each batch is marked.
    careful_below: u64,
    /// Below this, events were with a member that died.
    suspects_below: u64,
    /// What this member has raised `open` to.
    open: u64,
    /// The event that this member noted last, and no other before it.
    own_trial: Option<u64>,
    ahead: u64,
    raised: Instant,
}

/// What of a batch needs marks: the last delivery of each partition.
#[derive(Default)]
struct Needs {
    /// Before it is handed out.
    now: Vec<Last>,
    /// The mark covers it, and not much more.
    soon: Vec<Last>,
}

/// The last delivery of a partition in a batch.
#[derive(Debug, Clone)]
struct Last {
    token: AckToken,
    partition: Partition,
}

/// What is noted of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Mark {
    open: u64,
    batch: u64,
    trials: Vec<(u64, u32)>,
}

impl Probation {
    pub(super) fn new(settings: ClientConfig, origin: Origin, within: Duration) -> Self {
        Self(Arc::new(Inner {
            settings,
            origin,
            within,
            client: Mutex::default(),
            partitions: Mutex::default(),
            writing: Arc::default(),
            suspects: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }))
    }

    /// Whether deliveries may be handed out as they are. The usual case.
    pub(super) fn covers(&self, deliveries: &[Delivery]) -> bool {
        if self.0.suspects.load(Ordering::Relaxed) {
            return false;
        }
        let needs = self.needs(deliveries.iter());
        if needs.now.is_empty() && !needs.soon.is_empty() {
            self.raise_early(&needs.soon);
        }
        needs.now.is_empty()
    }

    /// Makes sure that what is to be handed out is marked, where it has to be, and tells apart what
    /// was with a member that died. Dropped, it may be called again with the same deliveries.
    pub(super) async fn admit(&self, deliveries: &VecDeque<Delivery>) {
        let lasts = self.needs(deliveries.iter()).now;
        if !lasts.is_empty()
            && let Err(error) = self.cover(&lasts).await
        {
            self.turn_off(&error);
        }
    }

    /// Nothing is marked for a while, or never again.
    fn turn_off(&self, error: &Error) {
        tracing::warn!(%error, "events that end their process are not found out: no marks can be kept");
        let mut partitions = self.partitions();
        partitions.off = !error.retryable();
        partitions.off_until = Some(Instant::now() + AFTER_FAILURE);
    }

    /// A delivery with what is known of it: whether it was with a member that died.
    pub(super) fn told(&self, delivery: Delivery) -> Delivery {
        if !self.0.suspects.load(Ordering::Relaxed) {
            return delivery;
        }
        let token = delivery.token();
        let suspects_below = match self.partitions().known.get(&token.source) {
            Some(known) if known.epoch == token.epoch => known.suspects_below,
            _ => 0,
        };
        match token.id[0] < suspects_below {
            true => delivery.with_attempt(2),
            false => delivery,
        }
    }

    /// What of some deliveries no mark covers, or not for long.
    fn needs<'a>(&self, deliveries: impl Iterator<Item = &'a Delivery>) -> Needs {
        let partitions = self.partitions();
        let mut needs = Needs::default();
        let is_off = |until: Instant| Instant::now() < until;
        if partitions.off || partitions.off_until.is_some_and(is_off) {
            return needs;
        }
        // Mostly runs of one partition: looked up once for each.
        let mut looked_up: Option<(u32, Option<&Known>)> = None;
        for delivery in deliveries {
            let token = delivery.token();
            let known = match looked_up {
                Some((source, known)) if source == token.source => known,
                _ => partitions.known.get(&token.source),
            };
            looked_up = Some((token.source, known));
            let known = known.filter(|known| known.epoch == token.epoch);
            let lasts = match known {
                Some(known) if known.covers_far(token.id[0]) => continue,
                Some(known) if known.covers(token.id[0]) => &mut needs.soon,
                _ => &mut needs.now,
            };
            match lasts.iter_mut().find(|it| it.token.source == token.source) {
                Some(last) => last.token = token,
                None => lasts.push(Last {
                    token,
                    partition: (
                        delivery.topic().name().to_owned(),
                        delivery.position().partition().cast_signed(),
                    ),
                }),
            }
        }
        needs
    }

    async fn cover(&self, lasts: &[Last]) -> Result<()> {
        let _writing = self.writing().await?;
        self.learn(lasts).await?;
        let raised = self.raised(lasts, Known::covers);
        self.write(marks_of(&raised)).await?;
        self.partitions().known.extend(raised);
        Ok(())
    }

    /// Raises marks while what they cover already is handed out.
    fn raise_early(&self, lasts: &[Last]) {
        let raised = self.raised(lasts, Known::covers_far);
        let marks = marks_of(&raised);
        self.do_early(
            move |client, _| write(client, &marks),
            move |own, written| match written {
                Ok(()) => own.partitions().known.extend(raised),
                Err(error) => own.turn_off(&error),
            },
        );
    }

    /// Reads the marks of partitions that the group has just given, before anything of them comes.
    pub(super) fn learn_early(&self, owned: Vec<(AckToken, Partition)>) {
        let new: Vec<Last> = owned
            .into_iter()
            .map(|(token, partition)| Last { token, partition })
            .collect();
        if new.is_empty() || self.partitions().off {
            return;
        }
        let asked: Vec<Partition> = new.iter().map(|it| it.partition.clone()).collect();
        self.do_early(
            move |client, within| read(client, &asked, within),
            move |own, found| match found {
                Ok(found) => own.learnt(new, found),
                Err(error) => tracing::debug!(%error, "what is noted of partitions is asked again"),
            },
        );
    }

    /// Asks on a thread of its own that nobody waits for, unless marks are being written. What does not
    /// come about is done when it is needed.
    fn do_early<T>(
        &self,
        question: impl FnOnce(&BaseConsumer, Duration) -> KafkaResult<T> + Send + 'static,
        then: impl FnOnce(&Self, Result<T>) + Send + 'static,
    ) {
        let Ok(writing) = Arc::clone(&self.0.writing).try_lock_owned() else {
            return;
        };
        let _ = self.on_thread(move |own, client| {
            let _writing = writing;
            if !own.0.ended.load(Ordering::Acquire) {
                then(own, own.answer(client, question));
            }
        });
    }

    /// What is known of partitions, each with its mark raised that is not covered enough.
    fn raised(&self, lasts: &[Last], covers: fn(&Known, u64) -> bool) -> Vec<(u32, Known)> {
        let partitions = self.partitions();
        let raised = lasts.iter().filter_map(|Last { token, .. }| {
            let known = partitions.known.get(&token.source)?;
            let covered = covers(known, token.id[0]);
            (!covered).then(|| (token.source, known.raised_over(token.id[0])))
        });
        raised.collect()
    }

    /// The right to write marks. An early one may take its time, on its own thread.
    async fn writing(&self) -> Result<tokio::sync::MutexGuard<'_, ()>> {
        let writing = timeout(self.0.within, self.0.writing.lock()).await;
        writing.map_err(|_| self.unanswered("the server did not answer in time"))
    }

    fn unanswered(&self, why: &str) -> Error {
        self.0.origin.error("mark", ErrorKind::Timeout, why)
    }

    /// Reads the marks of partitions that are new to this subscriber, or came back to it.
    async fn learn(&self, lasts: &[Last]) -> Result<()> {
        let new: Vec<Last> = {
            let partitions = self.partitions();
            let is_new = |last: &&Last| {
                let known = partitions.known.get(&last.token.source);
                known.is_none_or(|known| known.epoch != last.token.epoch)
            };
            lasts.iter().filter(is_new).cloned().collect()
        };
        if new.is_empty() {
            return Ok(());
        }
        let asked: Vec<Partition> = new.iter().map(|it| it.partition.clone()).collect();
        let found = self
            .ask(move |client, within| read(client, &asked, within))
            .await?;
        self.learnt(new, found);
        Ok(())
    }

    fn learnt(&self, new: Vec<Last>, found: Vec<Mark>) {
        let mut partitions = self.partitions();
        for (Last { token, partition }, mark) in new.into_iter().zip(found) {
            let known = Known::new(token.epoch, partition, mark);
            if known.suspects_below > 0 {
                self.0.suspects.store(true, Ordering::Relaxed);
            }
            partitions.known.insert(token.source, known);
        }
    }

    /// Notes that a delivery is about to be handled. How many times it was noted before.
    pub(crate) async fn begin(&self, token: AckToken) -> Result<u32> {
        let offset = token.id[0];
        let _writing = self.writing().await?;
        let known = self.partitions().known.get(&token.source).cloned();
        let Some(mut known) = known.filter(|known| known.epoch == token.epoch) else {
            let why = "no mark is kept of the partition";
            return Err(self.0.origin.error("begin", ErrorKind::Unsupported, why));
        };
        let before = known.begin(offset);
        let mark = (known.partition.clone(), known.mark.clone());
        self.write(vec![mark]).await?;
        if let Some(it) = self.partitions().known.get_mut(&token.source) {
            it.mark.trials = known.mark.trials;
            it.own_trial = known.own_trial;
        }
        Ok(before)
    }

    /// Takes the marks away where everything that was handed out is settled or given back.
    pub(super) async fn leave(&self, shared: &Shared) {
        // The caller has a deadline for all of it.
        let _writing = self.0.writing.lock().await;
        let done: Vec<(Partition, Mark)> = {
            let partitions = self.partitions();
            let known = partitions.known.iter();
            let done = known.filter(|(source, known)| {
                let token = AckToken::new(**source, known.epoch, [0, 0]);
                shared.is_current(token) && shared.is_drained(&[**source])
            });
            done.map(|(_, known)| (known.partition.clone(), Mark::default()))
                .collect()
        };
        if let Err(error) = self.write(done).await {
            tracing::debug!(%error, "marks were left behind");
        }
    }

    /// Lets the client go, also while settlers live.
    pub(super) fn end(&self) {
        self.0.ended.store(true, Ordering::Release);
        if let Ok(mut client) = self.0.client.try_lock() {
            return drop(client.take());
        }
        // A question is out: behind it, not here.
        let _ = self.on_thread(|_, client| drop(client.take()));
    }

    /// Does something with the client, once it is free, on a thread made for it.
    fn on_thread(
        &self,
        work: impl FnOnce(&Self, &mut Option<OffThread<BaseConsumer>>) + Send + 'static,
    ) -> io::Result<()> {
        let own = self.clone();
        let thread = thread::Builder::new().name("polybus-kafka-mark".to_owned());
        let spawned = thread.spawn(move || {
            let mut client = own.0.client.lock().unwrap_or_else(PoisonError::into_inner);
            work(&own, &mut client);
        });
        spawned.map(drop)
    }

    async fn write(&self, marks: Vec<(Partition, Mark)>) -> Result<()> {
        if marks.is_empty() || self.partitions().off {
            return Ok(());
        }
        self.ask(move |client, _| write(client, &marks)).await
    }

    /// Asks on a thread of its own: a commit has no deadline, and must not hold up a runtime that
    /// ends. One question at a time; what nobody waits for any more is not asked.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&BaseConsumer, Duration) -> KafkaResult<T> + Send + 'static,
    ) -> Result<T> {
        let (sender, answer) = oneshot::channel();
        let spawned = self.on_thread(move |own, client| {
            if !sender.is_closed() && !own.0.ended.load(Ordering::Acquire) {
                let _ = sender.send(own.answer(client, question));
            }
        });
        if spawned.is_err() {
            return Err(self.unanswered("no thread could be made"));
        }
        match timeout(self.0.within, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(self.unanswered("the server did not answer in time")),
        }
    }

    fn answer<T>(
        &self,
        client: &mut Option<OffThread<BaseConsumer>>,
        question: impl FnOnce(&BaseConsumer, Duration) -> KafkaResult<T>,
    ) -> Result<T> {
        let failed = |error| self.0.origin.client("mark", error);
        if client.is_none() {
            let made = BaseConsumer::from_config(&self.0.settings).map_err(failed)?;
            *client = Some(OffThread::new(made));
        }
        let client = client.as_ref().expect("it was made above");
        // What the client has to tell comes as the answer too.
        while client.poll(Duration::ZERO).is_some() {}
        question(client, self.0.within).map_err(failed)
    }

    fn partitions(&self) -> MutexGuard<'_, Partitions> {
        let partitions = &self.0.partitions;
        partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Probation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probation").finish_non_exhaustive()
    }
}

impl Known {
    fn new(epoch: u32, partition: Partition, mark: Mark) -> Self {
        Self {
            epoch,
            partition,
            careful_below: mark.open,
            suspects_below: mark.batch,
            mark,
            open: 0,
            own_trial: None,
            ahead: LEAST_AHEAD,
            raised: Instant::now(),
        }
    }

    fn covers(&self, offset: u64) -> bool {
        offset < self.mark.batch || (self.careful_below..self.open).contains(&offset)
    }

    /// Whether an offset is covered, and as much more as leaves the time to raise the mark.
    fn covers_far(&self, offset: u64) -> bool {
        let far = offset.saturating_add(self.ahead / 2);
        self.covers(offset) && (offset < self.mark.batch || far < self.open)
    }

    /// With a mark that covers an offset.
    fn raised_over(&self, offset: u64) -> Self {
        let mut raised = self.clone();
        if offset < self.careful_below {
            raised.mark.batch = offset + 1;
            return raised;
        }
        let often = self.open > 0 && self.raised.elapsed() < SELDOM;
        raised.ahead = match often {
            true => (self.ahead * 4).min(MOST_AHEAD),
            false => (self.ahead / 4).max(LEAST_AHEAD),
        };
        raised.raised = Instant::now();
        raised.open = offset + raised.ahead;
        raised.mark.open = raised.open;
        raised
    }

    /// Notes a start. How many there were before.
    fn begin(&mut self, offset: u64) -> u32 {
        let trials = &mut self.mark.trials;
        if let Some(passed) = self.own_trial.take_if(|own| *own != offset) {
            trials.retain(|(noted, _)| *noted != passed);
        }
        if let Some((_, count)) = trials.iter_mut().find(|(noted, _)| *noted == offset) {
            let before = *count;
            *count = before.saturating_add(1);
            return before;
        }
        if trials.len() == MOST_TRIALS {
            trials.remove(0);
        }
        trials.push((offset, 1));
        self.own_trial = Some(offset);
        0
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "open={} batch={}", self.open, self.batch)?;
        self.trials
            .iter()
            .try_for_each(|(offset, count)| write!(f, " trial={offset}:{count}"))
    }
}

impl Mark {
    /// Reads what [`Display`](fmt::Display) writes. What is something else is no mark.
    fn parse(text: &str) -> Self {
        let mut mark = Self::default();
        for word in text.split(' ') {
            let Some((name, value)) = word.split_once('=') else {
                continue;
            };
            let trial = || {
                let (offset, count) = value.split_once(':')?;
                Some((offset.parse().ok()?, count.parse().ok()?))
            };
            match name {
                "open" => mark.open = value.parse().unwrap_or(0),
                "batch" => mark.batch = value.parse().unwrap_or(0),
                "trial" => mark.trials.extend(trial()),
                _ => {}
            }
        }
        mark
    }
}

fn marks_of(raised: &[(u32, Known)]) -> Vec<(Partition, Mark)> {
    let marks = raised
        .iter()
        .map(|(_, it)| (it.partition.clone(), it.mark.clone()));
    marks.collect()
}

fn read(client: &BaseConsumer, asked: &[Partition], within: Duration) -> KafkaResult<Vec<Mark>> {
    let mut list = TopicPartitionList::with_capacity(asked.len());
    for (topic, partition) in asked {
        list.add_partition(topic, *partition);
    }
    let found = client.committed_offsets(list, within)?;
    let mark = |(topic, partition): &Partition| {
        let element = found.find_partition(topic, *partition);
        match element {
            Some(element) => {
                element.error()?;
                Ok(Mark::parse(element.metadata()))
            }
            None => Ok(Mark::default()),
        }
    };
    asked.iter().map(mark).collect()
}

fn write(client: &BaseConsumer, marks: &[(Partition, Mark)]) -> KafkaResult<()> {
    let mut list = TopicPartitionList::with_capacity(marks.len());
    for ((topic, partition), mark) in marks {
        let mut element = list.add_partition(topic, *partition);
        let offset = i64::try_from(mark.open).unwrap_or(i64::MAX);
        element.set_offset(Offset::Offset(offset))?;
        element.set_metadata(mark.to_string());
    }
    client.commit(&list, CommitMode::Sync)
}

#[cfg(test)]
#[path = "probation_tests.rs"]
mod tests;
