use crate::bus::Bus;
use crate::topic::TopicStep;
use crate::topic_plan::TopicPlan;
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

    /// What there is to do so that the topics are on the servers as the config wants them: those it
    /// declares under `[topics]`, those of its routes (but for templates that depend on the event
    /// type), and the topics of dead letters and of [long pauses](crate::config::DelayedRetry) that go
    /// with them: for a subscription that runs those of the topics that it reads, and for one that is
    /// only in the config, whose handlers are not known here, those of every topic of a route.
    ///
    /// ```no_run
    /// # async fn example(bus: polybus::Bus) -> polybus::Result<()> {
    /// let plan = bus.topics().plan().await?;
    /// println!("{plan}");
    /// plan.apply().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Config`](ErrorKind::Config) for a declared topic of which it is not known where it is; those
    /// of the servers.
    pub async fn plan(&self) -> Result<TopicPlan> {
        let wanted = self.bus.wanted_topics()?;
        let mut steps = Vec::new();
        for (transport, wanted) in wanted {
            let admin = self.admin(&transport)?;
            let names: Vec<_> = wanted
                .iter()
                .map(|it| self.topic(&transport, &Topic::new(it.spec.name.clone())))
                .collect();
            let found = admin.describe(&names).await?;
            let known = admin.topic_settings();
            let both = wanted.into_iter().zip(found);
            steps.extend(both.map(|(wanted, found)| {
                TopicStep::new(transport.clone(), wanted.spec, found.as_ref(), known)
            }));
        }
        Ok(TopicPlan::new(self.bus.clone(), steps))
    }

    /// Creates the topics of a [plan](Self::plan) that do not exist yet, and leaves the others as they
    /// are. Topics of a template that depends on the event's type are not known here;
    /// [`create`](Self::create) makes them. So services that may not create topics find all that they
    /// need.
    ///
    /// # Errors
    ///
    /// Those of [`plan`](Self::plan); of the servers: no right to create topics, not reachable.
    pub async fn ensure(&self) -> Result<()> {
        for (transport, wanted) in self.bus.wanted_topics()? {
            let specs: Vec<_> = wanted.into_iter().map(|it| it.spec).collect();
            self.create(&transport, &specs).await?;
        }
        Ok(())
    }

    /// The names of all topics of a transport, sorted: also those that are nobody's here.
    ///
    /// # Errors
    ///
    /// [`Config`](ErrorKind::Config) if there is no such transport;
    /// [`Unsupported`](ErrorKind::Unsupported) where the transport can't; those of the server.
    pub async fn list(&self, transport: &str) -> Result<Vec<Text>> {
        self.admin(transport)?.list().await
    }

    /// Creates topics on a transport that do not exist yet. The transport's `prefix` is put before
    /// names that do not begin with it, here and below. Where the transport
    /// [divides topics itself](crate::transport::Capabilities::splits_topics) (Redis Streams), the
    /// number of partitions is that of the config, by which everybody goes who uses the topic.
    ///
    /// # Errors
    ///
    /// [`Config`](ErrorKind::Config) if there is no such transport; those of the server.
    pub async fn create(&self, transport: &str, topics: &[TopicSpec]) -> Result<()> {
        let admin = self.admin(transport)?;
        let prefix = self.bus.inner.config.topic_prefix(transport);
        let mut topics: Vec<_> = topics.iter().map(|topic| topic.prefixed(&prefix)).collect();
        self.bus.use_known_partitions(transport, topics.iter_mut());
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
        self.bus
            .inner
            .routes
            .topic(transport, &prefix.apply(topic.name()))
    }

    pub(crate) fn admin(&self, transport: &str) -> Result<impl Admin + use<>> {
        let known = self.bus.transport(transport).ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                format!("no transport is named `{transport}`"),
            )
            .with_note("transports are named under [transports.<name>]")
        })?;
        Ok(known.admin())
    }
}
