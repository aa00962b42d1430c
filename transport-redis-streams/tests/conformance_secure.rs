//! The conformance suite on a real Redis that demands TLS, a certificate and a login.

mod harness;

polybus_conformance::main!(harness::RedisHarness<true>);
