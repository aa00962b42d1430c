use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;

use super::Origin;
use super::deserialize::deserialize;
use super::fault::Shown;
use super::toml;
use super::tree::{Node, Path, Table, Value};
use crate::{Error, Result};

/// A table of the config whose keys its reader knows: the settings of a transport.
///
/// `Debug` shows the keys and hides the values, which may be secret. In a test, a section can
/// be parsed from TOML text.
#[derive(Clone)]
pub struct Section {
    /// Always a table.
    node: Node,
    /// The way to the table from the top of the config: `transports.kafka`.
    path: String,
}

impl Section {
    pub(super) fn new(table: Table, origin: Origin, path: String) -> Self {
        Self {
            node: Node::new(Value::Table(table), origin),
            path,
        }
    }

    /// The settings as a type, which should `#[serde(deny_unknown_fields)]`.
    ///
    /// [`fields`](super::fields) reads durations and sizes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) with file, line and the key's path for an
    /// unknown key, a missing one, or a value of the wrong type. Values do not show in it: text
    /// of the section is taken out of what `T` says about a wrong value.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        deserialize(&self.node, Path::Start(&self.path), Shown::Nothing)
    }

    /// The error of a setting that [`parse`](Self::parse) can't judge, as one that contradicts
    /// another: [`ErrorKind::Config`](crate::ErrorKind::Config) with file, line and the key's path
    /// before `what`, which must show no secret.
    pub fn invalid(&self, key: &str, what: &str) -> Error {
        let start = Path::Start(&self.path);
        let node = self.node.child(key).unwrap_or(&self.node);
        node.origin.error(&Path::Key(&start, key).to_string(), what)
    }

    /// Whether there is no setting.
    pub fn is_empty(&self) -> bool {
        self.keys().next().is_none()
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        self.node.as_table().into_iter().flat_map(Table::keys)
    }
}

impl Default for Section {
    /// No settings.
    fn default() -> Self {
        Self::new(Table::default(), Origin::Code, String::new())
    }
}

impl FromStr for Section {
    type Err = Error;

    /// Reads TOML text, without the environment. Errors call it `section`.
    fn from_str(text: &str) -> Result<Self> {
        let node = toml::read(text, "section")?;
        Ok(Self {
            node,
            path: String::new(),
        })
    }
}

impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keys()).finish()
    }
}
