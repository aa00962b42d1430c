//! Buses for the cases.

use polybus::{BoxError, Bus, Config, Outcome};

use crate::null::{NullFactory, Supply};
use crate::shape::SOURCE;

/// A bus with one transport, and one topic for all events.
pub async fn bus(transport: &str, topic: &str, more: &str) -> Result<Bus, BoxError> {
    routed(
        transport,
        &format!(
            "[[routes]]\npattern = \"bench.*\"\ntransport = \"one\"\ntopic = \"{topic}\"\n{more}"
        ),
    )
    .await
}

/// A bus with one transport, and routes.
pub async fn routed(transport: &str, routes: &str) -> Result<Bus, BoxError> {
    supplied(transport, routes, Supply::default()).await
}

/// A bus whose transport of the kind `null` has something to deliver.
pub async fn supplied(transport: &str, routes: &str, supply: Supply) -> Result<Bus, BoxError> {
    let text = format!("[service]\nname = \"{SOURCE}\"\n[transports.one]\n{transport}\n{routes}");
    let config = Config::parse(&text, "bench.toml")?;
    let builder = Bus::builder()
        .config(config)
        .register(NullFactory::new(supply));
    Ok(builder.build().await?)
}

/// Fails unless all were accepted.
pub fn accepted(outcomes: &[Outcome]) -> Result<(), BoxError> {
    match outcomes.iter().find(|outcome| !outcome.is_accepted()) {
        None => Ok(()),
        Some(outcome) => Err(format!("an event was not accepted: {outcome:?}").into()),
    }
}

/// Ends a bus in good order.
pub async fn close(bus: &Bus) -> Result<(), BoxError> {
    Ok(bus.close("30s").await?.into_result()?)
}
