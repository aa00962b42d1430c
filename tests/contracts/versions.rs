//! Versions of data: steps between them, several side by side, and what becomes of the rest.

use std::sync::{Arc, Mutex};

use polybus::version::Migration;
use polybus::{Bus, BusBuilder, Config, ErrorKind, Event, Payload, State, TestBus};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.created", version = "1.0.0")]
struct CreatedV1 {
    name: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.created", version = "2.0.0", from = CreatedV1)]
struct CreatedV2 {
    full_name: String,
}

impl From<CreatedV1> for CreatedV2 {
    fn from(old: CreatedV1) -> Self {
        Self {
            full_name: old.name,
        }
    }
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.created", version = "2.0.0")]
struct OnlyV2 {
    full_name: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.deleted")]
struct Deleted {
    id: u32,
}

#[derive(Event, Serialize, Deserialize)]
#[serde(untagged)]
enum UserEvent {
    Created(CreatedV2),
    Deleted(Deleted),
}

type Log = Arc<Mutex<Vec<String>>>;

fn builder() -> BusBuilder {
    let text = "service.name = 's'\n[transports.t]\nkind = 'memory'\n\
                [[routes]]\npattern = 'user.*'\ntransport = 't'\ntopic = 'users'\n";
    Bus::builder().config(Config::parse(text, "polybus.toml").unwrap())
}

async fn publish(bus: &Bus, version: &str, data: &Value) {
    let event = Event::builder("user.created")
        .data_version(version)
        .json(data)
        .unwrap();
    bus.publish(event).await.unwrap();
}

fn logged(log: &Log) -> Vec<String> {
    std::mem::take(&mut *log.lock().unwrap())
}

async fn take_v1(Payload(user): Payload<CreatedV1>, State(log): State<Log>) {
    log.lock().unwrap().push(format!("v1 {}", user.name));
}

async fn take_v2(Payload(user): Payload<OnlyV2>, State(log): State<Log>) {
    log.lock().unwrap().push(format!("v2 {}", user.full_name));
}

#[tokio::test(start_paused = true)]
async fn an_enum_takes_all_events_of_a_domain_and_older_versions_of_them() {
    async fn take(Payload(event): Payload<UserEvent>, State(log): State<Log>) {
        let line = match event {
            UserEvent::Created(user) => format!("created {}", user.full_name),
            UserEvent::Deleted(user) => format!("deleted {}", user.id),
        };
        log.lock().unwrap().push(line);
    }
    let bus = TestBus::on(builder()).await.unwrap();
    let log = Log::default();
    bus.subscribe("s")
        .state(Arc::clone(&log))
        .on(take)
        .start()
        .await
        .unwrap();
    bus.publish(CreatedV1 { name: "old".into() }).await.unwrap();
    let user = CreatedV2 {
        full_name: "new".into(),
    };
    bus.publish(UserEvent::Created(user)).await.unwrap();
    bus.publish(Deleted { id: 7 }).await.unwrap();
    bus.settle().await;
    assert_eq!(logged(&log), ["created old", "created new", "deleted 7"]);
    bus.published::<UserEvent>().assert_len(3);
}

#[tokio::test(start_paused = true)]
async fn several_majors_are_handled_side_by_side() {
    let bus = TestBus::on(builder()).await.unwrap();
    let log = Log::default();
    let subscription = bus.subscribe("s").state(Arc::clone(&log));
    subscription.on(take_v1).on(take_v2).start().await.unwrap();
    publish(&bus, "2.4.0", &json!({ "full_name": "b" })).await;
    publish(&bus, "1.7.0", &json!({ "name": "a" })).await;
    bus.settle().await;
    assert_eq!(logged(&log), ["v2 b", "v1 a"]);
}

#[tokio::test(start_paused = true)]
async fn one_major_has_one_handler() {
    let bus = TestBus::on(builder()).await.unwrap();
    let subscription = bus.subscribe("s").state(Log::default());
    let error = subscription
        .on(take_v2)
        .on(take_v2)
        .start()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_unsupported_version_becomes_a_dead_letter_at_once() {
    let bus = TestBus::on(builder()).await.unwrap();
    let log = Log::default();
    bus.subscribe("s")
        .state(Arc::clone(&log))
        .on(take_v2)
        .start()
        .await
        .unwrap();
    publish(&bus, "3.0.0", &json!({ "full_name": "c" })).await;
    publish(&bus, "2.0.0", &json!({ "full_name": "d" })).await;
    bus.settle().await;
    assert_eq!(logged(&log), ["v2 d"], "the others go on");
    let letters = bus.dead_letters();
    assert!(
        letters.only().reason().contains("version `3.0.0`"),
        "{letters}"
    );
    assert_eq!(letters.only().attempts(), 1, "trying again would not help");
}

fn rename() -> Migration {
    Migration::new("user.created", "1.0.0", "2.0.0", |mut data| {
        data["full_name"] = data["name"].take();
        Ok(data)
    })
}

#[tokio::test(start_paused = true)]
async fn a_step_on_json_leads_to_the_handler_and_the_dead_letter_keeps_what_came() {
    async fn refuse(Payload(user): Payload<OnlyV2>) -> Result<(), polybus::Permanent> {
        Err(polybus::Permanent::new(user.full_name))
    }
    let bus = TestBus::on(builder().migration(rename())).await.unwrap();
    bus.subscribe("s").on(refuse).start().await.unwrap();
    publish(&bus, "1.0.0", &json!({ "name": "a" })).await;
    bus.settle().await;
    let letters = bus.dead_letters();
    let letter = letters.only();
    assert!(
        letter.reason().contains('a'),
        "the handler saw the new field"
    );
    let event = letter.event().unwrap();
    assert_eq!(event.data_version(), Some("1.0.0"));
    assert_eq!(&event.data().unwrap()[..], br#"{"name":"a"}"#);
}

#[tokio::test(start_paused = true)]
async fn a_gap_between_the_steps_is_found_at_the_start() {
    let to_four = Migration::new("user.created", "3.0.0", "4.0.0", Ok);
    let bus = TestBus::on(builder().migration(rename()).migration(to_four))
        .await
        .unwrap();
    let subscription = bus.subscribe("s").state(Log::default());
    subscription.on(take_v2).start().await.unwrap();
    let gap = Migration::new("user.created", "1.0.0", "1.5.0", Ok);
    let error = builder().migration(gap).build().await.unwrap_err();
    assert!(
        error.to_string().contains("user.created 1.0.0 -> 1.5.0"),
        "{error}"
    );
    let overshoots = Migration::new("user.created", "1.0.0", "3.0.0", Ok);
    let bus = builder().migration(overshoots).build().await.unwrap();
    let subscription = bus.subscribe("s").state(Log::default());
    let error = subscription.on(take_v2).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("leads to version 3"), "{error}");
}
