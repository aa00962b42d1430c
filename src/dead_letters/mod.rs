//! What failed for good: looking at it, sending it on its way again, deleting it.

mod letter;
mod own_group;
mod purge;
mod replay;

use std::future::{Future, IntoFuture};
use std::pin::Pin;

pub use letter::Letter;
pub use purge::Purge;
pub(crate) use replay::is_replay;
pub use replay::{Replay, ReplayReport};

use crate::bus::{Bus, Connected};
use crate::transport::{Admin, Delivery, DynAdmin, Position, Transport};
use crate::{Error, ErrorKind, Result, Text, Topic};

/// How many letters a page holds unless told otherwise, and how many are read at a time.
const PAGE: usize = 100;

/// A topic of dead letters. See [`Bus::dead_letters`](crate::Bus::dead_letters).
///
/// It is looked for on every transport of the bus; where several have a topic of that name, say
/// which one with [`on`](Self::on).
#[derive(Debug, Clone)]
pub struct DeadLetters {
    bus: Bus,
    topic: Topic,
    transport: Option<Text>,
}

impl DeadLetters {
    pub(crate) fn new(bus: Bus, topic: Topic) -> Self {
        Self {
            bus,
            topic,
            transport: None,
        }
    }

    /// Names the transport that the topic is on.
    #[must_use]
    pub fn on(mut self, transport: impl Into<Text>) -> Self {
        self.transport = Some(transport.into());
        self
    }

    /// Reads a page of the letters, the oldest first, without changing anything: nobody's position
    /// moves. Records that are no dead letters are passed over. Await it for the letters, or call
    /// [`page`](Letters::page) to go on behind it.
    ///
    /// ```no_run
    /// # async fn example(letters: polybus::DeadLetters) -> polybus::Result<()> {
    /// let mut page = letters.list().limit(50).page().await?;
    /// while !page.letters.is_empty() {
    ///     for letter in &page.letters {
    ///         println!("{} {:?}", letter.provenance().reason, letter.event());
    ///     }
    ///     page = letters.list().limit(50).after(&page).page().await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// When it is awaited: [`TopicNotFound`](ErrorKind::TopicNotFound) if no transport has the
    /// topic; [`Config`](ErrorKind::Config) if several do, or none is named so;
    /// [`Unsupported`](ErrorKind::Unsupported) if the transport can't
    /// [browse](crate::transport::Capabilities::browse); those of the server.
    pub fn list(&self) -> Letters {
        Letters {
            letters: self.clone(),
            after: Vec::new(),
            limit: PAGE,
        }
    }

    /// The first letter with an id: that of its event, or that of its
    /// [provenance](crate::runtime::Provenance::id), or its position as text. Reads from the
    /// oldest on until it is found.
    ///
    /// # Errors
    ///
    /// Those of [`list`](Self::list).
    pub async fn inspect(&self, id: &str) -> Result<Option<Letter>> {
        let position = id.parse::<Position>().ok();
        let is_meant = |letter: &Letter| {
            position == Some(letter.position())
                || letter.provenance().id == id
                || letter.event().is_some_and(|event| event.id() == id)
        };
        let mut reader = self.reader().await?;
        while let Some(delivery) = reader.next().await? {
            if let Some(letter) = Letter::read(&delivery).filter(&is_meant) {
                return Ok(Some(letter));
            }
        }
        Ok(None)
    }

    /// Sends letters on their way again, each as what was received: the event or the record as it
    /// was, without the headers of a dead letter, and with those that say that it was replayed.
    ///
    /// It goes through the letters as a consumer group of its own, so that each is replayed once
    /// and a replay that ended in between goes on where it was: what its process had published
    /// and not acknowledged then, up to 100 letters, is published again. Letters stay in the topic;
    /// [`purge`](Self::purge) removes them. What comes back while it runs is left for the next one.
    ///
    /// **An event that is replayed to its topic reaches every group that reads the topic**, not only
    /// the one in which it failed: handlers that must not do their work twice need to know it by its
    /// id, which stays. [`Replay::to_its_group`] brings it to that one alone.
    ///
    /// # Errors
    ///
    /// Those of [`list`](Self::list), but for `Unsupported`; [`Config`](ErrorKind::Config) if a
    /// transport that it is to go to is not in the config; those of publishing: what was not
    /// published is left for the next replay.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it ends like a crash.
    pub async fn replay(&self, replay: Replay) -> Result<ReplayReport> {
        let (name, connected) = self.place().await?;
        replay::run(&self.bus, name, connected, &self.topic, replay).await
    }

