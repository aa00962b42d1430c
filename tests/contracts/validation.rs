//! Events are held to their contract, when they are published and when they are handled.

use std::sync::{Arc, Mutex};

use polybus::runtime::Provenance;
use polybus::transport::{Outgoing, Publisher, Transport};
use polybus::validation::{Contract, Fault};
use polybus::{
    Bus, BusBuilder, Config, Error, ErrorKind, Event, FailureKind, Payload, RawEvent, State,
    TestBus, Topic,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Debug, Clone, Event, Serialize, Deserialize, JsonSchema, garde::Validate)]
#[event(type = "user.created", version = "1.0.0", key = user_id, schema, garde)]
pub(crate) struct UserCreated {
    #[schemars(length(min = 1))]
    #[garde(skip)]
    pub(crate) user_id: String,
    #[garde(custom(with_at))]
    pub(crate) email: String,
    #[schemars(range(min = 0, max = 150))]
    #[garde(skip)]
    pub(crate) age: i32,
}

/// A rule that no schema has.
fn with_at(email: &str, _: &()) -> garde::Result {
    match email.contains('@') {
        true => Ok(()),
        false => Err(garde::Error::new("has no `@`")),
    }
}

impl UserCreated {
    pub(crate) fn good(user_id: &str) -> Self {
        Self {
            user_id: user_id.into(),
            email: "a@b.example".into(),
            age: 7,
        }
    }

    /// Of each sort a fault: by the schema two, by the rules one.
    pub(crate) fn bad() -> Self {
        Self {
            user_id: String::new(),
            email: "nobody".into(),
            age: 200,
        }
    }
}

/// What has another shape under the same name.
#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.created")]
struct Unchecked {
    user_id: u32,
}

fn builder(validate: &str) -> BusBuilder {
    with_service("", validate)
}

fn with_service(service: &str, validate: &str) -> BusBuilder {
    let text = format!(
        "[service]\nname = 's'\n{service}\n[transports.t]\nkind = 'memory'\n\
         [[routes]]\npattern = 'user.*'\ntransport = 't'\ntopic = 'users'\nvalidate = '{validate}'\n\
         [[routes]]\npattern = 'free.*'\ntransport = 't'\ntopic = 'free'\n"
    );
    Bus::builder().config(Config::parse(&text, "tests/contracts/polybus.toml").unwrap())
}

async fn bus(validate: &str) -> TestBus {
    TestBus::on(builder(validate)).await.unwrap()
}

fn raw(data: &Value) -> Event {
    let event = Event::builder("user.created")
        .source("s")
        .id("e1")
        .data_version("1.0.0");
    event.json(data).unwrap().build().unwrap()
}

/// Past the checks of publishing, as another program would.
async fn publish_unchecked(bus: &TestBus, event: Event) {
    let publisher = bus.bus().transport("t").unwrap().publisher().await.unwrap();
    let outgoing = Outgoing::new(Topic::new("users"), event);
    assert!(publisher.publish(&[outgoing]).await[0].is_accepted());
}

/// That there is one dead letter, of an event that is not valid.
fn assert_invalid(bus: &TestBus) {
    let letters = bus.dead_letters();
    let provenance = Provenance::read(&letters.only().headers).unwrap();
    assert_eq!(provenance.kind, Some(FailureKind::Invalid), "{letters}");
}

