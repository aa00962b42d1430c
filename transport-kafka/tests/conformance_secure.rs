//! The conformance suite on a real Kafka that demands TLS and a login.

mod harness;

polybus_conformance::main!(harness::KafkaHarness<true>);
