//! Versions of the data of events, and the way from one to another.
//!
//! The version of an event type's data is semantic ([semver.org](https://semver.org)): what a new
//! major version writes the old one can't read; within one everything can be read. An event carries
//! its version as the extension `dataversion`; a handler takes that of its `Payload<T>`. Between two
//! majors lead steps:
//!
//! - typed, `#[event(from = UserCreatedV1)]` on the new struct with a `TryFrom<UserCreatedV1>`, which
//!   the compiler checks;
//! - or on raw JSON, as a [`Migration`] that a program registers, which is checked when a subscription
//!   starts. Data in MessagePack are turned into JSON for it, and so are those in Avro whose schema a
//!   registry has; Protobuf does not say what its fields are, and has typed steps alone.
//!
//! [`compare_schemas`] says whether a change of a schema stays within a major version.
//!
//! Steps form a chain. An event that no chain leads to the handler's version becomes a dead letter that
//! says so. Dead letters hold the data as they came, whatever steps they took.

mod compatibility;
mod migration;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;

pub use compatibility::{Break, Changes, Compatibility, compare_schemas};
pub use migration::{Migration, Migrations};

use crate::event::{EventData, TypeInfo};
use crate::{Error, ErrorKind, Event, Result};

/// A semantic version of data: `1.2.0`. What leaves out parts is read with zeros there: `1` is `1.0.0`.
///
/// ```
/// use polybus_core::version::DataVersion;
///
/// let [old, new]: [DataVersion; 2] = ["1.0.0".parse()?, "1.2.0".parse()?];
/// assert!(old < new);
/// assert!(old.is_compatible(&new));
/// assert!(!old.is_compatible(&"2.0".parse()?));
/// # Ok::<(), polybus_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DataVersion(semver::Version);

impl DataVersion {
    /// What changes when data can't be read any longer.
    pub fn major(&self) -> u64 {
        self.0.major
    }

    /// Whether data of the one can be read as that of the other: they have the same major version.
    pub fn is_compatible(&self, other: &Self) -> bool {
        self.major() == other.major()
    }
}

impl FromStr for DataVersion {
    type Err = Error;

    /// # Errors
    ///
    /// [`ErrorKind::Decode`] if the text is no semantic version.
    fn from_str(text: &str) -> Result<Self> {
        let dots = text.bytes().take_while(|byte| !b"-+".contains(byte));
        let missing = match dots.filter(|byte| *byte == b'.').count() {
            0 => ".0.0",
            1 => ".0",
            _ => "",
        };
        let end = text.find(['-', '+']).unwrap_or(text.len());
        let (numbers, rest) = text.split_at(end);
        let version = semver::Version::parse(&[numbers, missing, rest].concat());
        version.map(Self).map_err(|error| {
            Error::new(
                ErrorKind::Decode,
                format!("`{text}` is no version of data: {error}"),
            )
            .with_note("versions are semantic, as `1.2.0`")
        })
    }
}

impl fmt::Display for DataVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Compares two versions of data.
///
/// # Errors
///
/// [`ErrorKind::Decode`] if one is no semantic version.
pub fn compare(left: &str, right: &str) -> Result<Ordering> {
    Ok(left.parse::<DataVersion>()?.cmp(&right.parse()?))
}

/// Whether data of the one version can be read as that of the other: they have the same major version.
///
/// # Errors
///
/// [`ErrorKind::Decode`] if one is no semantic version.
pub fn is_compatible(left: &str, right: &str) -> Result<bool> {
    let left: DataVersion = left.parse()?;
    Ok(left.is_compatible(&right.parse()?))
}

/// Whether a text is a semantic version. The usual ones, of numbers alone, without reading them.
pub(crate) fn is_version(text: &str) -> bool {
    // A number of so many digits fits into 64 bits.
    let is_number = |part: &str| {
        let digits = part.as_bytes();
        let fits = matches!(digits.len(), 1..=18) && digits.iter().all(u8::is_ascii_digit);
        fits && (digits.len() == 1 || digits[0] != b'0')
    };
    let mut parts = text.split('.');
    let numbers = (&mut parts).take(3).all(is_number) && parts.next().is_none();
    numbers || text.parse::<DataVersion>().is_ok()
}

