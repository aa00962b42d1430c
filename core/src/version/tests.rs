use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{DataVersion, Migration, Migrations, compare, decode, is_compatible, is_version};
use crate::event::TypeInfo;
use crate::{ErrorKind, Event, EventData};

#[test]
fn what_is_taken_for_a_version_is_one() {
    for text in [
        "1.2.0",
        "1.2",
        "1",
        "0.0.0",
        "01.2.3",
        "1.2.3.4",
        "1..3",
        "",
        ".",
        "1.2.3-a+b",
        "v1",
        "18446744073709551616",
        "999999999999999999",
        "1.2.3-",
        "1.2.03",
    ] {
        assert_eq!(
            is_version(text),
            text.parse::<DataVersion>().is_ok(),
            "{text}"
        );
    }
}

#[test]
fn versions_are_compared_as_semver_has_it() {
    for (left, right, expected) in [
        ("1.0.0", "1.1.0", Ordering::Less),
        ("1.10.0", "1.9.0", Ordering::Greater),
        ("1", "1.0.0", Ordering::Equal),
        ("1.0", "1.0.0", Ordering::Equal),
        ("2.0.0-beta.1", "2.0.0", Ordering::Less),
        ("1-a.b", "1.0.0-a.b", Ordering::Equal),
    ] {
        assert_eq!(compare(left, right).unwrap(), expected, "{left} {right}");
    }
    assert!(is_compatible("1.0.0", "1.2.0").unwrap());
    assert!(!is_compatible("1.9.9", "2.0.0").unwrap());
    for text in [
        "",
        "v1",
        "1.x",
        "1.0.0.0",
        "-1",
        "one",
        "99999999999999999999",
    ] {
        let error = text.parse::<DataVersion>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode, "{text}");
    }
}

/// A type of version 3, without steps of its own.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct User {
    full_name: String,
    age: u32,
}

impl EventData for User {
    const TYPES: &'static [TypeInfo] = &[TypeInfo::new("user.created", "3.0.0")];

    fn type_info(&self) -> &'static TypeInfo {
        &Self::TYPES[0]
    }
}

fn event(version: Option<&str>, data: &Value) -> Event {
    let builder = Event::builder("user.created")
        .source("s")
        .json(data)
        .unwrap();
    let builder = version
        .into_iter()
        .fold(builder, crate::EventBuilder::data_version);
    builder.build().unwrap()
}

fn rename() -> Migration {
    Migration::new("user.created", "1.0.0", "2.0.0", |mut data| {
        data["full_name"] = data["name"].take();
        Ok(data)
    })
}

fn add_age() -> Migration {
    Migration::new("user.created", "2.0.0", "3.0.0", |mut data| {
        if data["full_name"] == "nobody" {
            return Err("nobody has no age".into());
        }
        data["age"] = 0.into();
        Ok(data)
    })
}

#[test]
fn steps_on_json_are_chained_to_what_the_handler_takes() {
    let steps = Migrations::new([add_age(), rename()]).unwrap();
    let decoded = |version, data: Value| decode::<User>(&event(version, &data), Some(&steps));
    let user = |full_name: &str, age| User {
        full_name: full_name.to_owned(),
        age,
    };
    assert_eq!(
        decoded(Some("1.4.0"), json!({ "name": "a" })).unwrap(),
        user("a", 0)
    );
    assert_eq!(
        decoded(Some("2.0.0"), json!({ "full_name": "b" })).unwrap(),
        user("b", 0)
    );
    let now = json!({ "full_name": "c", "age": 7 });
    for version in [Some("3.0.0"), Some("3.9.1"), None] {
        assert_eq!(
            decoded(version, now.clone()).unwrap(),
            user("c", 7),
            "{version:?}"
        );
    }
}

#[test]
fn what_no_chain_leads_to_is_an_error_that_says_both_versions() {
    let steps = Migrations::new([add_age()]).unwrap();
    for (version, steps) in [
        ("1.0.0", Some(&steps)),
        ("4.0.0", Some(&steps)),
        ("1.0.0", None),
        ("soon", Some(&steps)),
    ] {
        let error = decode::<User>(&event(Some(version), &json!({})), steps).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode, "{version}");
        let text = error.to_string();
        assert!(text.contains(&format!("version `{version}`")), "{text}");
        assert!(text.contains("`3.0.0`"), "{text}");
    }
}

#[test]
fn a_step_that_fails_says_which_and_why() {
    let steps = Migrations::new([add_age()]).unwrap();
    let nobody = event(Some("2.0.0"), &json!({ "full_name": "nobody" }));
    let text = decode::<User>(&nobody, Some(&steps))
        .unwrap_err()
        .to_string();
    assert!(text.contains("user.created 2.0.0 -> 3.0.0"), "{text}");
    assert!(text.contains("nobody has no age"), "{text}");
    let binary = nobody
        .to_builder()
        .content_type("image/png")
        .build()
        .unwrap();
    let text = decode::<User>(&binary, Some(&steps))
        .unwrap_err()
        .to_string();
    assert!(text.contains("`image/png`"), "{text}");
}

#[test]
fn steps_that_make_no_sense_are_refused() {
    let step = |from: &'static str, to: &'static str| Migration::new("a", from, to, Ok);
    for (steps, expected) in [
        (vec![step("2.0.0", "1.0.0")], "later major"),
        (vec![step("1.0.0", "1.5.0")], "later major"),
        (vec![step("x", "1.0.0")], "`x` is no version"),
        (
            vec![step("1.0.0", "2.0.0"), step("1.2.0", "3.0.0")],
            "starts from version 1 already",
        ),
    ] {
        let error = Migrations::new(steps).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_gap_between_steps_and_handlers_is_found() {
    let step = |from: &'static str, to: &'static str| Migration::new("a", from, to, Ok);
    let handled = |versions: &[&'static str]| -> Vec<TypeInfo> {
        versions
            .iter()
            .map(|version| TypeInfo::new("a", version))
            .collect()
    };
    for (steps, versions, good) in [
        (vec![step("1", "2"), step("2", "3")], &["3.0.0"][..], true),
        (vec![step("1", "2"), step("3", "4")], &["4.0.0"], false),
        (vec![step("1", "3")], &["2.0.0"], false),
        (vec![step("1", "3")], &["2.0.0", "3.1.0"], true),
        (vec![step("1", "2"), step("2", "3")], &["2.0.0"], true),
        (vec![step("1", "2")], &[], true),
    ] {
        let text = format!("{steps:?} {versions:?}");
        let checked = Migrations::new(steps).unwrap().check(&handled(versions));
        assert_eq!(checked.is_ok(), good, "{text}: {checked:?}");
    }
}

#[test]
fn the_type_of_an_event_may_stand_behind_an_origin() {
    const TYPES: &[TypeInfo] = &[
        TypeInfo::new("created", "1.0.0"),
        TypeInfo::new("user.created", "2.0.0"),
    ];
    for (event_type, expected) in [
        ("user.created", Some("user.created")),
        ("eu.de.user.created", Some("user.created")),
        ("created", Some("created")),
        ("eu.created", Some("created")),
        ("recreated", None),
        ("user.created.again", None),
    ] {
        let found = super::type_of(TYPES, event_type).map(|info| info.name);
        assert_eq!(found, expected, "{event_type}");
    }
}
