use std::collections::HashMap;

use crate::transport::{Delivery, Position};
use crate::{Text, Topic};

/// A partition that a subscription has received from, or a topic of a transport without
/// partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionStatus {
    /// The transport's name in the config.
    pub transport: Text,
    /// The topic.
    pub topic: Topic,
    /// The partition. 0 on a transport without partitions.
    pub partition: u32,
    /// How many deliveries came from it, redeliveries included.
    pub received: u64,
    /// The position of the one that came last.
    pub last_received: Position,
}

/// What was received of each partition.
#[derive(Debug, Default)]
pub(super) struct Partitions(HashMap<(Text, Topic, u32), (u64, Option<Position>)>);

impl Partitions {
    /// Notes deliveries of a transport: one look-up for all that came of a partition in a row.
    pub(super) fn received(&mut self, transport: &Text, deliveries: &[Delivery]) {
        let of_one = |a: &Delivery, b: &Delivery| a.token().source == b.token().source;
        for row in deliveries.chunk_by(of_one) {
            let Some(last) = row.last() else { continue };
            let (topic, position) = (last.topic().clone(), last.position());
            let key = (transport.clone(), topic, position.partition());
            let (received, last_received) = self.0.entry(key).or_default();
            *received += row.len() as u64;
            *last_received = Some(position);
        }
    }

    /// Everything, in order.
    pub(super) fn all(&self) -> Vec<PartitionStatus> {
        let status = |(key, value): (&(Text, Topic, u32), &(u64, Option<Position>))| {
            let ((transport, topic, partition), (received, last)) = (key, value);
            Some(PartitionStatus {
                transport: transport.clone(),
                topic: topic.clone(),
                partition: *partition,
                received: *received,
                last_received: (*last)?,
            })
        };
        let mut all: Vec<PartitionStatus> = self.0.iter().filter_map(status).collect();
        all.sort_by(|a, b| {
            let order = |it: &PartitionStatus| (it.transport.clone(), it.topic.name().to_owned());
            (order(a), a.partition).cmp(&(order(b), b.partition))
        });
        all
    }
}
