//! The events and the config that the tests share.

use polybus::testing::Recorded;
use polybus::{Bus, Config, Event, TestBus};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Event, Serialize, Deserialize)]
#[event(type = "order.placed", key = order)]
pub(crate) struct OrderPlaced {
    pub(crate) order: u32,
}

#[derive(Debug, Clone, PartialEq, Event, Serialize, Deserialize)]
#[event(type = "stock.reserved", key = order)]
pub(crate) struct StockReserved {
    pub(crate) order: u32,
}

#[derive(Debug, Clone, PartialEq, Event, Serialize, Deserialize)]
#[event(type = "mail.sent", key = order)]
pub(crate) struct MailSent {
    pub(crate) order: u32,
}

/// `order.*` and `stock.*` travel on `shop`, `mail.*` elsewhere.
pub(crate) const CONFIG: &str = r#"
    [service]
    name = "shop"
    max_event_size = "1KiB"

    [transports.shop]
    kind = "memory"

    [transports.other]
    kind = "memory"

    [[routes]]
    pattern   = "order.*"
    transport = "shop"
    topic     = "orders"
    validate  = "strict"

    [[routes]]
    pattern   = "stock.*"
    transport = "shop"
    topic     = "stock"

    [[routes]]
    pattern   = "mail.*"
    transport = "other"
    topic     = "mails"
"#;

pub(crate) fn config(more: &str) -> Config {
    Config::parse(&format!("{CONFIG}\n{more}"), "shop.toml").unwrap()
}

pub(crate) async fn bus(more: &str) -> TestBus {
    TestBus::on(Bus::builder().config(config(more)))
        .await
        .unwrap()
}

pub(crate) fn order(order: u32) -> OrderPlaced {
    OrderPlaced { order }
}

pub(crate) fn stock(order: u32) -> StockReserved {
    StockReserved { order }
}

/// Orders and reservations that were stored.
pub(crate) fn stored(bus: &TestBus) -> (Recorded<OrderPlaced>, Recorded<StockReserved>) {
    (bus.published(), bus.published())
}
