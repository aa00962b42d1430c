//! Tests of a service: its own config and wiring, with everything in memory and in view.
//!
//! ```
//! # use polybus::{Bus, Event, Payload, State};
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Event, Serialize, Deserialize)]
//! # #[event(type = "user.created", key = user_id)]
//! # struct UserCreated { user_id: String }
//! # #[derive(Event, Serialize, Deserialize)]
//! # #[event(type = "user.greeted", key = user_id)]
//! # struct UserGreeted { user_id: String }
//! # mod my_service {
//! #     use super::*;
//! #     pub async fn wire(bus: &Bus) -> polybus::Result<()> {
//! #         async fn greet(Payload(user): Payload<UserCreated>, State(bus): State<Bus>) -> polybus::Result<()> {
//! #             bus.publish(UserGreeted { user_id: user.user_id }).await.map(drop)
//! #         }
//! #         bus.subscribe("greeter").state(bus.clone()).on(greet).start().await.map(drop)
//! #     }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> polybus::Result<()> {
//! use polybus::TestBus;
//!
//! let bus = TestBus::from_file("examples/polybus.toml"); // same file, every transport in memory
//! my_service::wire(&bus).await?;                         // the service's own code
//! bus.publish(UserCreated { user_id: "u1".into() }).await?;
//! bus.settle().await;                                    // until nothing is in flight
//! bus.published::<UserGreeted>().assert_len(1);
//! bus.dead_letters().assert_empty();
//! # Ok(())
//! # }
//! ```
//!
//! Start the test with `#[tokio::test(start_paused = true)]` (tokio's feature `test-util`) and
//! pauses between retries take no real time.

mod fault;
mod golden;
mod idle;
mod journal;
mod recorded;
mod watched;

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::panic::Location;
#[cfg(feature = "memory")]
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::event::with_origin;

pub use fault::{Fault, Injected};
pub use golden::GoldenSchemas;
pub use recorded::{DeadLetter, Handling, PublishedEvent, Recorded};

/// What came of an attempt. See [`Handling`].
pub use crate::runtime::Progress;

use crate::builder::Watch;
use crate::time::IntoDuration;
use crate::transport::DynTransport;
use crate::{Bus, BusBuilder, EventData, Pattern, Result};
use journal::Journal;
use watched::Watched;

/// How long [`TestBus::settle`] waits.
const SETTLE_WITHIN: Duration = Duration::from_secs(60);

/// A bus that notes what happens on it and lets faults strike. It derefs to its [`Bus`], so that
/// a service's own wiring takes it.
///
/// It sees what is published through it, not what others publish to the same server.
pub struct TestBus {
    bus: Bus,
    journal: Arc<Journal>,
}

impl TestBus {
    /// A bus of a config file with every transport in memory, as
    /// [`in_memory`](BusBuilder::in_memory). To be called within a tokio runtime.
    ///
    /// # Panics
    ///
    /// With the error, if the config is wrong.
    #[cfg(feature = "memory")]
    #[track_caller]
    pub fn from_file(path: impl AsRef<Path>) -> Self {
        let building = Self::on(Bus::builder().config_file(path).in_memory());
        match futures::FutureExt::now_or_never(building) {
            Some(Ok(bus)) => bus,
            Some(Err(error)) => panic!("{error}"),
            None => unreachable!("nothing has to be waited for in memory"),
        }
    }

    /// A bus of any builder: of a config made in the test, with
    /// [`in_memory`](BusBuilder::in_memory) or on real servers. There don't pause time: it would
    /// run ahead of the servers.
    ///
    /// # Errors
    ///
    /// Those of [`BusBuilder::build`].
    pub async fn on(builder: BusBuilder) -> Result<Self> {
        let journal = Arc::new(Journal::new());
        let noted = Arc::clone(&journal);
        let watch = Watch {
            wrap: Box::new(move |name, inner| {
                DynTransport::new(Watched {
                    name: name.clone(),
                    inner,
                    journal: Arc::clone(&noted),
                })
            }),
            observer: journal.clone(),
        };
        let bus = builder.watched(watch).build().await?;
        Ok(Self { bus, journal })
    }

