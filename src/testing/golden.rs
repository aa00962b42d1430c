//! Schemas of events that are kept as files, so that a change which breaks a reader fails a test.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::version::{Compatibility, DataVersion, compare_schemas};
use crate::{EventData, TypeInfo};

/// What says whether files are written.
const VARIABLE: &str = "POLYBUS_SCHEMAS";

/// A folder with the JSON Schema of each event type and major version, `user.created@1.json`, kept with
/// the program's source.
///
/// ```no_run
/// use polybus::testing::GoldenSchemas;
/// # use polybus::{EventData, TypeInfo};
/// # struct UserCreated;
/// # impl EventData for UserCreated {
/// #     const TYPES: &'static [TypeInfo] = &[TypeInfo::new("user.created", "1.0.0")];
/// #     fn type_info(&self) -> &'static TypeInfo { &Self::TYPES[0] }
/// # }
///
/// #[test]
/// fn events_stay_compatible() {
///     GoldenSchemas::in_folder("tests/schemas").check::<UserCreated>();
/// }
/// ```
///
/// A schema that is not there yet is written; so is one that has changed and breaks nobody. One that
/// breaks a reader fails the test, with the report: give the type a new major version, or accept the
/// break by running the test with the environment variable `POLYBUS_SCHEMAS=write`. With
/// `POLYBUS_SCHEMAS=check`, for continuous integration, nothing is written, and a file that is not
/// there or another fails the test.
///
/// The files are what [`schemas`](crate::config::ServiceConfig::schemas) in a config takes.
#[derive(Debug, Clone)]
pub struct GoldenSchemas {
    folder: PathBuf,
    compatibility: Compatibility,
    writing: Writing,
}

/// When a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writing {
    /// Unless it breaks a reader.
    Compatible,
    Always,
    Never,
}

impl GoldenSchemas {
    /// Those of a folder, relative to where the test runs: the package's own. Changes have to be
    /// [fully](Compatibility::Full) compatible.
    ///
    /// # Panics
    ///
    /// If the environment variable has another value than `write` or `check`.
    pub fn in_folder(folder: impl AsRef<Path>) -> Self {
        let writing = match std::env::var(VARIABLE).as_deref() {
            Err(_) | Ok("") => Writing::Compatible,
            Ok("write") => Writing::Always,
            Ok("check") => Writing::Never,
            Ok(other) => panic!("{VARIABLE} is `{other}`; it may be `write` or `check`"),
        };
        Self {
            folder: folder.as_ref().to_owned(),
            compatibility: Compatibility::default(),
            writing,
        }
    }

    /// Sets which way a change has to be compatible.
    #[must_use]
    pub fn compatible(mut self, compatibility: Compatibility) -> Self {
        self.compatibility = compatibility;
        self
    }

    /// Compares the schemas of a type's event types with their files.
    ///
    /// # Panics
    ///
    /// With the report, if a change breaks a reader; if an event type has no schema; if a file can't
    /// be read or written.
    #[track_caller]
    pub fn check<T: EventData>(&self) {
        for info in T::TYPES {
            let Some(schema) = T::schema_of(info.name) else {
                panic!(
                    "`{}` has no schema: derive it with `#[event(schema)]`",
                    info.name
                );
            };
            if let Err(why) = self.compare(info, &schema) {
                panic!("{why}");
            }
        }
    }

    fn compare(&self, info: &TypeInfo, schema: &Value) -> Result<(), String> {
        let version: DataVersion = info.version.parse().map_err(|error| format!("{error}"))?;
        let name = format!("{}@{}.json", info.name, version.major());
        let path = self.folder.join(name);
        let shown = path.display();
        let Some(known) = read(&path)? else {
            return match self.writing {
                Writing::Never => Err(format!(
                    "{shown} is not there: run the test without {VARIABLE}, and commit it"
                )),
                _ => write(&path, schema),
            };
        };
        if known == *schema {
            return Ok(());
        }
        let changes = compare_schemas(&known, schema);
        match self.writing {
            Writing::Always => write(&path, schema),
            _ if !changes.are(self.compatibility) => Err(format!(
                "the schema of `{}` {} has changed from {shown}, and has to stay compatible ({}):\n{changes}\
                 give it a new major version, or accept the break with {VARIABLE}=write",
                info.name, info.version, self.compatibility
            )),
            Writing::Compatible => write(&path, schema),
            Writing::Never => Err(format!(
                "{shown} is not the schema of `{}` any more, though compatible: run the test without \
                 {VARIABLE}, and commit it",
                info.name
            )),
        }
    }
}

fn read(path: &Path) -> Result<Option<Value>, String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{} can't be read: {error}", path.display())),
    };
    let schema = serde_json::from_str(&text);
    schema.map_err(|error| format!("{} is no JSON: {error}", path.display()))
}

fn write(path: &Path, schema: &Value) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{} can't be written: {error}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(path, format!("{schema:#}\n")).map_err(failed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const INFO: TypeInfo = TypeInfo::new("user.created", "1.4.0");

    fn schema(required: &[&str]) -> Value {
        let text = json!({ "type": "string" });
        json!({ "type": "object", "properties": { "a": text, "b": text }, "required": required })
    }

    fn golden(folder: &Path, writing: Writing) -> GoldenSchemas {
        GoldenSchemas {
            folder: folder.join("schemas"),
            compatibility: Compatibility::Full,
            writing,
        }
    }

    #[test]
    fn a_schema_is_written_the_first_time_and_a_break_fails_with_the_report() {
        let folder = tempfile::tempdir().unwrap();
        let golden = golden(folder.path(), Writing::Compatible);
        golden.compare(&INFO, &schema(&["a"])).unwrap();
        let file = folder.path().join("schemas/user.created@1.json");
        let written = fs::read_to_string(&file).unwrap();
        golden.compare(&INFO, &schema(&["a"])).unwrap();
        let error = golden.compare(&INFO, &schema(&["a", "b"])).unwrap_err();
        assert!(
            error.contains("/b: is required, and may be missing"),
            "{error}"
        );
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            written,
            "it stays as it was"
        );
        let forward = golden.clone().compatible(Compatibility::Forward);
        forward.compare(&INFO, &schema(&["a", "b"])).unwrap();
        assert_ne!(fs::read_to_string(&file).unwrap(), written);
    }

    #[test]
    fn another_major_has_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let golden = golden(folder.path(), Writing::Compatible);
        golden.compare(&INFO, &schema(&["a"])).unwrap();
        let next = TypeInfo::new("user.created", "2.0.0");
        golden.compare(&next, &schema(&["a", "b"])).unwrap();
    }

    #[test]
    fn a_break_can_be_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let golden = golden(folder.path(), Writing::Always);
        golden.compare(&INFO, &schema(&["a"])).unwrap();
        golden.compare(&INFO, &json!({ "type": "string" })).unwrap();
    }

    #[test]
    fn where_nothing_is_written_every_difference_fails() {
        let folder = tempfile::tempdir().unwrap();
        let check = golden(folder.path(), Writing::Never);
        let error = check.compare(&INFO, &schema(&[])).unwrap_err();
        assert!(error.contains("is not there"), "{error}");
        golden(folder.path(), Writing::Compatible)
            .compare(&INFO, &schema(&[]))
            .unwrap();
        check.compare(&INFO, &schema(&[])).unwrap();
        let mut described = schema(&[]);
        described["title"] = json!("User");
        let error = check.compare(&INFO, &described).unwrap_err();
        assert!(error.contains("though compatible"), "{error}");
    }
}
