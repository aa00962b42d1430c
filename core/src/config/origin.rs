use std::fmt;

use crate::{Error, ErrorKind, Text};

/// Where a setting was made. Prints as `polybus.toml:7`, as
/// ``environment variable `POLYBUS__service__name` ``, or as nothing for a setting made in code.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Origin {
    /// In the program.
    #[default]
    Code,
    /// In a config file.
    #[non_exhaustive]
    File {
        /// The file as it was named when it was read.
        file: Text,
        /// The line, counted from 1; 0 if the place has none, as an empty file.
        line: usize,
    },
    /// In an environment variable that overrides the file.
    #[non_exhaustive]
    Variable {
        /// The variable's name.
        name: Text,
    },
    /// In what a profile brings of itself, as `production` does.
    #[non_exhaustive]
    Profile {
        /// The profile's name.
        name: Text,
    },
}

impl Origin {
    pub(super) fn file(file: &Text, line: usize) -> Self {
        Self::File {
            file: file.clone(),
            line,
        }
    }

    pub(super) fn variable(name: &str) -> Self {
        Self::Variable { name: name.into() }
    }

    pub(super) fn profile(name: &Text) -> Self {
        Self::Profile { name: name.clone() }
    }

    /// The place without its file, for a list whose head names the file: `line 7`.
    pub(crate) fn within_file(&self) -> String {
        match self {
            Self::Code => "in code".to_owned(),
            Self::File { line, .. } => format!("line {line}"),
            Self::Variable { name } => format!("variable {name}"),
            Self::Profile { name } => format!("profile {name}"),
        }
    }

    /// The error of a setting that was made here.
    pub(crate) fn error(&self, path: &str, what: &str) -> Error {
        let parts = [&self.to_string(), path, what];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        Error::new(ErrorKind::Config, parts.collect::<Vec<_>>().join(": "))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code => Ok(()),
            Self::File { file, line: 0 } => f.write_str(file),
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Variable { name } => write!(f, "environment variable `{name}`"),
            Self::Profile { name } => write!(f, "profile `{name}`"),
        }
    }
}
