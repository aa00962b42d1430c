//! The conformance suite on a real Redis Cluster, with topics that are divided into partitions.

mod cluster_harness;

polybus_conformance::main!(cluster_harness::ClusterHarness<true>);
