use std::fmt;

use serde::de::DeserializeOwned;

use crate::{Error, ErrorKind, Result};

/// A table of the config whose keys its reader knows: the settings of a transport.
///
/// `Debug` shows the keys and hides the values, which may be secret.
#[derive(Clone, Default)]
pub struct Section {
    table: toml::Table,
}

impl Section {
    /// The settings as a type that denies unknown fields.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] with file, line and the key's path for an unknown key, a missing
    /// one, or a value of the wrong type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        let deserializer = toml::Value::Table(self.table.clone());
        serde_path_to_error::deserialize(deserializer)
            .map_err(|error| Error::new(ErrorKind::Config, error.to_string()))
    }
}

impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.table.keys()).finish()
    }
}
