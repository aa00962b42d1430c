use super::*;
use crate::ErrorKind;

fn event() -> EventBuilder {
    Event::builder("user.created").source("accounts")
}

#[test]
fn id_and_time_are_filled_in() {
    let (first, second) = (event().build().unwrap(), event().build().unwrap());
    assert_ne!(first.id(), second.id());
    assert!(
        first.id() < second.id(),
        "ids of version 7 sort by the time they were made"
    );
    assert!(first.time().is_some());
    assert!(event().without_time().build().unwrap().time().is_none());
}

#[test]
fn empty_required_attributes_are_refused_by_name() {
    for (builder, name) in [
        (event().id(""), "`id`"),
        (Event::builder("user.created"), "`source`"),
        (Event::builder("").source("accounts"), "`type`"),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidEvent);
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn extension_names_follow_the_specification() {
    for name in ["", "Upper", "with-dash", "data", "id", "sp ace"] {
        let error = event().extension(name, "x").build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidEvent, "{name}");
    }
    let event = event()
        .extension("tenant", "a")
        .extension("tenant", "b")
        .build()
        .unwrap();
    assert_eq!(event.extension("tenant"), Some("b".into()));
}

#[test]
fn the_key_is_the_partition_key_else_the_subject() {
    let subject = event().subject("user-1");
    assert_eq!(subject.clone().build().unwrap().key(), Some("user-1"));
    assert_eq!(
        subject.key("tenant-1").build().unwrap().key(),
        Some("tenant-1")
    );
    assert_eq!(event().build().unwrap().key(), None);
}

#[test]
fn own_extensions_are_found_like_others() {
    let event = event()
        .key("k")
        .data_version("1.2.0")
        .correlation("c")
        .extension("n", 7)
        .build()
        .unwrap();
    let names: Vec<_> = event
        .extensions()
        .map(|(name, _)| name.to_owned())
        .collect();
    assert_eq!(names, ["partitionkey", "dataversion", "correlationid", "n"]);
    assert_eq!(event.extension("partitionkey"), Some("k".into()));
    assert_eq!(event.correlation_id(), Some("c"));
    assert_eq!(event.extension("n"), Some(ExtensionValue::Integer(7)));
}

#[test]
fn an_event_can_be_built_from_another_and_stays_equal() {
    let event = event()
        .key("k")
        .data("x")
        .extension("n", true)
        .build()
        .unwrap();
    assert_eq!(event.to_builder().build().unwrap(), event);
    let silent = event.to_builder().without_time().build().unwrap();
    assert_eq!(silent.to_builder().build().unwrap().time(), None);
}

#[test]
fn no_data_is_not_empty_data() {
    assert_eq!(event().build().unwrap().data(), None);
    assert_eq!(
        event().data("").build().unwrap().data(),
        Some(&Bytes::new())
    );
}

#[test]
fn an_id_keeps_its_text_whatever_its_length() {
    for id in [
        "1",
        "0190d7a0-0000-7000-8000-000000000000",
        "NOT-A-UUID-BUT-JUST-AS-LONG-AS-ONE-IS",
        "ü",
    ] {
        assert_eq!(event().id(id).build().unwrap().id(), id);
    }
}

#[test]
fn debug_does_not_print_the_data() {
    let text = format!("{:?}", event().data("secret").build().unwrap());
    assert!(
        !text.contains("secret") && text.contains("data_bytes: Some(6)"),
        "{text}"
    );
}
