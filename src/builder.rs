use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::try_join_all;

use crate::bus::{Bus, Connected, Contracts};
use crate::config::{Config, Section};
use crate::format::{Format, FormatTable, Formats};
use crate::idempotency::IdempotencyStore;
use crate::kinds;
use crate::middleware::Publishing;
use crate::middleware::layers::{Layers, PublishLayer, Stage};
use crate::registries;
use crate::registry::{Registry, SchemaRegistry};
use crate::routing::RouteTable;
use crate::runtime::Observer;
use crate::stores::Stores;
use crate::transport::{DynTransport, TopicSpec, Transport, TransportConfig, TransportFactory};
use crate::validation::{Rules, TypeContract, Validation};
use crate::version::{Migration, Migrations};
use crate::{Error, ErrorKind, Event, EventData, Result, Text};

/// Builds a [`Bus`].
#[must_use = "a builder does nothing until `build` is called"]
pub struct BusBuilder {
    config: Source,
    factories: BTreeMap<String, Arc<dyn TransportFactory>>,
    in_memory: bool,
    profile: Option<Text>,
    rules: Rules,
    contracts: Vec<TypeContract>,
    formats: Formats,
    migrations: Vec<Migration>,
    /// Of each transport, the outermost first.
    layers: BTreeMap<Text, Result<Layers>>,
    stores: Stores,
    registry: Option<Arc<dyn SchemaRegistry>>,
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
            profile: None,
            rules: Rules::default(),
            contracts: Vec::new(),
            formats: Formats::default(),
            migrations: Vec::new(),
            layers: BTreeMap::new(),
            stores: Stores::default(),
            registry: None,
            watch: None,
        }
    }

    /// Reads the config from a file, when the bus is built.
    pub fn config_file(mut self, path: impl AsRef<Path>) -> Self {
        self.config = Source::File(path.as_ref().to_owned());
        self
    }

    /// Sets the [profile](crate::config#profiles) in which the config file is read, whichever the file
    /// or a variable names.
    ///
    /// ```no_run
    /// # use polybus::Bus;
    /// # async fn example() -> polybus::Result<()> {
    /// let bus = Bus::builder().config_file("polybus.toml").profile("production").build().await?;
    /// # Ok(()) }
    /// ```
    pub fn profile(mut self, profile: impl Into<Text>) -> Self {
        self.profile = Some(profile.into());
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

    /// Adds a rule of the program's own to what events of routes that [validate](crate::validation) are
    /// held to, when they are published and when they are handled. Its error is a fault of the event;
    /// one made by [`Error::invalid`] has several, each with its place.
    pub fn validate(
        mut self,
        check: impl Fn(&Event) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.rules.add(check);
        self
    }

    /// Adds a rule as [`validate`](Self::validate) does, one that has to wait for something. An error that
    /// is [retryable](Error::retryable) says that nobody knows yet: the event is published or handled
    /// later, as the retry settings say. It may take half a minute.
    ///
    /// Of what is published it is asked with each batch, after everything else was checked; of what is
    /// handled in the lane of its key, without a place of `concurrency`.
    pub fn validate_async<F>(mut self, check: impl Fn(Event) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.rules.add_async(check);
        self
    }

    /// Holds every event of the types of `T` to its [schema](EventData::schemas) on routes that
    /// [validate](crate::validation): also those that are published as an `Event`, and those that
    /// handlers take as they are. Values of `T`, and what handlers take as a `T`, are held to it
    /// without this.
    pub fn contract<T: EventData>(mut self) -> Self {
        self.contracts.push(TypeContract::of::<T>());
        self
    }

    /// Registers a step between two major versions of an event type's data. Steps are chained to the
    /// version that a handler takes; that a chain leads to one is checked when the subscription starts.
    pub fn migration(mut self, step: Migration) -> Self {
        self.migrations.push(step);
        self
    }

    /// Adds a [format](crate::format) that routes can choose by its name.
    pub fn format(mut self, format: impl Format) -> Self {
        self.formats = self.formats.with(format);
        self
    }

    /// Puts a layer of the program's own around everything that is published on a transport: events
    /// of all routes, those that fall back to it, and dead letters.
    ///
    /// It stands inside all layers of the config (see [`layers`](crate::middleware::layers)), next to
    /// the transport; of several the first one given is the outermost.
    ///
    /// ```no_run
    /// # use polybus::Bus;
    /// # use polybus::middleware::layers::PublishLayer;
    /// # async fn example(audit: impl PublishLayer) -> polybus::Result<()> {
    /// let bus = Bus::builder().config_file("polybus.toml").layer("kafka", audit).build().await?;
    /// # Ok(()) }
    /// ```
    pub fn layer(mut self, transport: impl Into<Text>, layer: impl PublishLayer) -> Self {
        let transport = transport.into();
        let layers = self.layers.remove(&transport);
        let layers = layers.unwrap_or_else(|| Ok(Layers::new()));
        let layers = layers.and_then(|layers| match layer.stage() {
            Stage::Own => layers.layer(layer),
            stage => Err(Error::new(
                ErrorKind::Config,
                format!("the layer `{stage}` of transport `{transport}` is not the program's own"),
            )
            .with_note("layers of ours are set in the config, for each route")),
        });
        self.layers.insert(transport, layers);
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

    /// Sets the [schema registry](crate::registry), in place of the one that `[schema_registry]` names.
    pub fn schema_registry(mut self, registry: impl SchemaRegistry) -> Self {
        self.registry = Some(Arc::new(registry));
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
    pub async fn build(mut self) -> Result<Bus> {
        let config = self.read_config()?;
        let routes = Arc::new(RouteTable::compile(&config)?);
        let rules = std::mem::take(&mut self.rules);
        let validation = Validation::new(&config, Arc::clone(&routes), &self.contracts, rules)?;
        let validation = Arc::new(validation);
        let migrations = Migrations::new(std::mem::take(&mut self.migrations))?;
        let layers = self.take_layers(&config)?;
        let registry = registries::find(&config, self.registry.take(), self.in_memory)?;
        let connecting = config
            .transports
            .keys()
            .map(|name| self.connect(&config, &routes, name, layers.get(name), registry.as_ref()));
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
        let publishing = Publishing::new(&config, &publishers, Some(Arc::clone(&validation)));
        let contracts = Contracts {
            migrations,
            validation,
            #[cfg(feature = "asyncapi")]
            formats: self.formats,
        };
        let observer = self.watch.map(|watch| watch.observer);
        let stores = self.stores;
        Ok(Bus::new(
            config, routes, transports, publishing, stores, observer, contracts,
        ))
    }

    fn read_config(&self) -> Result<Config> {
        let wrong = |what: &str, note: &str| Error::new(ErrorKind::Config, what).with_note(note);
        match (&self.config, self.profile.as_deref()) {
            (Source::File(path), profile) if self.in_memory => {
                Config::from_file_in_memory(path, profile)
            }
            (Source::File(path), Some(profile)) => Config::from_file_in_profile(path, profile),
            (Source::File(path), None) => Config::from_file(path),
            (Source::Config(config), None) => Ok((**config).clone()),
            (Source::Config(_), Some(_)) => Err(wrong(
                "a config that was read has its profile already",
                "give the profile where it is read: `Config::from_file_in_profile`",
            )),
            (Source::None, _) => Err(wrong(
                "a bus needs a config",
                "give it with `config_file` or `config`",
            )),
        }
    }

    /// The layers that were given, for transports that there are.
    fn take_layers(&mut self, config: &Config) -> Result<BTreeMap<Text, Layers>> {
        let layers = std::mem::take(&mut self.layers).into_iter();
        let layers = layers.map(|(name, layers)| {
            if config.transports.contains_key(&name) {
                return Ok((name, layers?));
            }
            let what = format!("a layer is for transport `{name}`, which the config does not have");
            Err(Error::new(ErrorKind::Config, what)
                .with_note("transports are named under [transports.<name>]"))
        });
        layers.collect()
    }

    async fn connect(
        &self,
        config: &Config,
        routes: &RouteTable,
        name: &Text,
        layers: Option<&Layers>,
        registry: Option<&Registry>,
    ) -> Result<(Text, Connected)> {
        let formats = FormatTable::of_transport(config, routes, name, &self.formats)?;
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
        let settings = TransportConfig::new(name.clone(), config.service.name.clone(), settings)
            .topics(declared_topics(config, routes, name)?);
        let transport = formats.around(factory.connect(settings).await?);
        let transport = match registry {
            Some(registry) => registry.around(config, name, transport),
            None => transport,
        };
        let transport = match &self.watch {
            Some(watch) => (watch.wrap)(name, transport),
            None => transport,
        };
        let publisher = transport.publisher().await?;
        let publisher = match layers {
            Some(layers) => layers.around(publisher),
            None => publisher,
        };
        Ok((
            name.clone(),
            Connected {
                transport,
                publisher,
            },
        ))
    }
}

/// The topics of a transport that the config declares, as they are to be.
fn declared_topics(
    config: &Config,
    routes: &RouteTable,
    transport: &Text,
) -> Result<Vec<TopicSpec>> {
    if config.topics.is_empty() {
        return Ok(Vec::new());
    }
    let wanted = routes.wanted_topics(config, &[])?.remove(transport);
    let declared = wanted.into_iter().flatten().filter(|it| it.declared);
    Ok(declared.map(|it| it.spec).collect())
}

impl fmt::Debug for BusBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusBuilder")
            .field("kinds", &self.factories.keys())
            .finish_non_exhaustive()
    }
}
