//! The memory transport: from one publisher to one handler.

use std::sync::Arc;

use polybus::memory::MemoryTransport;
use polybus::transport::{
    Outgoing, Publisher, Settlement, Settler, Subscriber, Subscription, Transport,
};
use polybus::{BoxError, Text, Topic};

use super::publish_all;
use crate::Bench;
use crate::local::{accepted, bus, close};
use crate::measure::{Sample, Stopwatch, check, peak_memory, present_memory};
use crate::report::Row;
use crate::shape::{SOURCE, Shape};
use crate::tally::{Tally, count};

/// How many events the raw side publishes in a call, as the bus does.
const BATCH: usize = 500;

/// How many deliveries the raw side takes in a call, as a subscription does.
const WINDOW: usize = 1024;

/// Publishes while a handler takes, and ends when all is handled. The raw side drives the
/// transport's own publisher and subscriber in the same way.
pub async fn to_handler(case: &str, bench: &mut Bench, events: usize) -> Result<(), BoxError> {
    let events = bench.events(events);
    let shape = Shape::new(200);
    let (bus, tally) = (
        bus("kind = \"memory\"", "events", "").await?,
        Tally::default(),
    );
    let subscription = bus.subscribe("count").state(tally.clone()).on_any(count);
    let _subscription = subscription.start().await?;
    let raw = Raw::new(&shape).await?;
    let rounds = bench
        .interleave(
            async || {
                let before = tally.handled();
                tally.expect(events);
                let watch = Stopwatch::start();
                let publishing = publish_all(&bus, &shape, events);
                let (published, handled) = tokio::join!(publishing, tally.reached());
                let stretch = watch.stop();
                published.and(handled)?;
                let found = check(case, tally.handled() - before, events)?;
                Ok(stretch.throughput(events, found))
            },
            async || raw.run(case, events).await,
        )
        .await?;
    bench.add(Row::new(case, 200, 0, "events/s", &rounds));
    close(&bus).await
}

/// Ten million events through one bus, and what memory they took.
pub async fn ten_million(case: &str, bench: &mut Bench) -> Result<(), BoxError> {
    let events = bench.events(1_000_000);
    let shape = Shape::new(200);
    let (bus, tally) = (
        bus("kind = \"memory\"", "events", "").await?,
        Tally::default(),
    );
    let subscription = bus.subscribe("count").state(tally.clone()).on_any(count);
    let _subscription = subscription.start().await?;
    let mut memory = Vec::new();
    let mut samples = Vec::new();
    for _ in 0..10 {
        tally.expect(events);
        let watch = Stopwatch::start();
        let publishing = publish_all(&bus, &shape, events);
        let (published, handled) = tokio::join!(publishing, tally.reached());
        published.and(handled)?;
        samples.push(watch.stop().throughput(events, events as u64));
        memory.push(present_memory().unwrap_or_default());
    }
    check(case, tally.handled(), 10 * events)?;
    let rounds = crate::measure::Rounds {
        raw: samples.clone(),
        polybus: samples,
    };
    bench.add(Row::new(case, 200, 0, "events/s", &rounds));
    let memory: Vec<_> = memory.iter().map(|it| format!("{it:.0}")).collect();
    println!(
        "    resident after each tenth of {} events: {} MiB; peak {:.0} MiB",
        10 * events,
        memory.join(" "),
        peak_memory().unwrap_or_default()
    );
    close(&bus).await
}

/// The transport by itself.
struct Raw {
    transport: MemoryTransport,
    made: Arc<Vec<Outgoing>>,
}

impl Raw {
    async fn new(shape: &Shape) -> Result<Self, BoxError> {
        let topic = Topic::new("events");
        let made = (0..BATCH).map(|number| {
            let event = shape.event(number).source(Text::new_static(SOURCE));
            Ok::<_, BoxError>(Outgoing::new(topic.clone(), event.build()?))
        });
        Ok(Self {
            transport: MemoryTransport::new(),
            made: Arc::new(made.collect::<Result<_, _>>()?),
        })
    }

    async fn run(&self, case: &str, events: usize) -> Result<Sample, BoxError> {
        let publisher = self.transport.publisher().await?;
        let topic = Topic::new("events");
        let mut subscriber = self
            .transport
            .subscribe(Subscription::new("raw", [topic]))
            .await?;
        let settler = subscriber.settler();
        let made = Arc::clone(&self.made);
        let watch = Stopwatch::start();
        let publishing = tokio::spawn(async move {
            for _ in 0..events / BATCH {
                accepted(&publisher.publish(&made).await)?;
            }
            Ok::<_, BoxError>(())
        });
        let mut found = 0;
        let expected = events / BATCH * BATCH;
        while found < expected as u64 {
            let deliveries = subscriber.recv(WINDOW).await?;
            found += deliveries.len() as u64;
            let tokens = deliveries.iter().map(|it| (it.token(), Settlement::Ack));
            let tokens: Vec<_> = tokens.collect();
            settler
                .settle(&tokens)
                .await
                .into_iter()
                .collect::<polybus::Result<()>>()?;
        }
        publishing.await??;
        let stretch = watch.stop();
        Ok(stretch.throughput(expected, check(case, found, expected)?))
    }
}
