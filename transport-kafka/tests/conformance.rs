//! The conformance suite on a real Kafka.

mod harness;

polybus_conformance::main!(harness::KafkaHarness<false>);
