//! A transport that is not ours joins in by its `kind`, with settings of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use polybus::memory::MemoryTransport;
use polybus::transport::{DynTransport, TransportConfig, TransportFactory};
use polybus::{Bus, Config, ErrorKind, RawEvent, Result, State};
use serde::Deserialize;
use tokio::sync::mpsc;

/// Stands for a broker of a user's own.
#[derive(Clone, Default)]
struct OwnFactory {
    endpoints: Arc<Mutex<Vec<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnSettings {
    endpoint: String,
}

#[async_trait]
impl TransportFactory for OwnFactory {
    fn kind(&self) -> &str {
        "own"
    }

    async fn connect(&self, config: TransportConfig) -> Result<DynTransport> {
        let settings: OwnSettings = config.section.parse()?;
        self.endpoints
            .lock()
            .unwrap()
            .push(format!("{} {}", config.name, settings.endpoint));
        Ok(DynTransport::new(MemoryTransport::new()))
    }
}

fn config(settings: &str) -> Config {
    let text = format!(
        r#"
        [service]
        name = "test"
        [transports.mine]
        kind = "own"
        {settings}
        [[routes]]
        pattern = "user.*"
        transport = "mine"
        topic = "users"
        "#
    );
    Config::parse(&text, "polybus.toml").unwrap()
}

#[tokio::test]
async fn a_registered_kind_carries_events() {
    async fn handle(State(seen): State<mpsc::Sender<String>>, RawEvent(event): RawEvent) {
        seen.send(event.event_type().to_owned()).await.unwrap();
    }
    let factory = OwnFactory::default();
    let builder = Bus::builder()
        .config(config("endpoint = \"here:1\""))
        .register(factory.clone());
    let bus = builder.build().await.unwrap();
    let (seen, mut notes) = mpsc::channel(1);
    bus.subscribe("sub")
        .state(seen)
        .on_any(handle)
        .start()
        .await
        .unwrap();
    bus.event("user.created").publish().await.unwrap();
    assert_eq!(notes.recv().await.unwrap(), "user.created");
    assert_eq!(*factory.endpoints.lock().unwrap(), ["mine here:1"]);
    bus.close("10s").await.unwrap().into_result().unwrap();
}

#[tokio::test]
async fn its_settings_have_the_same_errors_as_ours() {
    let builder = Bus::builder()
        .config(config("endpiont = \"here\""))
        .register(OwnFactory::default());
    let error = builder.build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    for part in ["polybus.toml:6", "transports.mine", "endpiont", "endpoint"] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}
