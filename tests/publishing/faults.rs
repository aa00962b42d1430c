//! What the tests of faults on real servers share.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use polybus::{Bus, Config, Error, ErrorKind, Event, Outcome};

use crate::fake::event_of;

/// How long anything may take on a busy machine. The deadlines in the configs are far below.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A bus with one transport `server`, its section given, and a route `test.*` to a topic, with more
/// settings.
pub(crate) async fn bus(server: &str, topic: &str, route: &str, rest: &str) -> Bus {
    try_bus(server, topic, route, rest).await.unwrap()
}

pub(crate) async fn try_bus(
    server: &str,
    topic: &str,
    route: &str,
    rest: &str,
) -> polybus::Result<Bus> {
    let text = format!(
        "[service]\nname = 'tests'\nmax_event_size = '8MiB'\n[transports.server]\n{server}\n\
         [[routes]]\npattern = 'test.*'\ntransport = 'server'\ntopic = '{topic}'\n{route}\n{rest}"
    );
    let config = Config::parse(&text, "polybus.toml").unwrap();
    Bus::builder().config(config).build().await
}

/// Waits for what has a deadline of its own.
pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, future).await;
    waited.expect("nothing hangs past its deadline")
}

/// An event whose data is its id, so that it is known on the server by any reader.
pub(crate) fn named(id: impl Display, key: Option<&str>) -> Event {
    of_type("test.event", &id.to_string(), key)
}

/// As [`named`], of a type that takes another route.
pub(crate) fn other(id: &str) -> Event {
    of_type("other.event", id, None)
}

fn of_type(event_type: &str, id: &str, key: Option<&str>) -> Event {
    let event = event_of(event_type, id, key).to_builder();
    let event = event.content_type("text/plain").data(id.to_owned());
    event.build().unwrap()
}

/// What was told of each event.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) accepted: Vec<String>,
    pub(crate) rejected: HashMap<String, Error>,
    pub(crate) unknown: HashMap<String, Error>,
}

impl Ledger {
    pub(crate) fn note(&mut self, id: impl Display, outcome: Outcome) {
        let id = id.to_string();
        match outcome {
            Outcome::Accepted(_) => self.accepted.push(id),
            Outcome::Rejected(error) => drop(self.rejected.insert(id, error)),
            Outcome::Unknown(error) => drop(self.unknown.insert(id, error)),
        }
    }

    /// Publishes events at once, and notes their outcomes.
    pub(crate) async fn publish_all(&mut self, bus: &Bus, events: Vec<Event>) {
        let ids: Vec<_> = events.iter().map(|event| event.id().to_owned()).collect();
        let outcomes = in_time(bus.publish_all(events)).await;
        assert_eq!(outcomes.len(), ids.len());
        for (id, outcome) in ids.into_iter().zip(outcomes) {
            self.note(id, outcome);
        }
    }

    /// Publishes an event, and notes its outcome.
    pub(crate) async fn publish(&mut self, bus: &Bus, event: Event) {
        self.publish_all(bus, vec![event]).await;
    }

    /// All that is accepted is stored once, nothing that is rejected is, and what is unknown is
    /// stored once or not at all. Nobody else has written anything.
    pub(crate) fn check(&self, stored: &[String]) {
        let mut times: HashMap<&str, usize> = HashMap::new();
        for id in stored {
            *times.entry(id).or_default() += 1;
        }
        for id in &self.accepted {
            let count = times.remove(id.as_str());
            assert_eq!(count, Some(1), "{id} is accepted and not stored once");
        }
        for (id, error) in &self.rejected {
            let count = times.remove(id.as_str());
            assert_eq!(count, None, "{id} is rejected and stored: {error}");
        }
        for (id, error) in &self.unknown {
            let count = times.remove(id.as_str());
            assert!(count.unwrap_or(0) <= 1, "{id} is stored {count:?}: {error}");
        }
        assert!(times.is_empty(), "nobody was told of {times:?}");
    }

    /// Of each key, what is accepted is stored in its order. Ids are `<key>/<number>`.
    pub(crate) fn check_order(&self, stored: &[String]) {
        let accepted: HashSet<_> = self.accepted.iter().collect();
        let mut last: HashMap<&str, usize> = HashMap::new();
        for id in stored.iter().filter(|id| accepted.contains(id)) {
            let (key, number) = id.split_once('/').unwrap();
            let number = number.parse().unwrap();
            let before = last.insert(key, number);
            assert!(
                before.is_none_or(|it| it < number),
                "{id} behind {before:?}"
            );
        }
    }

    /// Every event that was not accepted is kept with the bus.
    pub(crate) fn check_kept(&self, bus: &Bus) {
        let kept = bus.failed().read();
        let kept: HashSet<_> = kept.iter().map(|it| it.event().unwrap().id()).collect();
        let lost = self.rejected.keys().chain(self.unknown.keys());
        let lost: HashSet<_> = lost.map(String::as_str).collect();
        assert_eq!(kept, lost);
    }

    pub(crate) fn check_rejected(&self, id: &str, kind: ErrorKind) {
        let error = self.rejected.get(id);
        let error = error.unwrap_or_else(|| panic!("{id} is not rejected"));
        assert_eq!(error.kind(), kind, "{error}");
    }

    pub(crate) fn check_unknown(&self, id: &str) {
        let error = self.unknown.get(id);
        let error = error.unwrap_or_else(|| panic!("{id} is not unknown: {:?}", self.accepted));
        assert_eq!(error.effect(), polybus::Effect::Unknown, "{error}");
    }
}

/// How many events are published at once, of how many keys.
const SLICE: usize = 100;
const KEYS: usize = 8;

/// Publishes all the time while a fault strikes and is mended, and a while before and after.
pub(crate) async fn stream_over(bus: &Bus, fault: impl Future<Output = ()>) -> Ledger {
    let mut ledger = Ledger::default();
    let mut number = 0;
    let mut slice = || {
        let events = number..number + SLICE;
        number += SLICE;
        let event = |it: usize| {
            let key = format!("key-{}", it % KEYS);
            named(format!("{key}/{it}"), Some(&key))
        };
        events.map(event).collect::<Vec<_>>()
    };
    for _ in 0..10 {
        ledger.publish_all(bus, slice()).await;
    }
    let over = AtomicBool::new(false);
    let fault = async {
        in_time(fault).await;
        over.store(true, Ordering::Release);
    };
    let stream = async {
        while !over.load(Ordering::Acquire) {
            ledger.publish_all(bus, slice()).await;
            // The fault is another future of this task.
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(fault, stream);
    let before = ledger.accepted.len();
    for _ in 0..10 {
        ledger.publish_all(bus, slice()).await;
    }
    let after = ledger.accepted.len() - before;
    assert_eq!(after, 10 * SLICE, "all is well after the fault");
    ledger
}
