//! JSON Schemas: the only module that knows the library.

use serde_json::Value;

use super::Fault;
use crate::Result;
use crate::event::TypeInfo;

/// The JSON Schema of the data of an event type in a version.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TypeSchema {
    /// The event type and the version.
    pub info: TypeInfo,
    /// The schema.
    pub schema: Value,
}

impl TypeSchema {
    /// A schema of a version.
    pub fn new(info: TypeInfo, schema: Value) -> Self {
        Self { info, schema }
    }
}

/// A compiled schema.
#[cfg(feature = "schema")]
#[derive(Debug)]
pub(crate) struct Schema(jsonschema::Validator);

#[cfg(feature = "schema")]
impl Schema {
    /// Compiles a schema. `name` is what errors call it.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) if it is none, or refers to one elsewhere.
    pub(crate) fn compile(schema: &Value, name: &str) -> Result<Self> {
        let compiled = jsonschema::options()
            .should_validate_formats(true)
            .build(schema);
        compiled.map(Self).map_err(|error| {
            let what = format!("{name} is no JSON Schema: {error}");
            crate::Error::new(crate::ErrorKind::Config, what)
                .with_note("a schema stands by itself: nothing that it refers to is fetched")
        })
    }

    /// Adds what is wrong with data.
    pub(super) fn check(&self, data: &Value, faults: &mut Vec<Fault>) {
        if self.0.is_valid(data) {
            return;
        }
        // Masked: a value may be private, and long.
        let found = self.0.iter_errors(data).map(|error| {
            let pointer = error.instance_path().to_string();
            let fault = Fault::in_data(pointer, error.masked_with("it").to_string());
            fault.with_keyword(error.kind().keyword())
        });
        faults.extend(found);
    }
}

/// No schema: they need a feature.
#[cfg(not(feature = "schema"))]
#[derive(Debug)]
pub(crate) enum Schema {}

#[cfg(not(feature = "schema"))]
impl Schema {
    pub(crate) fn compile(_: &Value, name: &str) -> Result<Self> {
        Err(missing_feature(name))
    }

    pub(super) fn check(&self, _: &Value, _: &mut Vec<Fault>) {
        match *self {}
    }
}

/// What a schema is in a build that knows none.
#[cfg(not(feature = "schema"))]
pub(super) fn missing_feature(what: &str) -> crate::Error {
    let what = format!("{what} needs the feature `schema`");
    crate::Error::new(crate::ErrorKind::MissingFeature, what).with_note(format!(
        "polybus = {{ version = \"{}\", features = [\"schema\"] }}",
        env!("CARGO_PKG_VERSION")
    ))
}

#[cfg(all(test, not(feature = "schema")))]
mod tests {
    use std::sync::Arc;

    use crate::ErrorKind;
    use crate::config::Config;
    use crate::routing::RouteTable;
    use crate::validation::{Rules, Validation};

    #[test]
    fn schemas_without_the_feature_are_an_error_that_names_it() {
        let text = "[service]\nname = 's'\nschemas = 'schemas'";
        let config = Config::parse(text, "polybus.toml").unwrap();
        let routes = Arc::new(RouteTable::compile(&config).unwrap());
        let error = Validation::new(&config, routes, &[], Rules::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MissingFeature);
        assert!(
            error.to_string().contains("features = [\"schema\"]"),
            "{error}"
        );
    }
}