    /// Deletes letters for good.
    ///
    /// # Errors
    ///
    /// Those of [`list`](Self::list); [`Unsupported`](ErrorKind::Unsupported) if the transport
    /// can't [purge](crate::transport::Capabilities::purge).
    pub async fn purge(&self, purge: Purge) -> Result<u64> {
        let reader = self.reader().await?;
        purge::run(reader, purge).await
    }

    /// The transport that has the topic.
    async fn place(&self) -> Result<(&Text, &Connected)> {
        let transports = &self.bus.inner.transports;
        if let Some(name) = &self.transport {
            return transports.get_key_value(name).ok_or_else(|| {
                Error::new(ErrorKind::Config, format!("no transport is named `{name}`"))
                    .with_note("transports are named under [transports.<name>]")
            });
        }
        let mut found = Vec::new();
        for (name, connected) in transports {
            let topic = std::slice::from_ref(&self.topic);
            let described = connected.transport.admin().describe(topic).await?;
            if described.into_iter().flatten().next().is_some() {
                found.push((name, connected));
            }
        }
        match found.as_slice() {
            [place] => Ok(*place),
            [] => Err(
                Error::new(ErrorKind::TopicNotFound, "the topic does not exist")
                    .with_topic(self.topic.name())
                    .with_note("a topic of dead letters is made with the first one"),
            ),
            several => {
                let names: Vec<_> = several.iter().map(|(name, _)| name.as_str()).collect();
                Err(
                    Error::new(ErrorKind::Config, "several transports have the topic")
                        .with_topic(self.topic.name())
                        .with_note(format!("say which with `on`: {}", names.join(", "))),
                )
            }
        }
    }

    async fn reader(&self) -> Result<Reader> {
        let (_, connected) = self.place().await?;
        Ok(Reader::new(
            connected.transport.admin(),
            self.topic.clone(),
            Vec::new(),
        ))
    }
}

/// A page of dead letters in the making. See [`DeadLetters::list`].
#[derive(Debug, Clone)]
#[must_use = "nothing is read until it is awaited"]
pub struct Letters {
    letters: DeadLetters,
    after: Vec<Position>,
    limit: usize,
}

/// Some dead letters. See [`DeadLetters::list`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Page {
    /// The letters, those of a partition in their order. None are left behind it if it is empty.
    pub letters: Vec<Letter>,
    /// What was read, in each partition.
    after: Vec<Position>,
}

impl Letters {
    /// How many letters it holds at most, at least 1. Default: 100.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit.max(1);
        self
    }

    /// Goes on behind a page.
    pub fn after(mut self, page: &Page) -> Self {
        self.after.clone_from(&page.after);
        self
    }

    /// Reads the page.
    ///
    /// # Errors
    ///
    /// Those of [`DeadLetters::list`].
    pub async fn page(self) -> Result<Page> {
        let mut reader = self.letters.reader().await?;
        reader.after = self.after;
        reader.most = self.limit.min(PAGE);
        let mut letters = Vec::new();
        while letters.len() < self.limit
            && let Some(delivery) = reader.next().await?
        {
            letters.extend(Letter::read(&delivery));
        }
        let after = reader.after;
        Ok(Page { letters, after })
    }
}

impl IntoFuture for Letters {
    type Output = Result<Vec<Letter>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(self.page().await?.letters) })
    }
}

/// Reads a topic from one record to the next.
struct Reader {
    admin: DynAdmin,
    topic: Topic,
    /// Behind what the next one comes, in each partition.
    after: Vec<Position>,
    /// How many are read at a time.
    most: usize,
    read: std::vec::IntoIter<Delivery>,
    at_end: bool,
}

impl Reader {
    fn new(admin: DynAdmin, topic: Topic, after: Vec<Position>) -> Self {
        Self {
            admin,
            topic,
            after,
            most: PAGE,
            read: Vec::new().into_iter(),
            at_end: false,
        }
    }

    async fn next(&mut self) -> Result<Option<Delivery>> {
        if self.read.len() == 0 && !self.at_end {
            let admin = &self.admin;
            let read = admin.browse(&self.topic, &self.after, self.most).await?;
            self.at_end = read.len() < self.most;
            self.read = read.into_iter();
        }
        let next = self.read.next();
        if let Some(delivery) = &next {
            note(&mut self.after, delivery.position());
        }
        Ok(next)
    }
}

/// Notes the last position of a partition.
fn note(last: &mut Vec<Position>, position: Position) {
    let partition = position.partition();
    match last.iter_mut().find(|it| it.partition() == partition) {
        Some(known) => *known = position,
        None => last.push(position),
    }
}
