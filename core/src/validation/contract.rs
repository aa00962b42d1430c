//! The schemas that are known, and which of them an event is held to.

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use foldhash::fast::RandomState;

#[cfg(feature = "schema")]
use super::files;
use super::schema::{Schema, TypeSchema};
use super::{Report, structure};
use crate::event::EventData;
use crate::version::major;
use crate::{Event, Result, Text};

/// What a Rust type says of its events, its type left behind.
#[derive(Clone, Copy)]
pub struct TypeContract {
    id: TypeId,
    schemas: fn() -> Vec<TypeSchema>,
}

impl TypeContract {
    /// That of a type.
    pub fn of<T: EventData>() -> Self {
        Self {
            id: TypeId::of::<T>(),
            schemas: T::schemas,
        }
    }

    pub(super) fn id(&self) -> TypeId {
        self.id
    }

    pub(super) fn compile(&self) -> Result<Contract> {
        let mut compiled = Vec::new();
        for TypeSchema { info, schema } in (self.schemas)() {
            let name = format!("the schema of `{}` {}", info.name, info.version);
            compiled.push(Versioned {
                event_type: info.name.into(),
                major: major(info.version),
                schema: Arc::new(Schema::compile(&schema, &name)?),
            });
        }
        Ok(Contract(compiled))
    }
}

impl fmt::Debug for TypeContract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypeContract").field(&self.id).finish()
    }
}

/// The contract of a Rust type, compiled: what events of its types are held to, without a bus.
///
/// ```
/// # use polybus_core::{Event, EventData, TypeInfo, validation::Contract};
/// # struct Ping;
/// # impl EventData for Ping {
/// #     const TYPES: &'static [TypeInfo] = &[TypeInfo::new("ping", "1.0.0")];
/// #     fn type_info(&self) -> &'static TypeInfo { &Self::TYPES[0] }
/// # }
/// let contract = Contract::of::<Ping>()?;
/// let event = Event::builder("ping").source("s").content_type("application/json").data("{").build()?;
/// let report = contract.check(&event);
/// assert_eq!(report.faults[0].pointer, "/data");
/// assert!(contract.validate(&event).is_err());
/// # Ok::<(), polybus_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Contract(Vec<Versioned>);

/// A schema of a major version.
#[derive(Debug)]
struct Versioned {
    event_type: Text,
    /// `None`: of every version.
    major: Option<u64>,
    schema: Arc<Schema>,
}

impl Contract {
    /// Compiles that of a type.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) if one of its schemas is none;
    /// [`MissingFeature`](crate::ErrorKind::MissingFeature) if it has one and the feature `schema` is not
    /// compiled in.
    pub fn of<T: EventData>() -> Result<Self> {
        TypeContract::of::<T>().compile()
    }

    /// What is wrong with an event: its envelope, and its data by their schema.
    pub fn check(&self, event: &Event) -> Report {
        let mut faults = Vec::new();
        let schema = self.schema_of(event).map(|schema| &**schema);
        structure::check(event, schema, &mut faults);
        Report::of(event, faults)
    }

    /// Refuses an event in which something is wrong.
    ///
    /// # Errors
    ///
    /// [`InvalidEvent`](crate::ErrorKind::InvalidEvent) with the report.
    pub fn validate(&self, event: &Event) -> Result<()> {
        self.check(event).into_result()
    }

    /// The schema of an event's type, as it is or behind an origin, in the event's version.
    pub(super) fn schema_of(&self, event: &Event) -> Option<&Arc<Schema>> {
        let event_type = event.event_type();
        let is_named = |name: &str| {
            let before = event_type.strip_suffix(name);
            before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
        };
        let named = self.0.iter().filter(|it| is_named(&it.event_type));
        let longest = named.map(|it| it.event_type.len()).max()?;
        let of_type = self.0.iter();
        let of_type =
            of_type.filter(|it| it.event_type.len() == longest && is_named(&it.event_type));
        of_version(of_type, event)
    }
}

/// The schema of the event's major version; the latest where the event says none.
fn of_version<'a>(
    known: impl Iterator<Item = &'a Versioned>,
    event: &Event,
) -> Option<&'a Arc<Schema>> {
    let wanted = event.data_version().and_then(major);
    let fits = |it: &&Versioned| wanted.is_none() || it.major.is_none() || it.major == wanted;
    // One of a version comes before one of all.
    let best = known.filter(fits).max_by_key(|it| it.major);
    best.map(|it| &it.schema)
}

/// The schemas that hold for every event of a type, whoever made it.
pub(super) struct Known {
    origin: Option<Text>,
    by_type: HashMap<Text, Vec<Versioned>, RandomState>,
}

impl Known {
    pub(super) fn new(origin: Option<Text>) -> Self {
        Self {
            origin,
            by_type: HashMap::default(),
        }
    }

    /// Adds the schemas of a folder.
    #[cfg(feature = "schema")]
    pub(super) fn add_files(&mut self, folder: &Path) -> Result<()> {
        for file in files::read(folder)? {
            let schema = Arc::new(Schema::compile(&file.schema, &file.name)?);
            let versions = self.by_type.entry(file.event_type.clone()).or_default();
            versions.push(Versioned {
                event_type: file.event_type,
                major: file.major,
                schema,
            });
        }
        Ok(())
    }

    /// A folder of schemas needs the feature.
    #[cfg(not(feature = "schema"))]
    pub(super) fn add_files(&mut self, folder: &Path) -> Result<()> {
        let what = format!("`service.schemas`, the folder `{}`,", folder.display());
        Err(super::schema::missing_feature(&what))
    }

    /// Adds the schemas of a type, where there is no file.
    pub(super) fn add_type(&mut self, contract: &TypeContract) -> Result<()> {
        for of_type in contract.compile()?.0 {
            let versions = self.by_type.entry(of_type.event_type.clone()).or_default();
            let same = |it: &Versioned| it.major.is_none() || it.major == of_type.major;
            if !versions.iter().any(same) {
                versions.push(of_type);
            }
        }
        Ok(())
    }

    /// The schema of an event's type, as it is or behind the service's origin.
    pub(super) fn find(&self, event: &Event) -> Option<&Arc<Schema>> {
        if self.by_type.is_empty() {
            return None;
        }
        let event_type = event.event_type();
        let own = || {
            let behind = event_type.strip_prefix(self.origin.as_deref()?)?;
            self.by_type.get(behind.strip_prefix('.')?)
        };
        let versions = self.by_type.get(event_type).or_else(own)?;
        of_version(versions.iter(), event)
    }
}
