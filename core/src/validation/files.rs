//! Schemas from files.

use std::fmt::Display;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::{Error, ErrorKind, Result, Text};

/// The schema of a file.
pub(super) struct SchemaFile {
    /// What errors call it.
    pub(super) name: String,
    pub(super) event_type: Text,
    /// `None`: of every version.
    pub(super) major: Option<u64>,
    pub(super) schema: Value,
}

/// Reads the schemas of a folder: `user.created@1.json` is that of major version 1 of `user.created`,
/// `user.created.json` that of every other. What ends otherwise is none.
pub(super) fn read(folder: &Path) -> Result<Vec<SchemaFile>> {
    let called = format!("the folder of schemas `{}`", folder.display());
    let entries = fs::read_dir(folder).map_err(|error| failed(&called, &error))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failed(&called, &error))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let extension = path.extension().and_then(|extension| extension.to_str());
        let (Some(stem), Some("json")) = (stem, extension) else {
            continue;
        };
        let name = format!("the schema `{}`", path.display());
        let text = fs::read_to_string(&path).map_err(|error| failed(&name, &error))?;
        let schema = serde_json::from_str(&text).map_err(|error| failed(&name, &error))?;
        let (event_type, major) = parts(stem);
        files.push(SchemaFile {
            event_type: event_type.into(),
            major,
            schema,
            name,
        });
    }
    Ok(files)
}

fn failed(what: &str, error: &dyn Display) -> Error {
    let what = format!("{what} can't be read: {error}");
    Error::new(ErrorKind::Config, what).with_note("it is set by `schemas` under [service]")
}

/// The event type and the major version that a file's name says.
fn parts(stem: &str) -> (&str, Option<u64>) {
    let parts = stem.rsplit_once('@');
    let parts = parts.and_then(|(event_type, major)| Some((event_type, major.parse().ok()?)));
    parts.map_or((stem, None), |(event_type, major)| {
        (event_type, Some(major))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_file_is_an_event_type_and_a_major_version() {
        assert_eq!(parts("user.created@2"), ("user.created", Some(2)));
        assert_eq!(parts("user.created"), ("user.created", None));
        assert_eq!(parts("user.created@v2"), ("user.created@v2", None));
    }
}
