//! What an event has to be: its envelope, the JSON Schema of its data, and the program's own rules.
//!
//! A route says with `validate` how much of a fault an event of it may have, when it is published and
//! when it is handled: `"strict"`, `"warn"` or `"off"`, the default.
//!
//! What is checked, all of it each time, so that one [`Report`] lists every [`Fault`]:
//!
//! - the envelope: its attributes, and whether the data is the JSON or the text that its content type
//!   says;
//! - the schema of the data: that of the Rust type which is published, or which the handler takes, in
//!   the version that the event has ([`EventData::schemas`]); or of a file `user.created@1.json`
//!   ([`schemas`](crate::config::ServiceConfig::schemas)), which stands in place of the type's. A schema
//!   is compiled once. Data in Avro and Protobuf have a schema of their own, and are not held to it;
//! - the rules of the type ([`EventData::faults`]), and those of the program.
//!
//! Schemas are read as JSON Schema 2020-12 unless they name another draft. Nothing is fetched.

mod contract;
#[cfg(feature = "schema")]
mod files;
mod report;
mod rules;
mod schema;
mod structure;

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use serde::de::DeserializeOwned;

pub use contract::{Contract, TypeContract};
pub(crate) use report::add_own;
#[cfg(feature = "garde")]
pub(crate) use report::pointer_of;
pub use report::{Fault, Report};
pub use rules::Rules;
pub use schema::TypeSchema;

use crate::config::{self, Config};
use crate::event::EventData;
use crate::routing::RouteTable;
use crate::version::{self, Migrations};
use crate::{Event, Result};
use contract::Known;

/// How events are validated: what a bus knows of them, and how strict its routes are.
pub struct Validation {
    routes: Arc<RouteTable>,
    /// By route, the default last.
    modes: Vec<config::Validate>,
    /// Of files, and of the types that a program names.
    known: Known,
    /// Of the types that are published and handled, as they come.
    types: RwLock<HashMap<TypeId, Arc<Contract>>>,
    rules: Rules,
}

impl Validation {
    /// What a config asks for, with the schemas of the types that a program names, and its rules.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) for schemas that can't be read or are none;
    /// [`MissingFeature`](crate::ErrorKind::MissingFeature) for schemas without the feature `schema`.
    pub fn new(
        config: &Config,
        routes: Arc<RouteTable>,
        named: &[TypeContract],
        rules: Rules,
    ) -> Result<Self> {
        let of_routes = config.routes.iter().map(|route| route.publish.validate);
        let default = config.routing.default.as_ref();
        let modes = of_routes.chain(default.map(|route| route.publish.validate));
        let mut known = Known::new(config.service.origin.clone());
        if let Some(folder) = config.schemas() {
            known.add_files(&folder)?;
        }
        for contract in named {
            known.add_type(contract)?;
        }
        Ok(Self {
            routes,
            modes: modes.collect(),
            known,
            types: RwLock::default(),
            rules,
        })
    }

    /// Whether no route validates.
    pub fn is_off(&self) -> bool {
        let off = |mode: &config::Validate| *mode == config::Validate::Off;
        self.modes.iter().all(off)
    }

    /// How strict the route of an event type is.
    pub(crate) fn mode_of(&self, event_type: &str) -> config::Validate {
        let resolved = self.routes.resolve(event_type);
        let route = resolved.map(|resolved| resolved.route.unwrap_or(self.modes.len() - 1));
        route.map_or(config::Validate::Off, |route| self.modes[route])
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Everything that is wrong with an event, but for what the rules that have to wait say. `contract`
    /// is that of its Rust type, if it has one here.
    ///
    /// # Errors
    ///
    /// Those of a schema of the type that is none.
    pub(crate) fn faults(
        &self,
        event: &Event,
        contract: Option<&TypeContract>,
    ) -> Result<Vec<Fault>> {
        let contract = contract.map(|contract| self.compiled(contract));
        let contract = contract.transpose()?;
        let known = self.known.find(event);
        let schema = known.or_else(|| contract.as_ref()?.schema_of(event));
        let mut faults = Vec::new();
        structure::check(event, schema.map(|schema| &**schema), &mut faults);
        self.rules.check(event, &mut faults);
        Ok(faults)
    }

    /// Refuses an event that has faults, or only tells of them.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`](crate::ErrorKind::InvalidEvent) with the report, if the route is strict.
    pub(crate) fn judge(
        mode: config::Validate,
        event: &Event,
        faults: Vec<Fault>,
        doing: &'static str,
    ) -> Result<()> {
        if faults.is_empty() || mode == config::Validate::Off {
            return Ok(());
        }
        let report = Report::of(event, faults);
        if mode == config::Validate::Strict {
            return Err(report.into_error(doing));
        }
        tracing::warn!(event_type = event.event_type(), event_id = event.id(), %report,
            "an invalid event passes, since its route only warns ({doing})");
        Ok(())
    }

    /// Asks the rules that have to wait about an event.
    ///
    /// # Errors
    ///
    /// Those of [`judge`](Self::judge), and on a strict route that of a rule which does not know.
    pub(crate) async fn ask(
        &self,
        mode: config::Validate,
        event: &Event,
        doing: &'static str,
    ) -> Result<()> {
        if mode == config::Validate::Off || !self.rules.wait() {
            return Ok(());
        }
        match self.rules.check_async(event).await {
            Ok(faults) => Self::judge(mode, event, faults, doing),
            Err(error) if mode == config::Validate::Strict => Err(error),
            Err(error) => {
                tracing::warn!(event_type = event.event_type(), event_id = event.id(), %error,
                    "an event passes about which a rule does not know, since its route only warns ({doing})");
                Ok(())
            }
        }
    }

    /// Checks an event for a handler that takes it as it is.
    ///
    /// # Errors
    ///
    /// Those of [`judge`](Self::judge).
    pub(crate) fn admit(&self, event: &Event) -> Result<()> {
        let mode = self.mode_of(event.event_type());
        if mode == config::Validate::Off {
            return Ok(());
        }
        Self::judge(mode, event, self.faults(event, None)?, "handle")
    }

    /// The data of an event for a handler, after they were checked.
    ///
    /// # Errors
    ///
    /// Those of [`judge`](Self::judge), and of [`EventData::from_event`].
    pub(crate) fn read<T: EventData + DeserializeOwned>(
        &self,
        event: &Event,
        migrations: Option<&Migrations>,
    ) -> Result<T> {
        let mode = self.mode_of(event.event_type());
        if mode == config::Validate::Off {
            return version::decode(event, migrations);
        }
        let mut faults = self.faults(event, Some(&TypeContract::of::<T>()))?;
        let data = version::decode::<T>(event, migrations);
        if let Ok(data) = &data {
            add_own(&mut faults, data.faults());
        }
        Self::judge(mode, event, faults, "handle")?;
        data
    }

    /// The contract of a type, compiled the first time.
    fn compiled(&self, contract: &TypeContract) -> Result<Arc<Contract>> {
        // A panic can't leave the map half changed.
        let types = self.types.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = types.get(&contract.id()) {
            return Ok(Arc::clone(known));
        }
        drop(types);
        let compiled = Arc::new(contract.compile()?);
        let mut types = self.types.write().unwrap_or_else(PoisonError::into_inner);
        types.insert(contract.id(), Arc::clone(&compiled));
        Ok(compiled)
    }
}

impl fmt::Debug for Validation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Validation")
            .field("modes", &self.modes)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}
