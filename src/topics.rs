use std::collections::BTreeSet;

use crate::bus::Bus;
use crate::config::{RouteConfig, SubscriptionConfig};
use crate::lifecycle::delayed_topics;
use crate::topic::TopicPrefix;
use crate::transport::{Admin, Lag, Start, TopicDescription, TopicSpec, Transport};
use crate::{Error, ErrorKind, Result, Text, Topic};

/// The topics of a bus. See [`Bus::topics`].
#[derive(Debug, Clone)]
pub struct Topics {
    bus: Bus,
}

impl Topics {
    pub(crate) fn new(bus: Bus) -> Self {
        Self { bus }
    }

    /// Creates the topics of all routes that do not exist yet, with the server's defaults, and
    /// leaves the others as they are. Topics of a template that depends on the event's type are
    /// not known here; [`create`](Self::create) makes them.
    ///
    /// Beside them it creates those of dead letters and of long pauses
    /// ([`retry.delayed`](crate::config::DelayedRetry)): for a subscription that runs those of the
    /// topics that it reads, and for one that is only in the config, whose handlers are not known
    /// here, those of every topic above. So that services which may not create topics find all that
    /// they need.
    ///
    /// # Errors
    ///
    /// Those of the server: no right to create topics, not reachable.
    pub async fn ensure(&self) -> Result<()> {
        let running = self.running();
        for (transport, known) in self.known() {
            let prefix = self.bus.inner.config.topic_prefix(&transport);
            let known: Vec<_> = known.iter().map(|name| prefix.apply(name)).collect();
            let mut topics: BTreeSet<Text> = known.iter().map(|it| it.name().into()).collect();
            for needs in self.needs(&running, &transport, &known) {
                topics.extend(needs.topics(&prefix));
            }
            let specs: Vec<_> = topics.into_iter().map(TopicSpec::new).collect();
            self.create(&transport, &specs).await?;
        }
        Ok(())
    }

    /// What subscriptions read: those that run.
    fn running(&self) -> Vec<Needs> {
        let config = &self.bus.inner.config;
        let tasks = self.bus.inner.lock_subscriptions();
        let needs = tasks.iter().flat_map(|task| {
            let handle = task.handle();
            handle.admins.iter().map(|(transport, _, topics)| Needs {
                name: handle.name().into(),
                group: handle.group().into(),
                transport: transport.clone(),
                topics: topics.clone(),
                settings: config.subscription(handle.name()),
            })
        });
        needs.collect()
    }

    /// What subscriptions read on a transport: those that run, and those in the config.
    fn needs(&self, running: &[Needs], transport: &str, known: &[Topic]) -> Vec<Needs> {
        let config = &self.bus.inner.config;
        let is_idle = |name: &Text| running.iter().all(|it| it.name != *name);
        let idle = config.subscriptions.iter();
        let idle = idle.filter(|(name, _)| is_idle(name));
        let idle = idle.map(|(name, settings)| {
            let group = settings.group.as_ref().unwrap_or(&config.service.name);
            Needs {
                name: name.clone(),
                group: group.clone(),
                transport: transport.into(),
                topics: known.to_vec(),
                settings: settings.clone(),
            }
        });
        let running = running.iter().filter(|it| it.transport == transport);
        running.cloned().chain(idle).collect()
    }

    /// Creates topics on a transport that do not exist yet. The transport's `prefix` is put before
    /// names that do not begin with it, here and below.
    ///
    /// # Errors
    ///
    /// [`Config`](ErrorKind::Config) if there is no such transport; those of the server.
    pub async fn create(&self, transport: &str, topics: &[TopicSpec]) -> Result<()> {
        let admin = self.admin(transport)?;
        let prefix = self.bus.inner.config.topic_prefix(transport);
        let topics: Vec<_> = topics.iter().map(|topic| topic.prefixed(&prefix)).collect();
        admin.ensure_topics(&topics).await
    }

