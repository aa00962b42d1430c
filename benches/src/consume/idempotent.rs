//! What it costs to handle no event twice: a subscription with `idempotency` beside the same one
//! without, which stands as the raw side.

use polybus::{BoxError, Bus, Subscription};
use polybus_test_support::unique_name;

use crate::Bench;
use crate::local::{accepted, bus, close};
use crate::measure::{Sample, check};
use crate::raw::redis::{PIPELINE, connect, publish_pipelines};
use crate::report::Row;
use crate::servers::Redis;
use crate::shape::Shape;
use crate::tally::{Tally, count};

const EVENTS: usize = 100_000;

/// The settings of the subscription, with a store or without one.
fn settings(store: Option<&str>) -> String {
    match store {
        None => String::new(),
        Some(store) => {
            format!("[subscriptions.count]\nidempotency = {{ store = \"{store}\" }}\n")
        }
    }
}

/// Starts the handler that is measured, in a group of its own.
async fn start(bus: &Bus, tally: &Tally, group: &str) -> Result<Subscription, BoxError> {
    let subscription = bus.subscribe("count").group(group.to_owned());
    let subscription = subscription.state(tally.clone()).on_any(count);
    Ok(subscription.start().await?)
}

/// Over memory, with the store in memory.
pub async fn memory(case: &str, bench: &mut Bench) -> Result<(), BoxError> {
    let (events, shape) = (bench.events(EVENTS), Shape::new(200));
    let rounds = bench
        .interleave(
            async || from_memory(case, &shape, events, Some("memory")).await,
            async || from_memory(case, &shape, events, None).await,
        )
        .await?;
    bench.add(Row::new(case, 200, 0, "events/s", &rounds));
    Ok(())
}

async fn from_memory(
    case: &str,
    shape: &Shape,
    events: usize,
    store: Option<&str>,
) -> Result<Sample, BoxError> {
    let bus = bus("kind = \"memory\"", "events", &settings(store)).await?;
    let published = bus.publish_all((0..events).map(|number| shape.event(number)));
    accepted(&published.await)?;
    let tally = Tally::default();
    tally.expect(events);
    let _subscription = start(&bus, &tally, &unique_name("group")).await?;
    tally.reached().await?;
    let stretch = tally.since_first()?.stop();
    close(&bus).await?;
    Ok(stretch.throughput(events, check(case, tally.handled(), events)?))
}

/// Over Redis Streams, with the store on the same server.
pub async fn redis(case: &str, bench: &mut Bench) -> Result<(), BoxError> {
    let redis = bench.servers.redis().await?;
    let (events, stream) = (bench.events(EVENTS), unique_name("bench"));
    let (filling, shape) = (connect(&redis.url).await?, Shape::new(200));
    publish_pipelines(&filling, &stream, &shape, events, PIPELINE).await?;
    let rounds = bench
        .interleave(
            async || from_redis(&redis, &stream, events, Some("one")).await,
            async || from_redis(&redis, &stream, events, None).await,
        )
        .await?;
    bench.add(Row::new(case, 200, 1, "events/s", &rounds));
    redis.take(case, &stream, events).await?;
    Ok(())
}

async fn from_redis(
    redis: &Redis,
    stream: &str,
    events: usize,
    store: Option<&str>,
) -> Result<Sample, BoxError> {
    let transport = format!("kind = \"redis-streams\"\nurl = \"{}\"", redis.url);
    let bus = bus(&transport, stream, &settings(store)).await?;
    let (tally, group) = (Tally::default(), unique_name("group"));
    tally.expect(events);
    let _subscription = start(&bus, &tally, &group).await?;
    tally.reached().await?;
    let stretch = tally.since_first()?.stop();
    close(&bus).await?;
    let found = redis.acknowledged(stream, &group, events).await?;
    Ok(stretch.throughput(events, found))
}