    /// The bus. Clones of it are handles to the same.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Waits until nothing is in flight: every subscription has settled every event that it
    /// gets, the events that its handlers published included, and no call of publish is out.
    /// What a task of the service will publish later is not known, and not waited for.
    ///
    /// Waits at most a minute; [`settle_within`](Self::settle_within) has other deadlines. The
    /// clock is tokio's: paused, it jumps over pauses between retries.
    ///
    /// # Panics
    ///
    /// If something is left then, or a subscription has ended before, with what is left.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    #[track_caller]
    pub fn settle(&self) -> impl Future<Output = ()> + '_ {
        let caller = Location::caller();
        async move {
            if let Err(error) = self.settle_within(SETTLE_WITHIN).await {
                panic!("at {caller}: {error}");
            }
        }
    }

    /// Waits as [`settle`](Self::settle) does, with a deadline of its own.
    ///
    /// # Errors
    ///
    /// [`Timeout`](crate::ErrorKind::Timeout) with what is left, at the deadline or as soon as a
    /// subscription has ended before everything was done; the errors of a server that does not
    /// say how far a group is; [`Config`](crate::ErrorKind::Config) if `within` is no duration.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn settle_within(&self, within: impl IntoDuration) -> Result<()> {
        idle::settle(&self.bus, &self.journal, within.into_duration()?).await
    }

    /// The events of a type that were published, in their order: by the test and by handlers, on
    /// every transport. Those that were refused are not among them, nor dead letters.
    ///
    /// # Panics
    ///
    /// If the data of one is not that of a `T`.
    #[track_caller]
    pub fn published<T: EventData + DeserializeOwned>(&self) -> Recorded<T> {
        let origin = self.bus.inner.config.service.origin.as_deref();
        let names = T::TYPES.iter().map(|info| with_origin(origin, info.name));
        let names: Vec<_> = names.collect();
        let is_of_type = |event_type: &str| names.iter().any(|name| name == event_type);
        let mut items = Vec::new();
        for it in &self.journal.log().published {
            if is_of_type(it.event.event_type()) {
                match T::from_event(&it.event) {
                    Ok(value) => items.push((value, it.line())),
                    Err(error) => panic!("{error}"),
                }
            }
        }
        Recorded::new(format!("published `{}`", names.join("`, `")), items)
    }

    /// The events that were published and whose type fits a pattern, in their order, with where
    /// they went.
    ///
    /// # Panics
    ///
    /// If the pattern is malformed.
    #[track_caller]
    pub fn published_raw(&self, pattern: &str) -> Recorded<PublishedEvent> {
        let parsed = match Pattern::parse(pattern) {
            Ok(parsed) => parsed,
            Err(error) => panic!("{error}"),
        };
        let log = self.journal.log();
        let items = log
            .published
            .iter()
            .filter(|it| parsed.matches(it.event.event_type()))
            .map(|it| (it.clone(), it.line()));
        Recorded::new(format!("published `{pattern}`"), items)
    }

    /// The events that failed for good, in the order in which they were put away.
    pub fn dead_letters(&self) -> Recorded<DeadLetter> {
        let log = self.journal.log();
        let items = log.dead_letters.iter().map(|it| (it.clone(), it.line()));
        Recorded::new("dead letters".to_owned(), items)
    }

    /// What a subscription has handled, in the order in which its handlers finished.
    pub fn handled(&self, subscription: &str) -> Recorded<Handling> {
        let handled = |progress| progress == Progress::Handled;
        self.handlings(
            format!("handled by `{subscription}`"),
            subscription,
            handled,
        )
    }

    /// The attempts of a subscription that failed and were followed by another, in their order.
    pub fn retried(&self, subscription: &str) -> Recorded<Handling> {
        let retried = |progress| progress == Progress::Retried;
        self.handlings(
            format!("retried by `{subscription}`"),
            subscription,
            retried,
        )
    }

    /// Everything that a subscription did, in its order: handled, retried, dropped, put away as a
    /// dead letter, given back.
    pub fn history(&self, subscription: &str) -> Recorded<Handling> {
        self.handlings(format!("steps of `{subscription}`"), subscription, |_| true)
    }

    /// Lets something go wrong from now on.
    ///
    /// ```
    /// # use polybus::testing::{Fault, TestBus};
    /// # fn example(bus: &TestBus) {
    /// bus.inject(Fault::reject("mail.sent").nth(2)); // the second mail's event is refused
    /// # }
    /// ```
    pub fn inject(&self, fault: Fault) -> Injected {
        self.journal.inject(fault)
    }

    fn handlings(
        &self,
        what: String,
        subscription: &str,
        which: impl Fn(Progress) -> bool,
    ) -> Recorded<Handling> {
        let log = self.journal.log();
        let items = log
            .handlings
            .iter()
            .filter(|it| it.subscription == subscription && which(it.progress))
            .map(|it| (it.clone(), it.line()));
        Recorded::new(what, items)
    }
}

impl Deref for TestBus {
    type Target = Bus;

    fn deref(&self) -> &Bus {
        &self.bus
    }
}

impl fmt::Debug for TestBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestBus")
            .field("bus", &self.bus)
            .finish_non_exhaustive()
    }
}
