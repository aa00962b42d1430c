//! Layers of the program's own.

use std::sync::{Arc, Mutex};

use polybus::middleware::layers::{PublishLayer, Stage, Timeout};
use polybus::transport::{DynPublisher, Outgoing, Publisher};
use polybus::{Error, ErrorKind, Outcome, Result};
use tokio::time::{Duration, Instant};

use crate::fake::{Answer, Fake, event};

/// Notes the batches that pass, and refuses what it is told to.
#[derive(Debug, Clone, Default)]
struct Noting {
    name: &'static str,
    refuses: Option<&'static str>,
    noted: Arc<Mutex<Vec<String>>>,
}

#[derive(Debug)]
struct Noted {
    layer: Noting,
    inner: DynPublisher,
}

impl PublishLayer for Noting {
    fn wrap(&self, inner: DynPublisher) -> DynPublisher {
        let layer = self.clone();
        DynPublisher::new(Noted { layer, inner })
    }
}

impl Publisher for Noted {
    async fn publish(&self, batch: &[Outgoing]) -> Vec<Outcome> {
        let id = |it: &Outgoing| it.event().unwrap().id().to_owned();
        for outgoing in batch {
            let line = format!("{} {}", self.layer.name, id(outgoing));
            self.layer.noted.lock().unwrap().push(line);
        }
        if batch
            .iter()
            .any(|it| Some(id(it).as_str()) == self.layer.refuses)
        {
            let refused = || Error::new(ErrorKind::Unsupported, "refused");
            return batch.iter().map(|_| Outcome::Rejected(refused())).collect();
        }
        self.inner.publish(batch).await
    }

    async fn flush(&self, deadline: Instant) -> Result<()> {
        self.inner.flush(deadline).await
    }

    async fn close(&self, deadline: Instant) -> Result<()> {
        self.inner.close(deadline).await
    }
}

fn noting(name: &'static str, noted: &Arc<Mutex<Vec<String>>>) -> Noting {
    Noting {
        name,
        refuses: None,
        noted: Arc::clone(noted),
    }
}

#[tokio::test(start_paused = true)]
async fn they_stand_next_to_the_transport_in_the_order_given() {
    // Sent twice: an own layer sees each attempt, one of deduplication sees it once.
    let fake = Fake::new().script(|event, attempt| match (event.id(), attempt) {
        ("again", 1) => Answer::Reject,
        _ => Answer::Accept,
    });
    let noted = Arc::default();
    let settings = "dedup = { window = '1m' }\nretry = { base = '1ms', max = '1ms' }";
    let bus = fake.builder(&fake.config(settings, ""));
    let bus = bus
        .layer("fake", noting("outer", &noted))
        .layer("fake", noting("inner", &noted));
    let bus = bus.build().await.unwrap();
    bus.publish(event("once")).await.unwrap();
    bus.publish(event("once")).await.unwrap();
    bus.publish(event("again")).await.unwrap();
    let expected = [
        "outer once",
        "inner once",
        "outer again",
        "inner again",
        "outer again",
        "inner again",
    ];
    assert_eq!(*noted.lock().unwrap(), expected);
    assert_eq!(fake.stored_ids(), ["once", "again"]);
    bus.close("1s").await.unwrap().into_result().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_they_refuse_is_not_sent() {
    let fake = Fake::new();
    let layer = Noting {
        refuses: Some("no"),
        ..Noting::default()
    };
    let bus = fake.builder(&fake.config("", "")).layer("fake", layer);
    let bus = bus.build().await.unwrap();
    let error = bus.publish(event("no")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    bus.publish(event("yes")).await.unwrap();
    assert_eq!(fake.stored_ids(), ["yes"]);
}

#[tokio::test]
async fn a_layer_in_a_wrong_place_is_refused() {
    let fake = Fake::new();
    let builder = || fake.builder(&fake.config("", ""));
    let error = builder().layer("other", Noting::default()).build().await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("`other`"), "{error}");
    let timeout = Timeout::new(Duration::from_secs(1));
    let error = builder().layer("fake", timeout).build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("`timeout`"), "{error}");
    assert_eq!(Noting::default().stage(), Stage::Own);
}
