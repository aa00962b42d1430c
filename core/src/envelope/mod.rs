//! Envelopes: how an event's attributes stand on the wire, shared by the transports.

pub mod headers;
pub mod json;
