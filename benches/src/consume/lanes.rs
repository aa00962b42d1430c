//! The runtime alone: deliveries that are there already, a handler that returns at once.

use polybus::transport::{Settlement, Settler, Subscriber};
use polybus::{BoxError, Text, Topic};

use crate::Bench;
use crate::local::{close, supplied};
use crate::measure::{Stopwatch, check};
use crate::null::Supply;
use crate::report::Row;
use crate::shape::{SOURCE, Shape};
use crate::tally::Tally;

const EVENTS: usize = 2_000_000;

/// How many deliveries the raw side takes in a call, as a subscription does.
const WINDOW: usize = 1024;

/// Events over so many keys. The raw side takes and settles the same deliveries.
pub async fn cost(case: &str, bench: &mut Bench, keys: usize) -> Result<(), BoxError> {
    let events = bench.events(EVENTS);
    let shape = Shape::with_keys(200, keys);
    let made = (0..keys).map(|number| {
        let event = shape.event(number).source(Text::new_static(SOURCE));
        event.build()
    });
    let made: Vec<_> = made.collect::<polybus::Result<_>>()?;
    let (supply, raw_supply) = (Supply::new(made.clone()), Supply::new(made));
    let route = "[[routes]]\npattern = \"bench.*\"\ntransport = \"one\"\ntopic = \"events\"\n";
    let bus = supplied("kind = \"null\"", route, supply.clone()).await?;
    let tally = Tally::default();
    let counting = tally.clone();
    let handler = move || {
        counting.count(1);
        std::future::ready(())
    };
    let _subscription = bus.subscribe("count").on_any(handler).start().await?;
    let mut raw = raw_supply.subscriber(Topic::new("events"));
    let rounds = bench
        .interleave(
            async || {
                let before = tally.handled();
                tally.expect(events);
                let watch = Stopwatch::start();
                supply.order(events);
                tally.reached().await?;
                let stretch = watch.stop();
                Ok(stretch.cost(events, check(case, tally.handled() - before, events)?))
            },
            async || {
                let watch = Stopwatch::start();
                raw_supply.order(events);
                let mut found = 0;
                while found < events {
                    let deliveries = raw.recv(WINDOW).await?;
                    found += deliveries.len();
                    let tokens = deliveries.iter().map(|it| (it.token(), Settlement::Ack));
                    let tokens: Vec<_> = tokens.collect();
                    raw.settler().settle(&tokens).await;
                }
                Ok(watch
                    .stop()
                    .cost(events, check(case, found as u64, events)?))
            },
        )
        .await?;
    bench.add(Row::new(case, 200, 0, "ns/event", &rounds));
    close(&bus).await
}
