//! Consuming from Redis Streams.

use polybus::BoxError;
use polybus_test_support::unique_name;

use crate::Bench;
use crate::local::{bus, close};
use crate::measure::Sample;
use crate::raw::redis::{PIPELINE, connect, publish_pipelines};
use crate::raw::redis_consumer::Member;
use crate::report::Row;
use crate::servers::Redis;
use crate::shape::Shape;
use crate::tally::{Tally, count};

fn events(payload: usize) -> usize {
    if payload > 500 { 150_000 } else { 300_000 }
}

/// Handlers by key, against a loop of XREADGROUP and XACK.
pub async fn by_key(case: &str, bench: &mut Bench) -> Result<(), BoxError> {
    for payload in bench.payloads() {
        let redis = bench.servers.redis().await?;
        let (events, stream) = (bench.events(events(payload)), unique_name("bench"));
        let (filling, shape) = (connect(&redis.url).await?, Shape::new(payload));
        publish_pipelines(&filling, &stream, &shape, events, PIPELINE).await?;
        let rounds = bench
            .interleave(
                async || polybus(&redis, &stream, events).await,
                async || {
                    let group = unique_name("group");
                    let mut member = Member::join(&redis.url, &stream, &group).await?;
                    let stretch = member.read_all(events).await?;
                    let found = redis.acknowledged(&stream, &group, events).await?;
                    Ok(stretch.throughput(events, found))
                },
            )
            .await?;
        bench.add(Row::new(case, payload, 1, "events/s", &rounds));
        redis.take(case, &stream, events).await?;
    }
    Ok(())
}

/// Reads the stream from its beginning in a group of its own.
async fn polybus(redis: &Redis, stream: &str, events: usize) -> Result<Sample, BoxError> {
    let transport = format!("kind = \"redis-streams\"\nurl = \"{}\"", redis.url);
    let bus = bus(&transport, stream, "").await?;
    let (tally, group) = (Tally::default(), unique_name("group"));
    tally.expect(events);
    let subscription = bus.subscribe("count").group(group.clone());
    let subscription = subscription.state(tally.clone()).on_any(count);
    let _subscription = subscription.start().await?;
    tally.reached().await?;
    let stretch = tally.since_first()?.stop();
    close(&bus).await?;
    let found = redis.acknowledged(stream, &group, events).await?;
    Ok(stretch.throughput(events, found))
}
