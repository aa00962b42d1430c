//! Who reads what is not leased: one task, or on a cluster one for each slot, because the server reads streams
//! together only if they are of one slot.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::cluster::slot_of;
use crate::member::Member;
use crate::reader;

/// Reads until the member stops or fails for good.
pub(crate) async fn run(member: Arc<Member>) {
    if member.link.nodes().is_none() {
        return reader::run(member, None, None).await;
    }
    let mut readers = JoinSet::new();
    let mut slots = HashSet::new();
    loop {
        for stream in member.streams().iter().skip(member.partitions.len()) {
            let slot = slot_of(stream.name());
            if slots.insert(slot) {
                readers.spawn(reader::run(Arc::clone(&member), Some(slot), None));
            }
        }
        tokio::select! {
            () = member.stop.cancelled() => break,
            () = member.added.notified() => {}
        }
    }
    while readers.join_next().await.is_some() {}
}
