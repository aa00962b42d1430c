use std::fmt;

use crate::Text;

/// The value of an extension attribute.
///
/// Headers and fields carry text only: an integer or a boolean that travelled in one comes
/// back as the string of it. JSON keeps the type.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExtensionValue {
    /// A string, or one of the CloudEvents types that are written as one (URI, timestamp, binary).
    String(Text),
    /// A boolean.
    Boolean(bool),
    /// A 32 bit integer, the CloudEvents range.
    Integer(i32),
}

impl ExtensionValue {
    /// The text, if it is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            Self::Boolean(_) | Self::Integer(_) => None,
        }
    }

    /// About how many bytes it takes as text.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::String(text) => text.len(),
            Self::Boolean(_) => "false".len(),
            Self::Integer(_) => "-2147483648".len(),
        }
    }
}

impl fmt::Display for ExtensionValue {
    /// The canonical CloudEvents string form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(text) => f.write_str(text),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
        }
    }
}

impl From<&str> for ExtensionValue {
    fn from(value: &str) -> Self {
        Self::String(value.into())
    }
}

impl From<String> for ExtensionValue {
    fn from(value: String) -> Self {
        Self::String(value.into())
    }
}

impl From<Text> for ExtensionValue {
    fn from(value: Text) -> Self {
        Self::String(value)
    }
}

impl From<bool> for ExtensionValue {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<i32> for ExtensionValue {
    fn from(value: i32) -> Self {
        Self::Integer(value)
    }
}
