//! The conformance suite on a real Redis Cluster.

mod cluster_harness;

polybus_conformance::main!(cluster_harness::ClusterHarness<false>);
