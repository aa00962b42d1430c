use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use serde_json::Value;

use super::{DataVersion, major};
use crate::codec::{self, Codec};
use crate::event::TypeInfo;
use crate::{BoxError, Error, ErrorKind, Event, Result, Text};

type Step = dyn Fn(Value) -> Result<Value, BoxError> + Send + Sync;

/// A step from one major version of an event type's data to a later one, on its JSON: of data written otherwise, on the JSON
/// that says the same.
///
/// ```
/// use polybus_core::version::Migration;
///
/// let names = Migration::new("user.created", "1.0.0", "2.0.0", |mut data| {
///     let name = data["name"].take();
///     data["full_name"] = name;
///     Ok(data)
/// });
/// # let _ = names;
/// ```
pub struct Migration {
    event_type: Text,
    from: Text,
    to: Text,
    step: Box<Step>,
}

impl Migration {
    /// A step. Whether its versions make sense is checked where it is registered.
    pub fn new(
        event_type: impl Into<Text>,
        from: impl Into<Text>,
        to: impl Into<Text>,
        step: impl Fn(Value) -> Result<Value, BoxError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            event_type: event_type.into(),
            from: from.into(),
            to: to.into(),
            step: Box::new(step),
        }
    }
}

impl fmt::Debug for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.event_type, self.from, self.to)
    }
}

/// The steps that a program registered, by event type and the major version that they start from.
#[derive(Debug, Default)]
pub struct Migrations(BTreeMap<Text, BTreeMap<u64, Migration>>);

impl Migrations {
    /// The steps, checked.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for a version that is none, a step that does not lead to a later major (so
    /// that no chain runs in a circle), and for two that start from the same one.
    pub fn new(steps: impl IntoIterator<Item = Migration>) -> Result<Self> {
        let mut known = Self::default();
        for step in steps {
            let wrong =
                |what: String| Error::new(ErrorKind::Config, format!("migration {step:?}: {what}"));
            let version = |text: &str| {
                let parsed: Result<DataVersion> = text.parse();
                parsed.map_err(|error| wrong(error.message().to_owned()))
            };
            let (from, to) = (version(&step.from)?, version(&step.to)?);
            if to.major() <= from.major() {
                return Err(wrong("it has to lead to a later major version".to_owned()));
            }
            let steps = known.0.entry(step.event_type.clone()).or_default();
            if steps.contains_key(&from.major()) {
                let major = from.major();
                return Err(wrong(format!(
                    "another one starts from version {major} already"
                )));
            }
            steps.insert(from.major(), step);
        }
        Ok(known)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks that every step is on a chain that ends at a version which a handler takes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`], naming the gap.
    pub(crate) fn check(&self, handled: &[TypeInfo]) -> Result<()> {
        let mut majors: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for info in handled {
            let of_type = majors.entry(info.name).or_default();
            of_type.extend(major(info.version));
        }
        for (event_type, majors) in majors {
            let Some(steps) = self.0.get(event_type) else {
                continue;
            };
            for first in steps.values() {
                let end = self.end(event_type, first, &majors);
                let newest = majors.last().copied().unwrap_or_default();
                let starts_above = major(&first.from) >= Some(newest);
                if !starts_above && !majors.contains(&end) {
                    return Err(Error::new(
                        ErrorKind::Config,
                        format!("migration {first:?} leads to version {end}, and from there no step leads to one that a handler takes"),
                    )
                    .with_note(format!("handled versions of `{event_type}`: {majors:?}")));
                }
            }
        }
        Ok(())
    }

    /// Where a chain ends that begins with a step: at the first version that is handled, or where there
    /// is no further step.
    fn end(&self, event_type: &str, first: &Migration, majors: &BTreeSet<u64>) -> u64 {
        let steps = &self.0[event_type];
        let mut at = major(&first.to).unwrap_or_default();
        while !majors.contains(&at) {
            let Some(next) = steps.get(&at) else {
                return at;
            };
            at = major(&next.to).unwrap_or_default();
        }
        at
    }

    /// The event with its data in the wanted version. `None` if no chain leads there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] if the data can't be turned into JSON, or a step fails.
    pub(crate) fn migrate(&self, event: &Event, wanted: &str) -> Result<Option<Event>> {
        let Some(chain) = self.chain(event, wanted) else {
            return Ok(None);
        };
        let failed = |what: String| {
            Error::new(ErrorKind::Decode, what).with_note(format!(
                "event `{}` of type `{}`",
                event.id(),
                event.event_type()
            ))
        };
        let mut value = codec::to_json(event)?;
        for step in chain {
            value = (step.step)(value)
                .map_err(|error| failed(format!("migration {step:?} failed: {error}")))?;
        }
        let data = Bytes::from(value.to_string());
        let migrated = event.to_builder().data_version(wanted);
        let migrated = migrated.content_type(Codec::Json.content_type());
        Ok(Some(migrated.data(data).build()?))
    }

    fn chain(&self, event: &Event, wanted: &str) -> Option<Vec<&Migration>> {
        let steps = self.0.get(event.event_type())?;
        let (mut at, wanted) = (major(event.data_version()?)?, major(wanted)?);
        let mut chain = Vec::new();
        while at < wanted {
            let step = steps.get(&at)?;
            at = major(&step.to)?;
            chain.push(step);
        }
        (at == wanted && !chain.is_empty()).then_some(chain)
    }
}
