use crate::bus::Bus;
use crate::config::RouteConfig;
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

    /// Creates the topics of all routes that do not exist yet, with the number of partitions that
    /// their routes say and else the server's defaults, and leaves the others as they are. Topics of a template that depends on the event's type are
    /// not known here; [`create`](Self::create) makes them.
    ///
    /// # Errors
    ///
    /// Those of the server: no right to create topics, not reachable.
    pub async fn ensure(&self) -> Result<()> {
        for (transport, topics) in self.known() {
            self.create(&transport, &topics).await?;
        }
        Ok(())
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
        self.bus.inner.config.topic(transport, topic.name())
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
    fn known(&self) -> Vec<(Text, Vec<TopicSpec>)> {
        let config = &self.bus.inner.config;
        let known = |name: &Text| {
            let routes = config.routes.iter().map(|it: &RouteConfig| {
                let RouteConfig {
                    transport, topic, ..
                } = it;
                (transport, topic, it.partitions)
            });
            let default = config.routing.default.iter();
            let default = default.map(|it| (&it.transport, &it.topic, it.partitions));
            let topics = routes.chain(default);
            let topics = topics.filter(|(on, topic, _)| *on == name && !topic.contains('{'));
            let specs = topics.map(|(_, topic, partitions)| {
                let spec = TopicSpec::new(topic.clone());
                partitions.into_iter().fold(spec, TopicSpec::partitions)
            });
            (name.clone(), specs.collect())
        };
        config.transports.keys().map(known).collect()
    }
}
