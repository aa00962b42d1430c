//! What is collected, and becomes another member's before the batch is called.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use polybus::memory::MemoryTransport;
use polybus::transport::{
    AckToken, Capabilities, Delivery, DynAdmin, DynPublisher, DynSettler, DynSubscriber,
    DynTransport, Settlement, Settler, Subscriber, Subscription as Membership, Transport,
    TransportConfig, TransportFactory,
};
use polybus::{Bus, Config, Error, ErrorKind, Result};
use tokio::time::{Instant, sleep};

use super::{Calls, note, publish};

/// Memory that says of what is at some place, by offset, that it belongs to another member.
#[derive(Clone)]
struct Losing {
    inner: DynTransport,
    lost: Arc<AtomicU64>,
}

struct LosingSubscriber(DynSubscriber, Arc<AtomicU64>);

struct LosingSettler(DynSettler, Arc<AtomicU64>);

impl Transport for Losing {
    type Publisher = DynPublisher;
    type Subscriber = LosingSubscriber;
    type Admin = DynAdmin;

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn publisher(&self) -> Result<DynPublisher> {
        self.inner.publisher().await
    }

    async fn subscribe(&self, membership: Membership) -> Result<LosingSubscriber> {
        let inner = self.inner.subscribe(membership).await?;
        Ok(LosingSubscriber(inner, Arc::clone(&self.lost)))
    }

    fn admin(&self) -> DynAdmin {
        self.inner.admin()
    }
}

impl Subscriber for LosingSubscriber {
    type Settler = LosingSettler;

    async fn recv(&mut self, max: usize) -> Result<Vec<Delivery>> {
        self.0.recv(max).await
    }

    fn settler(&self) -> LosingSettler {
        LosingSettler(self.0.settler(), Arc::clone(&self.1))
    }

    async fn close(self, deadline: Instant) -> Result<()> {
        self.0.close(deadline).await
    }
}

impl Settler for LosingSettler {
    async fn settle(&self, batch: &[(AckToken, Settlement)]) -> Vec<Result<()>> {
        let mut results = Vec::new();
        for one in batch {
            match self.is_current(one.0) {
                true => results.extend(self.0.settle(&[*one]).await),
                false => results.push(Err(Error::new(ErrorKind::Stale, "lost"))),
            }
        }
        results
    }

    fn is_current(&self, token: AckToken) -> bool {
        token.id[0] != self.1.load(Ordering::SeqCst)
    }
}

struct Factory(Losing);

#[async_trait]
impl TransportFactory for Factory {
    fn kind(&self) -> &str {
        "losing"
    }

    async fn connect(&self, _: TransportConfig) -> Result<DynTransport> {
        Ok(DynTransport::new(self.0.clone()))
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_while_it_is_collected_is_not_handled() {
    let config = r#"
        [service]
        name = "test"
        [transports.local]
        kind = "losing"
        [[routes]]
        pattern = "user.*"
        transport = "local"
        topic = "users"
    "#;
    let losing = Losing {
        inner: DynTransport::new(MemoryTransport::new()),
        lost: Arc::new(AtomicU64::new(u64::MAX)),
    };
    let lost = Arc::clone(&losing.lost);
    let config = Config::parse(config, "test.toml").unwrap();
    let builder = Bus::builder().config(config).register(Factory(losing));
    let bus = builder.build().await.unwrap();
    let calls = Calls::default();
    let subscription = bus.subscribe("index").state(calls.clone()).on_batch(note);
    let subscription = subscription.batch(10, "1m").start().await.unwrap();
    publish(&bus, &["a1", "b1", "a2"]).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(subscription.counts().received, 3);
    // Where the second one is.
    lost.store(1, Ordering::SeqCst);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(calls.all(), [["a1", "a2"]]);
    let counts = subscription.counts();
    assert_eq!((counts.handled, counts.released), (2, 1));
}
