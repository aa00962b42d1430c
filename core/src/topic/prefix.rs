use std::borrow::Cow;

use super::Topic;
use crate::Text;

/// What stands before the name of every topic of a transport: `prefix` in the config.
///
/// ```
/// use polybus_core::topic::TopicPrefix;
///
/// let prefix = TopicPrefix::new("staging.");
/// assert_eq!(prefix.apply("users").name(), "staging.users");
/// assert_eq!(prefix.apply("staging.users").name(), "staging.users");
/// assert_eq!(prefix.strip("staging.users"), "users");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicPrefix(Text);

impl TopicPrefix {
    /// A prefix; empty for none.
    pub fn new(prefix: impl Into<Text>) -> Self {
        Self(prefix.into())
    }

    /// The prefix as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The topic of a name, with the prefix before it. A name that begins with it is left as it is,
    /// so that the name of a topic may be given either way.
    pub fn apply(&self, name: &str) -> Topic {
        Topic::new(Text::from(self.put_before(name)))
    }

    /// A name without the prefix.
    pub fn strip<'a>(&self, name: &'a str) -> &'a str {
        name.strip_prefix(self.0.as_str()).unwrap_or(name)
    }

    fn put_before<'a>(&self, name: &'a str) -> Cow<'a, str> {
        if name.starts_with(self.0.as_str()) {
            Cow::Borrowed(name)
        } else {
            Cow::Owned(format!("{}{name}", self.0))
        }
    }
}
