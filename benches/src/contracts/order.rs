//! A typical event.

use polybus::Event;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Event, Serialize, Deserialize, JsonSchema)]
#[event(type = "order.placed", version = "1.2.0", key = order_id, schema)]
pub struct OrderPlaced {
    #[schemars(length(min = 1, max = 36))]
    pub order_id: String,
    pub customer: Customer,
    #[schemars(length(min = 1))]
    pub lines: Vec<Line>,
    #[schemars(range(min = 0))]
    pub total_cents: i64,
    pub currency: Currency,
    pub note: Option<String>,
    pub placed_at: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Customer {
    pub id: String,
    pub email: String,
    pub country: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    #[schemars(regex(pattern = "^[A-Z]{3}-[0-9]+$"))]
    pub sku: String,
    #[schemars(range(min = 1))]
    pub pieces: u32,
    pub price_cents: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub enum Currency {
    Eur,
    Usd,
}

impl OrderPlaced {
    pub fn typical() -> Self {
        let line = |number: u32| Line {
            sku: format!("ABC-{number}"),
            pieces: number,
            price_cents: 1999,
        };
        Self {
            order_id: "0190d7a0-0000-7000-8000-000000000000".to_owned(),
            customer: Customer {
                id: "customer-4711".to_owned(),
                email: "somebody@shop.example".to_owned(),
                country: "DE".to_owned(),
            },
            lines: (1..=3).map(line).collect(),
            total_cents: 5997,
            currency: Currency::Eur,
            note: Some("please ring twice".to_owned()),
            placed_at: "2026-11-21T12:00:00Z".to_owned(),
        }
    }
}
