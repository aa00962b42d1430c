//! Topics: the named logs of a transport.

mod difference;
mod pattern;
mod plan;
mod prefix;
mod settings;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

pub use difference::{ChangeCost, TopicChange, TopicDifference};
pub use pattern::{TopicPart, TopicPattern};
pub use plan::{TopicAction, TopicStep};
pub use prefix::TopicPrefix;
pub use settings::{Cleanup, Limit, TopicCompression, TopicSetting, TopicSettings};

use crate::Text;

/// A named log on a transport: a Kafka topic, a Redis stream. Cheap to clone.
///
/// Two topics are equal if their names are.
///
/// ```
/// use polybus_core::Topic;
///
/// let topic = Topic::new("user-events").with_partitions(8);
/// assert_eq!(topic.partitions(), Some(8));
/// assert_eq!(topic, Topic::new("user-events"));
/// ```
#[derive(Clone)]
pub struct Topic(Arc<Inner>);

struct Inner {
    name: Text,
    partitions: Option<u32>,
}

impl Topic {
    /// A topic by its name on the server.
    pub fn new(name: impl Into<Text>) -> Self {
        Self(Arc::new(Inner {
            name: name.into(),
            partitions: None,
        }))
    }

    /// The same topic, known to be divided into so many partitions (at least 1).
    ///
    /// A transport whose server divides topics by itself goes by what the server says. One that
    /// [divides them itself](crate::transport::Capabilities::splits_topics) goes by this number,
    /// so everybody who uses the topic has to name the same one.
    #[must_use]
    pub fn with_partitions(&self, partitions: u32) -> Self {
        Self(Arc::new(Inner {
            name: self.0.name.clone(),
            partitions: Some(partitions.max(1)),
        }))
    }

    /// Into how many partitions the topic is known to be divided. `None` unless it was said.
    pub fn partitions(&self) -> Option<u32> {
        self.0.partitions
    }

    /// The name on the server.
    pub fn name(&self) -> &str {
        &self.0.name
    }
}

impl PartialEq for Topic {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.name == other.0.name
    }
}

impl Eq for Topic {}

impl Hash for Topic {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({})", self.0.name)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name)
    }
}

impl<T: Into<Text>> From<T> for Topic {
    fn from(name: T) -> Self {
        Self::new(name)
    }
}
