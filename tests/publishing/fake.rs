//! A transport that does as it is told, and keeps what it was asked.

use std::collections::{HashSet, VecDeque};
use std::fmt::Display;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use polybus::memory::MemoryTransport;
use polybus::transport::{
    Capabilities, DynTransport, Outgoing, Publisher, Subscription, Transport, TransportConfig,
    TransportFactory,
};
use polybus::{
    Bus, BusBuilder, Config, Effect, Error, ErrorKind, Event, Outcome, Position, Result,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// What the fake answers for an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Accept,
    /// For a passing reason.
    Reject,
    RejectForGood,
    /// Not stored, and not known to be.
    Lose,
    /// Stored, and not known to be.
    StoreUnknown,
}

/// Decides for an event and the number of its attempt, from 1.
type Script = Box<dyn FnMut(&Event, u32) -> Answer + Send>;

/// A transport of kind `fake` whose servers the test holds.
#[derive(Clone)]
pub(crate) struct Fake(Arc<Inner>);

struct Inner {
    name: String,
    state: Mutex<State>,
    /// A permit lets one call through.
    gate: Option<Semaphore>,
}

struct State {
    calls: Vec<Vec<String>>,
    stored: Vec<Event>,
    attempts: std::collections::HashMap<String, u32>,
    script: Script,
    pause: VecDeque<Duration>,
    out: HashSet<(String, String)>,
    open: usize,
    most_open: usize,
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self::named("fake", None)
    }

    /// A fake that answers a call for each permit that [`let_through`](Self::let_through) gives.
    pub(crate) fn gated() -> Self {
        Self::named("fake", Some(Semaphore::new(0)))
    }

    pub(crate) fn named(name: &str, gate: Option<Semaphore>) -> Self {
        Self(Arc::new(Inner {
            name: name.to_owned(),
            state: Mutex::new(State {
                calls: Vec::new(),
                stored: Vec::new(),
                attempts: std::collections::HashMap::new(),
                script: Box::new(|_, _| Answer::Accept),
                pause: VecDeque::new(),
                out: HashSet::new(),
                open: 0,
                most_open: 0,
            }),
            gate,
        }))
    }

    pub(crate) fn script(self, script: impl FnMut(&Event, u32) -> Answer + Send + 'static) -> Self {
        self.0.state.lock().unwrap().script = Box::new(script);
        self
    }

    /// How long the next calls take.
    pub(crate) fn pauses(self, pauses: impl IntoIterator<Item = Duration>) -> Self {
        self.0.state.lock().unwrap().pause.extend(pauses);
        self
    }

    pub(crate) fn let_through(&self, calls: usize) {
        self.0.gate.as_ref().unwrap().add_permits(calls);
    }

    /// The ids of each call.
    pub(crate) fn calls(&self) -> Vec<Vec<String>> {
        self.0.state.lock().unwrap().calls.clone()
    }

    pub(crate) fn stored(&self) -> Vec<Event> {
        self.0.state.lock().unwrap().stored.clone()
    }

    pub(crate) fn stored_ids(&self) -> Vec<String> {
        self.stored().iter().map(|it| it.id().to_owned()).collect()
    }

    pub(crate) fn most_open(&self) -> usize {
        self.0.state.lock().unwrap().most_open
    }

    /// Waits until so many calls were made.
    pub(crate) async fn called(&self, calls: usize) {
        for _ in 0..10_000 {
            if self.calls().len() >= calls {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("{} of {calls} calls were made", self.calls().len());
    }

    /// A bus with one route `test.*` to topic `tests` on this transport, and more settings of it.
    pub(crate) async fn bus(&self, route: &str) -> Bus {
        self.builder(&self.config(route, "")).build().await.unwrap()
    }

    pub(crate) fn config(&self, route: &str, rest: &str) -> String {
        let name = &self.0.name;
        format!(
            "[service]\nname = 'tests'\n[transports.{name}]\nkind = '{name}'\n[[routes]]\n\
             pattern = 'test.*'\ntransport = '{name}'\ntopic = 'tests'\n{route}\n{rest}"
        )
    }

    pub(crate) fn builder(&self, config: &str) -> BusBuilder {
        let config = Config::parse(config, "polybus.toml").unwrap();
        Bus::builder().config(config).register(self.clone())
    }

    /// An event of a key is out at most once: the next one waits for its outcome.
    fn enter(&self, batch: &[Outgoing]) -> HashSet<(String, String)> {
        let mut state = self.0.state.lock().unwrap();
        let events = batch.iter().map(|it| it.event().unwrap());
        state
            .calls
            .push(events.clone().map(|it| it.id().to_owned()).collect());
        state.open += 1;
        state.most_open = state.most_open.max(state.open);
        let keys = batch.iter().filter_map(|it| {
            let key = it.event()?.key()?;
            Some((it.topic.name().to_owned(), key.to_owned()))
        });
        let keys: HashSet<_> = keys.collect();
        for key in &keys {
            assert!(state.out.insert(key.clone()), "two calls have {key:?}");
        }
        keys
    }

    fn answer(&self, batch: &[Outgoing]) -> Vec<Outcome> {
        let mut state = self.0.state.lock().unwrap();
        let state = &mut *state;
        let mut answer = |outgoing: &Outgoing| {
            let event = outgoing.event().unwrap();
            let attempts = state.attempts.entry(event.id().to_owned()).or_default();
            *attempts += 1;
            let answer = (state.script)(event, *attempts);
            if matches!(answer, Answer::Accept | Answer::StoreUnknown) {
                state.stored.push(event.clone());
            }
            let position = Position::new(0, state.stored.len() as u64);
            outcome(answer, position)
        };
        batch.iter().map(&mut answer).collect()
    }
}

fn outcome(answer: Answer, position: Position) -> Outcome {
    let error = |kind| Error::new(kind, "as told");
    match answer {
        Answer::Accept => Outcome::Accepted(position),
        Answer::Reject => Outcome::Rejected(error(ErrorKind::Connect)),
        Answer::RejectForGood => Outcome::Rejected(error(ErrorKind::Unauthorized)),
        Answer::Lose | Answer::StoreUnknown => {
            Outcome::Unknown(error(ErrorKind::Timeout).with_effect(Effect::Unknown))
        }
    }
}

/// Counts a call out, also one that is dropped.
struct Open<'a>(&'a Fake, HashSet<(String, String)>);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut state = self.0.0.state.lock().unwrap();
        state.open -= 1;
        for key in &self.1 {
            state.out.remove(key);
        }
    }
}

