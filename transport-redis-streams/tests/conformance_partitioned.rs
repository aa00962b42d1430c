//! The conformance suite on a real Redis, with topics that are divided into partitions.

mod harness;

polybus_conformance::main!(harness::RedisHarness<false, true>);
