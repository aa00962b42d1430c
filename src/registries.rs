//! The schema registry that a config names.

use std::sync::Arc;
use std::time::Duration;

use crate::Result;
use crate::config::Config;
use crate::registry::{MemoryRegistry, Registry, SchemaRegistry, SubjectName};
#[cfg(not(feature = "schema-registry"))]
use crate::{Error, ErrorKind};

/// How long a call of a registry may take that was given in code.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The registry of a bus, if a route asks for one: the one that was given, one in memory for a bus in
/// memory, or else the one of the config.
pub(crate) fn find(
    config: &Config,
    given: Option<Arc<dyn SchemaRegistry>>,
    in_memory: bool,
) -> Result<Option<Registry>> {
    let Some(route) = config.first_registered() else {
        return Ok(None);
    };
    if let Some(given) = given {
        let registry = Registry::shared(given, SubjectName::default(), TIMEOUT);
        return Ok(Some(registry));
    }
    if in_memory {
        let registry = MemoryRegistry::default();
        let registry = Registry::new(registry, SubjectName::default(), TIMEOUT);
        return Ok(Some(registry));
    }
    let Some(section) = &config.schema_registry else {
        return Err(route.with_note("name it: [schema_registry] with a `url`"));
    };
    #[cfg(feature = "schema-registry")]
    return polybus_schema_registry::connect(section).map(Some);
    #[cfg(not(feature = "schema-registry"))]
    {
        let _ = section;
        let what = "[schema_registry] needs the feature `schema-registry`";
        Err(
            Error::new(ErrorKind::MissingFeature, what).with_note(format!(
                "polybus = {{ version = \"{}\", features = [\"schema-registry\"] }}",
                env!("CARGO_PKG_VERSION")
            )),
        )
    }
}
