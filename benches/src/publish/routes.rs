//! Routing, envelope and batching alone: to a transport that accepts everything at once.

use std::fmt::Write as _;

use polybus::transport::{Outgoing, Publisher};
use polybus::{BoxError, Event, Text, Topic};

use super::CALL;
use crate::Bench;
use crate::local::{accepted, close, routed};
use crate::measure::{Stopwatch, check};
use crate::null::NullPublisher;
use crate::report::Row;
use crate::shape::{SOURCE, Shape};

const EVENTS: usize = 1_000_000;

/// How many events the raw side hands over at once, as the bus does.
const BATCH: usize = 500;

const TOPICS: usize = 4;

/// Publishes events of some of the types of a table, which lead to four topics. The raw side hands
/// the same events, made beforehand, to the same publisher.
pub async fn cost(
    case: &str,
    bench: &mut Bench,
    routes: usize,
    types: usize,
) -> Result<(), BoxError> {
    let mut text = String::new();
    for route in 0..routes {
        let topic = route % TOPICS;
        write!(
            text,
            "[[routes]]\npattern = \"bench.t{route}.*\"\ntransport = \"one\"\ntopic = \"topic-{topic}\"\n"
        )?;
    }
    let bus = routed("kind = \"null\"", &text).await?;
    let shape = Shape::new(200);
    let types: Vec<Text> = (0..types)
        .map(|number| format!("bench.t{}.made", number * (routes / types)).into())
        .collect();
    let event = |number: usize| {
        let event = Event::builder(types[number % types.len()].clone());
        shape.dress(event, number)
    };
    let events = bench.events(EVENTS);
    let made: Vec<_> = (0..BATCH)
        .map(|number| {
            let topic = Topic::new(format!("topic-{}", number % TOPICS));
            let event = event(number).source(Text::new_static(SOURCE)).build()?;
            Ok::<_, BoxError>(Outgoing::new(topic, event))
        })
        .collect::<Result<_, _>>()?;
    let rounds = bench
        .interleave(
            async || {
                let before = bus.publish_stats().accepted;
                let watch = Stopwatch::start();
                for first in (0..events).step_by(CALL) {
                    let numbers = first..events.min(first + CALL);
                    accepted(&bus.publish_all(numbers.map(event)).await)?;
                }
                let stretch = watch.stop();
                let found = bus.publish_stats().accepted - before;
                Ok(stretch.cost(events, check(case, found, events)?))
            },
            async || {
                let watch = Stopwatch::start();
                let mut found = 0;
                for _ in 0..events / BATCH {
                    found += NullPublisher.publish(&made).await.len();
                }
                Ok(watch.stop().cost(found, found as u64))
            },
        )
        .await?;
    bench.add(Row::new(case, 200, 0, "ns/event", &rounds));
    close(&bus).await
}
