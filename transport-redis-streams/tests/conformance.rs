//! The conformance suite on a real Redis.

mod harness;

polybus_conformance::main!(harness::RedisHarness<false>);