/// The major version of a text, if it begins with a number. The fast way, for every event.
pub(crate) fn major(version: &str) -> Option<u64> {
    version.split(['.', '-', '+']).next()?.parse().ok()
}

/// The version that a Rust type has for an event: the one of its type of that name.
fn taken<T: EventData>(event: &Event) -> Option<&'static TypeInfo> {
    type_of(T::TYPES, event.event_type())
}

/// Which of some types an event has: that of its name, or else the longest one that stands behind an
/// origin.
pub(crate) fn type_of(types: &'static [TypeInfo], event_type: &str) -> Option<&'static TypeInfo> {
    let behind_origin = |info: &&TypeInfo| {
        let before = event_type.strip_suffix(info.name);
        before.is_some_and(|before| before.ends_with('.'))
    };
    let exact = types.iter().find(|info| info.name == event_type);
    exact.or_else(|| {
        let behind = types.iter().filter(behind_origin);
        behind.max_by_key(|info| info.name.len())
    })
}

/// How the version of an event's data stands to the one that a type takes. Equal where one of them
/// says none.
fn stands<T: EventData>(event: &Event) -> Result<Ordering> {
    let (Some(found), Some(info)) = (event.data_version(), taken::<T>(event)) else {
        return Ok(Ordering::Equal);
    };
    if found == info.version {
        return Ok(Ordering::Equal);
    }
    let found = major(found).ok_or_else(|| unsupported(event, info.version))?;
    Ok(found.cmp(&major(info.version).unwrap_or_default()))
}

/// The data of an event as that of a type, by way of the steps that a program registered where its
/// version is another one.
///
/// # Errors
///
/// [`ErrorKind::Decode`]: those of [`EventData::from_event`], and of a step that fails.
pub(crate) fn decode<T: EventData + DeserializeOwned>(
    event: &Event,
    migrations: Option<&Migrations>,
) -> Result<T> {
    if let Some(migrations) = migrations
        && stands::<T>(event)? != Ordering::Equal
        && let Some(info) = taken::<T>(event)
        && let Some(migrated) = migrations.migrate(event, info.version)?
    {
        return T::from_event(&migrated);
    }
    T::from_event(event)
}

/// What [`EventData::from_event`] does unless told otherwise.
pub(crate) fn decode_same<T: EventData + DeserializeOwned>(event: &Event) -> Result<T> {
    match stands::<T>(event)? {
        Ordering::Equal => T::wire().decode(event),
        _ => Err(unsupported(
            event,
            taken::<T>(event).map_or("", |info| info.version),
        )),
    }
}

/// What [`EventData::from_event`] does with `from = P`: an older version is read as a `P`.
///
/// # Errors
///
/// [`ErrorKind::Decode`] if the version is newer than that of a `T`, the data are not what their version
/// says, or the step fails.
#[doc(hidden)]
pub fn decode_from<T, P>(event: &Event) -> Result<T>
where
    T: EventData + DeserializeOwned + TryFrom<P, Error: fmt::Display>,
    P: EventData + DeserializeOwned,
{
    if stands::<T>(event)? != Ordering::Less {
        return decode_same(event);
    }
    let previous = P::from_event(event)?;
    T::try_from(previous).map_err(|error| {
        let (version, event_type) = (event.data_version().unwrap_or_default(), event.event_type());
        let what = format!("version `{version}` of `{event_type}` could not be migrated: {error}");
        Error::new(ErrorKind::Decode, what).with_note(format!("event `{}`", event.id()))
    })
}

fn unsupported(event: &Event, taken: &str) -> Error {
    let (version, event_type) = (event.data_version().unwrap_or_default(), event.event_type());
    Error::new(
        ErrorKind::Decode,
        format!(
            "version `{version}` of `{event_type}` is not supported: the handler takes `{taken}`"
        ),
    )
    .with_note(format!("event `{}`", event.id()))
    .with_note(
        "give the type `#[event(from = ..)]`, register a `Migration`, or handle both versions",
    )
}
