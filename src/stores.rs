//! Which store keeps what a subscription has handled.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::bus::{Bus, Connected};
use crate::config::IdempotencyConfig;
use crate::idempotency::{IdempotencyStore, MemoryIdempotency};
use crate::runtime::{Idempotency, IdempotencyKey};
use crate::subscription::Subscribe;
use crate::transport::Transport;
use crate::{Error, ErrorKind, Event, Result, Text};

/// The name of the store that every bus has.
const MEMORY: &str = "memory";

/// The stores of a bus that are no transport's.
#[derive(Default)]
pub(crate) struct Stores {
    named: BTreeMap<Text, Arc<dyn IdempotencyStore>>,
    memory: OnceLock<Arc<MemoryIdempotency>>,
}

impl Stores {
    pub(crate) fn insert(&mut self, name: Text, store: Arc<dyn IdempotencyStore>) {
        self.named.insert(name, store);
    }

    /// The store that a config names: one that was given, a transport's, the one in memory.
    pub(crate) fn find(
        &self,
        config: &IdempotencyConfig,
        transports: &BTreeMap<Text, Connected>,
    ) -> Result<Arc<dyn IdempotencyStore>> {
        let name = config.store.as_str();
        if let Some(store) = self.named.get(name) {
            return Ok(Arc::clone(store));
        }
        let of_transport = transports
            .get(name)
            .map(|connected| connected.transport.idempotency());
        match of_transport {
            Some(Some(store)) => Ok(store),
            Some(None) => Err(wrong(config, "a transport that keeps no such thing")),
            None if name == MEMORY => {
                let memory: Arc<MemoryIdempotency> =
                    Arc::clone(self.memory.get_or_init(Arc::default));
                Ok(memory)
            }
            None => Err(wrong(config, "neither a transport nor a store")),
        }
    }
}

fn wrong(config: &IdempotencyConfig, what: &str) -> Error {
    let (store, origin) = (&config.store, config.origin().to_string());
    let place = match origin.as_str() {
        "" => String::new(),
        origin => format!(" ({origin})"),
    };
    Error::new(
        ErrorKind::Config,
        format!("`idempotency`{place} names the store `{store}`, which is {what}"),
    )
    .with_note("name a transport of kind `redis-streams`, or `memory` for this process alone")
    .with_note("give a store of your own with `Bus::builder().idempotency_store(name, store)`")
}

/// What a subscription says of it in code, beside its settings.
#[derive(Clone, Default)]
pub(crate) struct InCode {
    store: Option<Arc<dyn IdempotencyStore>>,
    key: Option<IdempotencyKey>,
}

impl<S> Subscribe<S> {
    /// Keeps an event that comes twice from being handled twice. Default: `idempotency` in the
    /// config, else off.
    ///
    /// Before its handler starts the event is claimed in a store, and it is marked there as done
    /// once the handler succeeded, before it is acknowledged. A copy that comes meanwhile waits,
    /// without counting an attempt; one that comes later is acknowledged and counted
    /// ([`Counts::duplicates`](crate::runtime::Counts::duplicates)). An event that failed is
    /// released: it is handled when it comes again. Without its store a subscription handles
    /// nothing; it waits for it.
    ///
    /// A process that dies between the effect of its handler and the mark leaves an event that is
    /// handled again, after the lease. [`idempotency`](crate::idempotency) says how to do without.
    ///
    /// ```no_run
    /// # use polybus::{Bus, Event, Payload};
    /// # #[derive(Event, serde::Serialize, serde::Deserialize)]
    /// # #[event(type = "order.placed")]
    /// # struct OrderPlaced {}
    /// # async fn charge(order: Payload<OrderPlaced>) {}
    /// # async fn example(bus: Bus) -> polybus::Result<()> {
    /// use polybus::config::IdempotencyConfig;
    ///
    /// let settings = IdempotencyConfig::new("redis");       // the transport of this name
    /// bus.subscribe("billing").on(charge).idempotency(settings).start().await?;
    /// # Ok(()) }
    /// ```
    pub fn idempotency(mut self, settings: IdempotencyConfig) -> Self {
        self.settings.idempotency = Some(settings);
        self
    }

    /// Sets the store of [`idempotency`](Self::idempotency), whatever the settings name. Without
    /// settings it is used with the default lease and retention.
    pub fn idempotency_store(mut self, store: impl IdempotencyStore) -> Self {
        self.idempotency.store = Some(Arc::new(store));
        self
    }

    /// Sets what makes two events the same for [`idempotency`](Self::idempotency): those with the
    /// same key, for one handler of one group. Default: their source and id.
    ///
    /// For producers that give a new id to what they send again: a hash of the content.
    ///
    /// ```no_run
    /// # use polybus::{Bus, Event, Payload};
    /// # #[derive(Event, serde::Serialize, serde::Deserialize)]
    /// # #[event(type = "deal.closed")]
    /// # struct DealClosed { hash: String }
    /// # async fn book(deal: Payload<DealClosed>) {}
    /// # async fn example(bus: Bus) -> polybus::Result<()> {
    /// let by_hash = |event: &polybus::event::Event| {
    ///     let deal: Option<DealClosed> = polybus::Codec::decode(event).ok();
    ///     deal.map_or_else(|| event.id().into(), |deal| deal.hash)
    /// };
    /// bus.subscribe("booking").on(book).idempotency_key(by_hash).start().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// A function that panics fails the event, as its handler's panic would.
    pub fn idempotency_key<K: Into<Text>>(
        mut self,
        key: impl Fn(&Event) -> K + Send + Sync + 'static,
    ) -> Self {
        self.idempotency.key = Some(Arc::new(move |event| key(event).into()));
        self
    }

    /// What the runtime does about it.
    pub(crate) fn find_idempotency(&self, bus: &Bus) -> Result<Option<Idempotency>> {
        let InCode { store, key } = self.idempotency.clone();
        let settings = match (&self.settings.idempotency, &store) {
            (Some(settings), _) => settings.clone(),
            (None, Some(_)) => IdempotencyConfig::new("own"),
            (None, None) if key.is_some() => {
                let error = "an `idempotency_key` without a store has no effect";
                return Err(Error::new(ErrorKind::Config, error)
                    .with_note("set `idempotency` of the subscription, in the config or in code"));
            }
            (None, None) => return Ok(None),
        };
        let inner = &bus.inner;
        let store = match store {
            Some(store) => store,
            None => inner.stores.find(&settings, &inner.transports)?,
        };
        Ok(Some(Idempotency {
            store,
            lease: settings.lease,
            retain: settings.retain,
            key,
        }))
    }
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.named.keys()).finish()
    }
}
