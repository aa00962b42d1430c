//! The cases of contracts: what the data and the envelope of an event cost, and their validation. No
//! server, no bus.

mod order;

use std::hint::black_box;

use polybus::validation::Contract;
use polybus::{BoxError, Codec, Event, EventData, EventDefaults, IntoEvent, Text};
use serde_json::Value;

use crate::Bench;
use crate::measure::{Sample, Stopwatch};
use crate::report::Row;
use order::OrderPlaced;

/// The names of all cases.
pub const CASES: &[&str] = &["codec", "validation"];

const EVENTS: usize = 200_000;

pub async fn run(case: &str, bench: &mut Bench) -> Result<(), BoxError> {
    match case {
        "codec" => codec(case, bench).await,
        "validation" => validation(case, bench).await,
        _ => Err(format!("there is no case `{case}`").into()),
    }
}

/// So many times the same, each told to have gone well.
fn repeat(
    count: usize,
    mut once: impl FnMut() -> Result<bool, BoxError>,
) -> Result<Sample, BoxError> {
    let watch = Stopwatch::start();
    let mut good = 0;
    for _ in 0..count {
        good += u64::from(once()?);
    }
    let stretch = watch.stop();
    if good != count as u64 {
        return Err(format!("{good} of {count} went well").into());
    }
    Ok(stretch.cost(count, good))
}

/// From a value to an event with its id, its time and its attributes, and back to a value; beside the
/// value alone to JSON and back.
async fn codec(case: &str, bench: &mut Bench) -> Result<(), BoxError> {
    let count = bench.events(EVENTS);
    let order = OrderPlaced::typical();
    let size = serde_json::to_vec(&order)?.len();
    let source = Text::new_static("bench");
    let defaults = EventDefaults::new(&source, Codec::Json);
    let polybus = async || {
        repeat(count, || {
            let event = black_box(&order).clone().into_event(&defaults)?;
            let read = OrderPlaced::from_event(black_box(&event))?;
            Ok(read.lines.len() == order.lines.len())
        })
    };
    let raw = async || {
        repeat(count, || {
            // Cloned as well: an event takes its data.
            let json = serde_json::to_vec(&black_box(&order).clone())?;
            let read: OrderPlaced = serde_json::from_slice(black_box(&json))?;
            Ok(read.lines.len() == order.lines.len())
        })
    };
    let rounds = bench.interleave(polybus, raw).await?;
    bench.add(Row::new(case, size, 0, "ns/event", &rounds));
    Ok(())
}

/// The check of an event, beside the bare library on the same data and schema.
async fn validation(case: &str, bench: &mut Bench) -> Result<(), BoxError> {
    let count = bench.events(EVENTS);
    let order = OrderPlaced::typical();
    let source = Text::new_static("bench");
    let defaults = EventDefaults::new(&source, Codec::Json);
    let event = order.into_event(&defaults)?;
    let data = event.data().ok_or("an event of a value has data")?.clone();
    let schema = OrderPlaced::schema_of("order.placed").ok_or("the type has a schema")?;
    let contract = Contract::of::<OrderPlaced>()?;
    let bare = jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)?;
    let polybus = async || {
        repeat(count, || {
            let event: &Event = black_box(&event);
            Ok(contract.check(event).is_valid())
        })
    };
    let raw = async || {
        repeat(count, || {
            let value: Value = serde_json::from_slice(black_box(&data))?;
            Ok(bare.is_valid(&value))
        })
    };
    let rounds = bench.interleave(polybus, raw).await?;
    bench.add(Row::new(case, data.len(), 0, "ns/event", &rounds));
    Ok(())
}
