//! A harness without its type, so that a case is compiled once and not for each transport.

use futures::future::BoxFuture;
use polybus_core::transport::{DynTransport, Outgoing, RawRecord, TopicSpec};
use polybus_core::{BoxError, Topic};

use crate::harness::{Fault, Harness, Tuning, Unsupported};

pub(crate) trait ErasedHarness: Send + Sync {
    fn connect(&self) -> BoxFuture<'_, Result<DynTransport, BoxError>>;
    fn topic_spec(&self, spec: TopicSpec) -> TopicSpec;
    fn splits_topics(&self) -> bool;
    fn topic_name(&self, name: &str, family: &str) -> String;
    fn undecodable(&self) -> RawRecord;
    fn rejected(&self, topic: &Topic) -> Result<Outgoing, Unsupported>;
    fn can_disrupt(&self, fault: Fault) -> Result<(), Unsupported>;
    fn disrupt(&self, fault: Fault) -> BoxFuture<'_, Result<(), BoxError>>;
    fn tuning(&self) -> Tuning;
}

impl<H: Harness> ErasedHarness for H {
    fn connect(&self) -> BoxFuture<'_, Result<DynTransport, BoxError>> {
        Box::pin(async { Ok(DynTransport::new(Harness::connect(self).await?)) })
    }

    fn topic_spec(&self, spec: TopicSpec) -> TopicSpec {
        Harness::topic_spec(self, spec)
    }

    fn splits_topics(&self) -> bool {
        Harness::splits_topics(self)
    }

    fn topic_name(&self, name: &str, family: &str) -> String {
        Harness::topic_name(self, name, family)
    }

    fn undecodable(&self) -> RawRecord {
        Harness::undecodable(self)
    }

    fn rejected(&self, topic: &Topic) -> Result<Outgoing, Unsupported> {
        Harness::rejected(self, topic)
    }

    fn can_disrupt(&self, fault: Fault) -> Result<(), Unsupported> {
        Harness::can_disrupt(self, fault)
    }

    fn disrupt(&self, fault: Fault) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(Harness::disrupt(self, fault))
    }

    fn tuning(&self) -> Tuning {
        Harness::tuning(self)
    }
}
