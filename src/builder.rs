use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::try_join_all;

use crate::bus::{Bus, Connected};
use crate::config::{Config, Section};
use crate::idempotency::IdempotencyStore;
use crate::kinds;
use crate::middleware::Publishing;
use crate::middleware::layers::Validator;
use crate::routing::RouteTable;
use crate::runtime::Observer;
use crate::stores::Stores;
use crate::transport::{DynTransport, Transport, TransportConfig, TransportFactory};
use crate::{Error, ErrorKind, Event, Result, Text};

/// Builds a [`Bus`].
#[must_use = "a builder does nothing until `build` is called"]
pub struct BusBuilder {
    config: Source,
    factories: BTreeMap<String, Arc<dyn TransportFactory>>,
    in_memory: bool,
    validator: Option<Validator>,
    stores: Stores,
    watch: Option<Watch>,
}

/// Puts a transport into another one, by its name.
type Wrap = dyn Fn(&Text, DynTransport) -> DynTransport + Send + Sync;

/// Looks on, for a test.
pub(crate) struct Watch {
    /// Is given every transport.
    pub(crate) wrap: Box<Wrap>,
    /// Sees what subscriptions do.
    pub(crate) observer: Arc<dyn Observer>,
}

/// Where the config comes from.
enum Source {
    None,
    File(PathBuf),
    Config(Box<Config>),
}

impl BusBuilder {
    pub(crate) fn new() -> Self {
        let factories = kinds::built_in().into_iter();
        let factories = factories
            .map(|factory| (factory.kind().to_owned(), factory))
            .collect();
        Self {
            config: Source::None,
            factories,
            in_memory: false,
            validator: None,
            stores: Stores::default(),
            watch: None,
        }
    }

    /// Reads the config from a file, when the bus is built.
    pub fn config_file(mut self, path: impl AsRef<Path>) -> Self {
        self.config = Source::File(path.as_ref().to_owned());
        self
    }

    /// Sets the config.
    pub fn config(mut self, config: Config) -> Self {
        self.config = Source::Config(Box::new(config));
        self
    }

    /// Registers a kind of transport: one that is not ours, or another maker of a kind of ours.
    pub fn register(mut self, factory: impl TransportFactory) -> Self {
        self.factories
            .insert(factory.kind().to_owned(), Arc::new(factory));
        self
    }

    /// Runs every transport of the config in memory, each with a broker of its own, whatever its
    /// `kind` and settings say: variables that only those settings name need not be set. For
    /// tests: same file, same program, no server.
    #[cfg(feature = "memory")]
    pub fn in_memory(mut self) -> Self {
        self.in_memory = true;
        self
    }

    /// Checks events before they are sent, on routes with `validate = "strict"`, after what is
    /// checked there of every event. An error is the outcome of the event, which is not sent.
    pub fn validate(
        mut self,
        check: impl Fn(&Event) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.validator = Some(Validator::new(check));
        self
    }

    /// Names a store that keeps which events were handled, for the settings `idempotency` of
    /// subscriptions: one that is no transport's, as a table of a database.
    pub fn idempotency_store(
        mut self,
        name: impl Into<Text>,
        store: impl IdempotencyStore,
    ) -> Self {
        self.stores.insert(name.into(), Arc::new(store));
        self
    }

    /// Lets a test look on.
    pub(crate) fn watched(mut self, watch: Watch) -> Self {
        self.watch = Some(watch);
        self
    }

    /// Compiles the routes and connects to every transport, all at once.
    ///
    /// # Errors
    ///
    /// [`Config`](ErrorKind::Config) without a config, and for what is wrong in it with file, line
    /// and key;
    /// [`UnknownTransport`](ErrorKind::UnknownTransport) for a `kind` that nobody registered;
    /// [`MissingFeature`](ErrorKind::MissingFeature) for one that is not compiled in;
    /// [`Connect`](ErrorKind::Connect) for a server that can't be reached.
    pub async fn build(self) -> Result<Bus> {
        let config = match &self.config {
            Source::File(path) if self.in_memory => Config::from_file_in_memory(path)?,
            Source::File(path) => Config::from_file(path)?,
            Source::Config(config) => (**config).clone(),
            Source::None => {
                return Err(Error::new(ErrorKind::Config, "a bus needs a config")
                    .with_note("give it with `config_file` or `config`"));
            }
        };
        let routes = RouteTable::compile(&config)?;
        let connecting = config
            .transports
            .keys()
            .map(|name| self.connect(&config, name));
        let transports: BTreeMap<Text, Connected> =
            try_join_all(connecting).await?.into_iter().collect();
        for subscription in config.subscriptions.values() {
            if let Some(idempotency) = &subscription.idempotency {
                self.stores.find(idempotency, &transports)?;
            }
        }
        let publishers = transports.iter();
        let publishers = publishers
            .map(|(name, connected)| (name.clone(), connected.publisher.clone()))
            .collect();
        let publishing = Publishing::new(&config, &publishers, self.validator.as_ref());
        let observer = self.watch.map(|watch| watch.observer);
        let stores = self.stores;
        Ok(Bus::new(
            config, routes, transports, publishing, stores, observer,
        ))
    }

    async fn connect(&self, config: &Config, name: &Text) -> Result<(Text, Connected)> {
        let section = &config.transports[name];
        let (kind, settings) = if self.in_memory {
            (kinds::MEMORY, Section::default())
        } else {
            (section.kind.as_str(), section.section.clone())
        };
        let factory = self
            .factories
            .get(kind)
            .ok_or_else(|| kinds::unknown(kind, name, &section.origin, self.factories.keys()))?;
        let settings = TransportConfig::new(name.clone(), config.service.name.clone(), settings);
        let transport = factory.connect(settings).await?;
        let transport = match &self.watch {
            Some(watch) => (watch.wrap)(name, transport),
            None => transport,
        };
        let publisher = transport.publisher().await?;
        Ok((
            name.clone(),
            Connected {
                transport,
                publisher,
            },
        ))
    }
}

impl fmt::Debug for BusBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusBuilder")
            .field("kinds", &self.factories.keys())
            .finish_non_exhaustive()
    }
}
