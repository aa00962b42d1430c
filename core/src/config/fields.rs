//! How fields of a config type are read: for `#[serde(deserialize_with = "...")]`.
//!
//! ```
//! use std::time::Duration;
//! use polybus_core::config::{Section, fields};
//!
//! #[derive(serde::Deserialize)]
//! struct Settings {
//!     #[serde(deserialize_with = "fields::duration")]
//!     linger: Duration,
//!     #[serde(deserialize_with = "fields::size")]
//!     buffer: usize,
//! }
//!
//! let section: Section = "linger = '5ms'\nbuffer = '1MiB'".parse()?;
//! let settings: Settings = section.parse()?;
//! assert_eq!(settings.linger, Duration::from_millis(5));
//! assert_eq!(settings.buffer, 1 << 20);
//! # Ok::<(), polybus_core::Error>(())
//! ```

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::Text;
use crate::time::parse_duration;

/// A duration: `"200ms"`, `"30s"`, as [`parse_duration`] reads it.
///
/// # Errors
///
/// That of the deserializer, for a value that is none.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = Text::deserialize(deserializer)
        .map_err(|_| D::Error::custom("must be a duration, as `\"30s\"`"))?;
    parse_duration(&text).map_err(D::Error::custom)
}

/// A duration that may be left out, with `#[serde(default)]`.
///
/// # Errors
///
/// Those of [`duration`].
pub fn optional_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

/// A duration, or `false` for none.
///
/// # Errors
///
/// That of the deserializer, for a value that is neither.
pub fn duration_or_false<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    deserializer.deserialize_any(DurationOrFalse)
}

/// A number of bytes: a whole number, or text with a unit: `"1MiB"` is 1,048,576 bytes, `"1MB"`
/// 1,000,000.
///
/// # Errors
///
/// That of the deserializer, for a value that is none.
pub fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    deserializer.deserialize_any(Size)
}

/// A whole number of at least 1.
///
/// # Errors
///
/// That of the deserializer, for a value that is none.
pub fn positive<'de, D, N>(deserializer: D) -> Result<N, D::Error>
where
    D: Deserializer<'de>,
    N: Deserialize<'de> + From<u8> + PartialOrd,
{
    let number = N::deserialize(deserializer)?;
    if number < N::from(1) {
        return Err(D::Error::custom("must be at least 1"));
    }
    Ok(number)
}

struct DurationOrFalse;

impl Visitor<'_> for DurationOrFalse {
    type Value = Option<Duration>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration, as `\"30s\"`, or `false`")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        match value {
            false => Ok(None),
            true => Err(E::custom("must be a duration, as `\"30s\"`, or `false`")),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        match text {
            // From `${VAR}`, which is always text.
            "false" => Ok(None),
            text => parse_duration(text).map(Some).map_err(E::custom),
        }
    }
}

struct Size;

impl Visitor<'_> for Size {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of bytes, as `\"1MiB\"` or `1048576`")
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<usize, E> {
        usize::try_from(bytes).map_err(|_| E::custom("is more than this machine can hold"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<usize, E> {
        let size = text.trim().parse::<ByteSize>().map_err(|_| {
            let error = format!("`{text}` is not a size");
            E::custom(
                error + "\n  write a number of bytes, or a number and a unit: `64KiB`, `1MiB`",
            )
        })?;
        self.visit_u64(size.as_u64())
    }
}