    /// The state of a topic, `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// [`Config`](ErrorKind::Config) if there is no such transport; those of the server.
    pub async fn describe(
        &self,
        transport: &str,
        topic: impl Into<Topic>,
    ) -> Result<Option<TopicDescription>> {
        let topic = self.topic(transport, &topic.into());
        let described = self.admin(transport)?.describe(&[topic]).await?;
        Ok(described.into_iter().next().flatten())
    }

    /// How far a group is behind on a topic.
    ///
    /// # Errors
    ///
    /// [`Config`](ErrorKind::Config) if there is no such transport; those of the server.
    pub async fn lag(&self, transport: &str, group: &str, topic: impl Into<Topic>) -> Result<Lag> {
        let topic = self.topic(transport, &topic.into());
        let lag = self.admin(transport)?.lag(group, &[topic]).await?;
        Ok(lag.into_iter().next().unwrap_or_default())
    }

    /// Moves a group to another place in a topic: back to handle events again, or ahead to skip
    /// some. The subscription that joins next goes on from there, whatever its own `start` says.
    ///
    /// Only while the group has no members, in this process and in others. What it had received
    /// and not settled is forgotten. Handlers get events again that they have handled: idempotent
    /// ones are ready for that.
    ///
    /// ```
    /// use polybus::{Start, Timestamp};
    /// # async fn example(bus: polybus::Bus) -> polybus::Result<()> {
    /// let yesterday: Timestamp = "2026-11-20T00:00:00Z".parse().expect("a point in time");
    /// bus.topics().reset("kafka", "deal-watch", "deals", Start::time(yesterday)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Config`](ErrorKind::Config) if there is no such transport; [`InUse`](ErrorKind::InUse)
    /// while the group has members, and nothing was moved; [`Unsupported`](ErrorKind::Unsupported)
    /// where the transport can't; those of the server.
    pub async fn reset(
        &self,
        transport: &str,
        group: &str,
        topic: impl Into<Topic>,
        to: Start,
    ) -> Result<()> {
        let admin = self.admin(transport)?;
        let topic = self.topic(transport, &topic.into());
        admin.reset(group, &[topic], to).await
    }

    fn topic(&self, transport: &str, topic: &Topic) -> Topic {
        let prefix = self.bus.inner.config.topic_prefix(transport);
        prefix.apply(topic.name())
    }

    fn admin(&self, transport: &str) -> Result<impl Admin + use<>> {
        let known = self.bus.transport(transport).ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                format!("no transport is named `{transport}`"),
            )
            .with_note("transports are named under [transports.<name>]")
        })?;
        Ok(known.admin())
    }

    /// The topics that routes name outright, for each transport.
    fn known(&self) -> Vec<(Text, Vec<Text>)> {
        let config = &self.bus.inner.config;
        let known = |name: &Text| {
            let routes = config
                .routes
                .iter()
                .filter(|route| route.transport == *name);
            let topics = routes.map(|route: &RouteConfig| route.topic.clone());
            let default = config
                .routing
                .default
                .iter()
                .filter(|route| route.transport == *name);
            let topics = topics.chain(default.map(|route| route.topic.clone()));
            (
                name.clone(),
                topics.filter(|topic| !topic.contains('{')).collect(),
            )
        };
        config.transports.keys().map(known).collect()
    }
}

/// What a subscription reads on a transport.
#[derive(Debug, Clone)]
struct Needs {
    name: Text,
    group: Text,
    transport: Text,
    topics: Vec<Topic>,
    settings: SubscriptionConfig,
}

impl Needs {
    /// The topics of dead letters and of long pauses that it needs beside.
    fn topics(&self, prefix: &TopicPrefix) -> Vec<Text> {
        let settings = &self.settings;
        let topics = self.topics.iter();
        let letters = topics.filter_map(|topic| settings.dead_letter.topic(topic, prefix));
        let delayed = delayed_topics(settings, &self.group, &self.topics, prefix);
        let all = letters.chain(delayed.into_iter().flatten());
        all.map(|topic| topic.name().into()).collect()
    }
}
