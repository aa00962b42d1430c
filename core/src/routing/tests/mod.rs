mod compiling;
mod explaining;
mod partitioned;
mod reading;
mod resolving;

use super::*;
use crate::config::{Config, DefaultRoute, RouteConfig, Section, TransportSection};
use crate::topic::TopicPattern;

/// A config with two transports, whose routes begin in line 4, each on a line of its own.
fn config(routes: &[(&str, &str, &str)], default: Option<(&str, &str)>) -> Config {
    let mut text = "service.name = 's'\ntransports = { redis = { kind = 'r' }, kafka = { kind = \
                    'k' } }\nroutes = [\n"
        .to_owned();
    for (pattern, transport, topic) in routes {
        text += &format!(
            "{{ pattern = '{pattern}', transport = '{transport}', topic = '{topic}' }},\n"
        );
    }
    text += "]\n";
    if let Some((transport, topic)) = default {
        text +=
            &format!("[routing]\ndefault = {{ transport = '{transport}', topic = '{topic}' }}\n");
    }
    let none: [(&str, &str); 0] = [];
    Config::parse_with(&text, "polybus.toml", none).unwrap()
}

fn table(routes: &[(&str, &str, &str)], default: Option<(&str, &str)>) -> RouteTable {
    RouteTable::compile(&config(routes, default)).unwrap()
}

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

/// `transport/topic` of an event type.
fn way(table: &RouteTable, event_type: &str) -> String {
    let resolved = table.resolve(event_type).unwrap();
    format!("{}/{}", resolved.transport, resolved.topic)
}

const BRIEF: [(&str, &str, &str); 2] = [
    ("user.*", "redis", "user-events"),
    ("deal.*", "kafka", "filops.deals.status"),
];