impl Publisher for Fake {
    async fn publish(&self, batch: &[Outgoing]) -> Vec<Outcome> {
        let _open = Open(self, self.enter(batch));
        if let Some(gate) = &self.0.gate {
            gate.acquire().await.unwrap().forget();
        }
        let pause = self.0.state.lock().unwrap().pause.pop_front();
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        self.answer(batch)
    }

    async fn flush(&self, _: Instant) -> Result<()> {
        Ok(())
    }

    async fn close(&self, _: Instant) -> Result<()> {
        Ok(())
    }
}

impl Transport for Fake {
    type Publisher = Self;
    type Subscriber = <MemoryTransport as Transport>::Subscriber;
    type Admin = <MemoryTransport as Transport>::Admin;

    fn capabilities(&self) -> Capabilities {
        MemoryTransport::new().capabilities()
    }

    async fn publisher(&self) -> Result<Self> {
        Ok(self.clone())
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Self::Subscriber> {
        MemoryTransport::new().subscribe(subscription).await
    }

    fn admin(&self) -> Self::Admin {
        MemoryTransport::new().admin()
    }
}

#[async_trait]
impl TransportFactory for Fake {
    fn kind(&self) -> &str {
        &self.0.name
    }

    async fn connect(&self, _: TransportConfig) -> Result<DynTransport> {
        Ok(DynTransport::new(self.clone()))
    }
}

/// An event of a type, an id and a key.
pub(crate) fn event_of(event_type: &str, id: impl Display, key: Option<&str>) -> Event {
    let event = Event::builder(event_type)
        .source("tests")
        .id(format!("{id}"));
    let event = match key {
        Some(key) => event.key(key),
        None => event,
    };
    event.build().unwrap()
}

/// An event without a key.
pub(crate) fn event(id: impl Display) -> Event {
    event_of("test.event", id, None)
}

/// An event with a key.
pub(crate) fn keyed(id: impl Display, key: &str) -> Event {
    event_of("test.event", id, Some(key))
}