fn pointers(faults: &[Fault]) -> Vec<&str> {
    faults.iter().map(|fault| fault.pointer.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_invalid_event_is_never_published_and_the_error_lists_every_fault() {
    let bus = bus("strict").await;
    let error = bus.publish(UserCreated::bad()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidEvent);
    assert!(!error.retryable());
    let mut found = pointers(&error.report().unwrap().faults);
    found.sort_unstable();
    assert_eq!(found, ["/data/age", "/data/email", "/data/user_id"]);
    for pointer in found {
        assert!(error.to_string().contains(pointer), "{error}");
    }
    assert!(
        !error.to_string().contains("nobody"),
        "values are private: {error}"
    );
    let events = [UserCreated::bad(), UserCreated::good("u1")];
    let outcomes = bus.publish_all(events).await;
    assert!(!outcomes[0].is_accepted() && outcomes[1].is_accepted());
    bus.enqueue(UserCreated::bad()).unwrap_err();
    let in_one = bus.transaction("t", async |tx| {
        tx.publish(UserCreated::good("u2")).await?;
        tx.publish(UserCreated::bad()).await
    });
    assert_eq!(in_one.await.unwrap_err().kind(), ErrorKind::InvalidEvent);
    bus.published::<UserCreated>().assert_len(1);
}

#[tokio::test(start_paused = true)]
async fn a_route_that_warns_or_is_off_lets_the_event_pass() {
    for validate in ["warn", "off"] {
        let bus = bus(validate).await;
        bus.publish(UserCreated::bad()).await.unwrap();
        bus.published::<UserCreated>().assert_len(1);
    }
}

#[tokio::test(start_paused = true)]
async fn check_reports_and_validate_fails_whatever_the_route_says() {
    let bus = bus("off").await;
    let report = bus.check(UserCreated::bad()).await;
    assert_eq!(report.faults.len(), 3, "{report}");
    assert!(!report.is_valid());
    assert!(report.to_string().contains("\n  /data/age: "), "{report}");
    assert!(bus.check(UserCreated::good("u")).await.is_valid());
    bus.validate(UserCreated::good("u")).await.unwrap();
    let error = bus.validate(UserCreated::bad()).await.unwrap_err();
    assert_eq!(error.report().unwrap().faults, report.faults);
    bus.published::<UserCreated>().assert_len(0);
}

async fn count(Payload(user): Payload<UserCreated>, State(log): State<Arc<Mutex<Vec<String>>>>) {
    log.lock().unwrap().push(user.user_id);
}

#[tokio::test(start_paused = true)]
async fn what_is_read_and_invalid_becomes_a_dead_letter_with_the_report() {
    let bus = bus("strict").await;
    let log = Arc::default();
    bus.subscribe("s")
        .state(Arc::clone(&log))
        .on(count)
        .start()
        .await
        .unwrap();
    // Another program has no schema for it.
    bus.publish(raw(&json!({ "user_id": "", "email": "x", "age": -1 })))
        .await
        .unwrap();
    bus.publish(UserCreated::good("u1")).await.unwrap();
    bus.settle().await;
    assert_eq!(*log.lock().unwrap(), ["u1"]);
    let letters = bus.dead_letters();
    let letter = letters.only();
    assert_eq!(letter.attempts(), 1, "trying again would not help");
    let found = bus.bus().dead_letters("users.dlq").list().await.unwrap();
    let provenance = found[0].provenance();
    assert_eq!(provenance.kind, Some(FailureKind::Invalid));
    let mut places = pointers(&provenance.faults);
    places.sort_unstable();
    assert_eq!(places, ["/data/age", "/data/email", "/data/user_id"]);
    assert!(
        provenance.reason.contains("/data/age"),
        "{}",
        provenance.reason
    );
    let event = letter.event().unwrap();
    assert_eq!(
        &event.data().unwrap()[..],
        br#"{"age":-1,"email":"x","user_id":""}"#
    );
}

#[tokio::test(start_paused = true)]
async fn batch_handlers_get_the_valid_entries_alone() {
    async fn take(batch: polybus::Batch<UserCreated>) {
        assert_eq!(batch.len(), 2);
    }
    let bus = bus("strict").await;
    bus.subscribe("s").on_batch(take).start().await.unwrap();
    bus.publish(UserCreated::good("u1")).await.unwrap();
    bus.publish(raw(
        &json!({ "user_id": "u", "email": "a@b.example", "age": 700 }),
    ))
    .await
    .unwrap();
    bus.publish(UserCreated::good("u2")).await.unwrap();
    bus.settle().await;
    bus.handled("s").assert_len(2);
    assert_invalid(&bus);
}

#[tokio::test(start_paused = true)]
async fn each_type_is_held_to_its_own_schema() {
    let bus = bus("strict").await;
    bus.publish(Unchecked { user_id: 1 }).await.unwrap();
    bus.publish(UserCreated::good("u")).await.unwrap();
    bus.publish(Unchecked { user_id: 2 }).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_named_contract_holds_for_raw_events_and_for_handlers_of_any() {
    let bus = TestBus::on(builder("strict").contract::<UserCreated>())
        .await
        .unwrap();
    let error = bus
        .publish(raw(&json!({ "user_id": "u" })))
        .await
        .unwrap_err();
    assert_eq!(
        error.report().unwrap().faults.len(),
        2,
        "two properties are missing: {error}"
    );
    bus.publish(raw(&json!({ "user_id": "u", "email": "x", "age": 1 })))
        .await
        .unwrap();
    let other = Event::builder("user.created")
        .data_version("2.0.0")
        .json(&7)
        .unwrap();
    bus.publish(other)
        .await
        .expect("another major has another contract");
}

#[tokio::test(start_paused = true)]
async fn handlers_of_any_event_are_spared_what_is_no_event_by_its_envelope() {
    async fn any(RawEvent(event): RawEvent) {
        panic!("{event:?} reached the handler");
    }
    let bus = bus("strict").await;
    bus.subscribe("s").on_any(any).start().await.unwrap();
    let broken = raw(&json!(1)).to_builder().data("{").build().unwrap();
    publish_unchecked(&bus, broken).await;
    bus.settle().await;
    assert_invalid(&bus);
}

#[tokio::test(start_paused = true)]
async fn files_stand_in_place_of_the_schema_of_the_type() {
    let builder = with_service("schemas = 'schemas'", "strict");
    let bus = TestBus::on(builder).await.unwrap();
    let mut young = UserCreated::good("u1");
    young.age = 17;
    let error = bus.publish(young).await.unwrap_err();
    assert_eq!(
        pointers(&error.report().unwrap().faults),
        ["/data/age"],
        "{error}"
    );
    let error = bus
        .publish(raw(&json!({ "age": "old" })))
        .await
        .unwrap_err();
    assert_eq!(
        pointers(&error.report().unwrap().faults),
        ["/data/age"],
        "{error}"
    );
    let mut grown = UserCreated::good("u1");
    grown.age = 200;
    bus.publish(grown)
        .await
        .expect("the file has no upper bound");
}

#[tokio::test]
async fn a_folder_that_is_not_there_says_so() {
    let error = with_service("schemas = 'nowhere'", "strict")
        .build()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.to_string().contains("tests/contracts/nowhere"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn rules_of_the_program_say_where_and_what() {
    let builder = builder("strict").validate(|event: &Event| match event.key() {
        Some("root") => {
            let faults = vec![Fault::new("/partitionkey", "is reserved")];
            Err(Error::invalid(event, faults))
        }
        _ => Ok(()),
    });
    let bus = TestBus::on(builder).await.unwrap();
    let error = bus.publish(UserCreated::good("root")).await.unwrap_err();
    assert_eq!(pointers(&error.report().unwrap().faults), ["/partitionkey"]);
    bus.publish(UserCreated::good("u1")).await.unwrap();
}

/// A rule that asks somebody, who does not know `late` the first time and does not want `bad`.
fn asking(validate: &str) -> (BusBuilder, Arc<Mutex<u32>>) {
    let asked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&asked);
    let builder = builder(validate).validate_async(move |event: Event| {
        let count = Arc::clone(&count);
        async move {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            match event.key() {
                Some("bad") => Err(Error::new(ErrorKind::InvalidEvent, "nobody knows the user")),
                Some("late") if std::mem::replace(&mut *count.lock().unwrap(), 1) == 0 => {
                    Err(Error::new(ErrorKind::Connect, "the directory is down"))
                }
                _ => Ok(()),
            }
        }
    });
    (builder, asked)
}

#[tokio::test(start_paused = true)]
async fn a_rule_may_wait_and_be_asked_again_when_it_does_not_know() {
    let (builder, asked) = asking("strict");
    let bus = TestBus::on(builder).await.unwrap();
    let error = bus.publish(UserCreated::good("bad")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidEvent);
    assert_eq!(
        error.report().unwrap().faults[0].message,
        "nobody knows the user"
    );
    bus.publish(UserCreated::good("late"))
        .await
        .expect("the second time it is known");
    assert_eq!(*asked.lock().unwrap(), 1);
    let in_one = bus.transaction("t", async |tx| tx.publish(UserCreated::good("bad")).await);
    assert_eq!(in_one.await.unwrap_err().kind(), ErrorKind::InvalidEvent);
    bus.published::<UserCreated>().assert_len(1);
}

#[tokio::test(start_paused = true)]
async fn a_route_that_warns_does_not_wait_for_a_rule_to_know() {
    let (builder, asked) = asking("warn");
    let bus = TestBus::on(builder).await.unwrap();
    for key in ["late", "bad"] {
        bus.publish(UserCreated::good(key)).await.unwrap();
    }
    assert_eq!(*asked.lock().unwrap(), 1);
    bus.published::<UserCreated>().assert_len(2);
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_waits_holds_up_the_key_alone_and_puts_away_what_it_refuses() {
    let (builder, _) = asking("strict");
    let bus = TestBus::on(builder).await.unwrap();
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    bus.subscribe("s")
        .state(Arc::clone(&log))
        .on(count)
        .start()
        .await
        .unwrap();
    for key in ["bad", "late", "late", "u1"] {
        let event = raw(&serde_json::to_value(UserCreated::good(key)).unwrap());
        publish_unchecked(&bus, event.to_builder().key(key).build().unwrap()).await;
    }
    bus.settle().await;
    assert_eq!(*log.lock().unwrap(), ["u1", "late", "late"]);
    assert_invalid(&bus);
}

#[test]
fn a_contract_is_checked_without_a_bus() {
    let contract = Contract::of::<UserCreated>().unwrap();
    contract
        .validate(&raw(&json!({ "user_id": "u", "email": "x", "age": 1 })))
        .unwrap();
    let report = contract.check(&raw(&json!({ "user_id": "u", "email": "x", "age": "1" })));
    assert_eq!(pointers(&report.faults), ["/data/age"]);
}

/// What schemars derives of the rules of garde is in the schema and in the rules.
#[derive(Clone, Event, Serialize, Deserialize, JsonSchema, garde::Validate)]
#[event(type = "user.invited", schema, garde)]
struct UserInvited {
    #[garde(email, length(min = 3))]
    email: String,
    #[garde(range(min = 1, max = 9))]
    seats: i32,
    #[garde(length(max = 1), custom(not_lonely))]
    names: Vec<String>,
}

fn not_lonely(names: &[String], _: &()) -> garde::Result {
    match names.len() {
        2 => Err(garde::Error::new("is two")),
        _ => Ok(()),
    }
}

#[tokio::test]
async fn what_schema_and_rules_both_say_is_told_once_and_what_one_alone_says_too() {
    let invited = UserInvited {
        email: "x".into(),
        seats: 10,
        names: vec![String::new(), String::new()],
    };
    let bus = bus("strict").await;
    let refused = bus.publish(invited.clone()).await.unwrap_err();
    let checked = bus.check(invited).await;
    for report in [refused.report().unwrap(), &checked] {
        let mut found: Vec<_> = report
            .faults
            .iter()
            .map(|fault| (fault.pointer.as_str(), fault.keyword.as_deref()))
            .collect();
        found.sort_unstable();
        assert_eq!(
            found,
            [
                ("/data/email", Some("format")),
                ("/data/email", Some("minLength")),
                ("/data/names", None),
                ("/data/names", Some("maxItems")),
                ("/data/seats", Some("maximum")),
            ],
            "{report}"
        );
    }
}
