//! What a bus tells `tracing`: publish, receive, handle and settle, with the event they are about.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use polybus::{Bus, Config, Payload, State};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

#[derive(polybus::Event, Serialize, Deserialize)]
#[event(type = "user.created", key = user_id)]
struct UserCreated {
    user_id: String,
}

type Fields = BTreeMap<String, String>;

/// Keeps every event and span of polybus.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Fields>>>);

struct Reading<'a>(&'a mut Fields);

impl Visit for Reading<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(
            field.name().to_owned(),
            format!("{value:?}").trim_matches('"').to_owned(),
        );
    }
}

impl<S: Subscriber> Layer<S> for Kept {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::new();
        event.record(&mut Reading(&mut fields));
        self.0.lock().unwrap().push(fields);
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        let mut fields = Fields::new();
        fields.insert(
            "message".to_owned(),
            attributes.metadata().name().to_owned(),
        );
        attributes.record(&mut Reading(&mut fields));
        self.0.lock().unwrap().push(fields);
    }
}

const CONFIG: &str = r#"
    [service]
    name = "test"
    [transports.local]
    kind = "memory"
    [[routes]]
    pattern = "user.*"
    transport = "local"
    topic = "user-events"
"#;

#[tokio::test]
async fn every_step_names_the_event_the_topic_and_the_outcome() {
    async fn handle(_: Payload<UserCreated>, State(done): State<mpsc::Sender<()>>) {
        tracing::info!("in the handler");
        done.send(()).await.unwrap();
    }
    let kept = Kept::default();
    // The test's runtime has one thread, so everything is seen.
    let _guard =
        tracing::subscriber::set_default(tracing_subscriber::registry().with(kept.clone()));
    let config = Config::parse(CONFIG, "test.toml").unwrap();
    let bus = Bus::builder().config(config).build().await.unwrap();
    let (done, mut handled) = mpsc::channel(1);
    bus.subscribe("sub")
        .state(done)
        .on(handle)
        .start()
        .await
        .unwrap();
    bus.publish(UserCreated {
        user_id: "u1".into(),
    })
    .await
    .unwrap();
    handled.recv().await.unwrap();
    bus.close("10s").await.unwrap().into_result().unwrap();

    let kept = kept.0.lock().unwrap();
    let step = |name: &str| {
        kept.iter()
            .find(|fields| fields["message"] == name)
            .unwrap()
    };
    let id = &step("published")["event_id"];
    for (name, outcome) in [
        ("published", Some("accepted")),
        ("received", None),
        ("handle", None),
        ("settled", Some("ack")),
    ] {
        let fields = step(name);
        assert_eq!(fields["event_type"], "user.created", "{name}");
        assert_eq!(fields["event_id"], *id, "{name}");
        assert_eq!(fields["topic"], "user-events", "{name}");
        assert_eq!(fields.get("outcome").map(String::as_str), outcome, "{name}");
    }
}
