use async_trait::async_trait;

use super::{DynTransport, TopicSpec};
use crate::config::Section;
use crate::{Result, Text};

/// Makes transports of one `kind` from their sections in the config.
///
/// Registered with a bus by name; that is how a transport that is not ours joins in.
#[async_trait]
pub trait TransportFactory: Send + Sync + 'static {
    /// The `kind` in the config that this factory serves.
    fn kind(&self) -> &str;

    /// Connects to the server that a section names.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) for a section that is wrong, with file, line and key
    /// (from [`Section::parse`]); [`Connect`](crate::ErrorKind::Connect) if the server can't be
    /// reached within the connect deadline, naming the address.
    async fn connect(&self, config: TransportConfig) -> Result<DynTransport>;
}

/// What a factory is given.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TransportConfig {
    /// The transport's name in the config: `[transports.<name>]`.
    pub name: Text,
    /// The service's name, for the client id that the server shows.
    pub service: Text,
    /// The settings, without `kind`.
    pub section: Section,
    /// The topics of the transport that the config declares, under their names on the server. A
    /// transport whose server keeps no settings of topics goes by them when it publishes.
    pub topics: Vec<TopicSpec>,
}

impl TransportConfig {
    /// The config of a transport.
    pub fn new(name: impl Into<Text>, service: impl Into<Text>, section: Section) -> Self {
        Self {
            name: name.into(),
            service: service.into(),
            section,
            topics: Vec::new(),
        }
    }

    /// Sets the topics that the config declares.
    #[must_use]
    pub fn topics(mut self, topics: Vec<TopicSpec>) -> Self {
        self.topics = topics;
        self
    }
}
