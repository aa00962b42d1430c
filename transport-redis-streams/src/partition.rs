//! Topics that are divided into partitions: a stream for each.

use std::borrow::Cow;

use polybus_core::Topic;
use polybus_core::transport::{Content, Outgoing};

/// The stream of a partition. All of its name stands in braces, so that the partitions of a topic
/// spread over a cluster, and what belongs to one of them stands beside it.
pub(crate) fn stream_name(topic: &str, partition: u32) -> String {
    format!("{{{topic}:{partition}}}")
}

/// The streams of a topic, in the order of their partitions: one, unless it is divided.
pub(crate) fn streams(topic: &Topic) -> Vec<Topic> {
    match topic.partitions() {
        None => vec![topic.clone()],
        Some(partitions) => (0..partitions)
            .map(|partition| Topic::new(stream_name(topic.name(), partition)))
            .collect(),
    }
}

/// The topic that a stream is, or is a partition of.
pub(crate) fn topic_of(stream: &str) -> &str {
    let within = stream.strip_prefix('{').and_then(|it| it.strip_suffix('}'));
    match within.and_then(|it| it.rsplit_once(':')) {
        Some((topic, partition)) if partition.parse::<u32>().is_ok() => topic,
        _ => stream,
    }
}

/// Which partition of its topic takes an event; 0 if the topic is not divided.
pub(crate) fn partition_of(outgoing: &Outgoing) -> u32 {
    match outgoing.topic.partitions() {
        None | Some(1) => 0,
        Some(partitions) => partition_for(place_by(&outgoing.content), partitions),
    }
}

/// The stream that takes an event.
pub(crate) fn stream_of(outgoing: &Outgoing) -> Cow<'_, str> {
    let name = outgoing.topic.name();
    match outgoing.topic.partitions() {
        None => Cow::Borrowed(name),
        Some(_) => Cow::Owned(stream_name(name, partition_of(outgoing))),
    }
}

/// What the place goes by: the key, or else what is different for each.
fn place_by(content: &Content) -> &[u8] {
    match content {
        Content::Event(event) => event.key().unwrap_or(event.id()).as_bytes(),
        Content::Raw(record) => {
            let place = record.key.as_ref().or(record.value.as_ref());
            place.map_or(&[], |bytes| &bytes[..])
        }
    }
}

/// As the default partitioner of Kafka's clients chooses it.
fn partition_for(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// MurmurHash2 of 32 bits, with the seed that Kafka gives it.
fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const FACTOR: u32 = 0x5bd1_e995;
    // The length is part of the seed, cut to 32 bits.
    #[expect(clippy::cast_possible_truncation)]
    let mut hash = SEED ^ bytes.len() as u32;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(FACTOR);
        word ^= word >> 24;
        hash = hash.wrapping_mul(FACTOR) ^ word.wrapping_mul(FACTOR);
    }
    if !rest.is_empty() {
        let tail = rest.iter().rev();
        hash ^= tail.fold(0, |tail, byte| (tail << 8) | u32::from(*byte));
        hash = hash.wrapping_mul(FACTOR);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(FACTOR);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::slot_of;

    #[test]
    fn keys_are_hashed_as_kafka_does() {
        // What the tests of Kafka's own client expect.
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn what_belongs_to_a_partition_is_in_the_slot_of_its_stream() {
        for topic in ["orders", "{shop}-orders", "a{b"] {
            for partition in 0..8 {
                let stream = stream_name(topic, partition);
                let lease = format!("{stream}:lease:group{{1}}");
                assert_eq!(slot_of(&stream), slot_of(&lease), "{stream}");
            }
        }
        let slot = |partition| slot_of(&stream_name("orders", partition));
        assert_ne!(slot(0), slot(1));
    }

    #[test]
    fn a_topic_that_is_not_divided_is_one_stream_of_its_name() {
        assert_eq!(streams(&Topic::new("orders"))[0].name(), "orders");
        let streams = streams(&Topic::new("orders").with_partitions(2));
        let names: Vec<_> = streams.iter().map(Topic::name).collect();
        assert_eq!(names, ["{orders:0}", "{orders:1}"]);
        for stream in names {
            assert_eq!(topic_of(stream), "orders");
        }
        for other in ["orders", "{orders}", "{orders:a}", "orders:1", "{shop}:1"] {
            assert_eq!(topic_of(other), other);
        }
    }
}
