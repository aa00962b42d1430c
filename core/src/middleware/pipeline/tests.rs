//! What a state decides, step by step.

use std::sync::Arc;

use super::group::{Batch, Entry};
use super::state::State;
use crate::config::PublishConfig;
use crate::middleware::reply::Reply;
use crate::middleware::route::Route;
use crate::transport::{DynPublisher, Outcome, Outgoing, Publisher};
use crate::{Event, Result, Topic};

struct Nowhere;

impl Publisher for Nowhere {
    async fn publish(&self, _: &[Outgoing]) -> Vec<Outcome> {
        Vec::new()
    }

    async fn flush(&self, _: tokio::time::Instant) -> Result<()> {
        Ok(())
    }

    async fn close(&self, _: tokio::time::Instant) -> Result<()> {
        Ok(())
    }
}

/// A state with two groups, whose batches hold `max_events`.
fn state(max_events: usize) -> State {
    let mut config = PublishConfig::default();
    config.batch.max_events = max_events;
    let route = Arc::new(Route::new(&config, DynPublisher::new(Nowhere), None));
    let mut state = State::new();
    assert_eq!(state.group(&route, "a".into()), 0);
    assert_eq!(state.group(&route, "b".into()), 1);
    assert_eq!(state.group(&route, "a".into()), 0);
    state
}

fn entry(id: &str, key: &str, group: u32) -> Entry {
    let event = Event::builder("test").source("test").id(id).key(key);
    let outgoing = Outgoing::new(Topic::new("topic"), event.build().unwrap());
    Entry::new(outgoing, group, 1, Reply::Own(0))
}

fn ids(batch: Option<&Batch>) -> Vec<&str> {
    let outgoing = batch.into_iter().flat_map(|batch| &batch.outgoing);
    outgoing.map(|it| it.event().unwrap().id()).collect()
}

#[test]
fn events_of_a_key_are_in_one_batch_at_a_time() {
    let mut state = state(2);
    for id in ["1", "2", "3"] {
        state.enqueue(entry(id, "k", 0));
    }
    state.enqueue(entry("4", "other", 0));
    let first = state.take(0, true);
    assert_eq!(ids(first.as_ref()), ["1", "2"]);
    let second = state.take(0, true);
    assert_eq!(ids(second.as_ref()), ["4"]);
    assert!(state.take(0, true).is_none());
    state.enqueue(entry("5", "k", 0));
    state.settle(&first.unwrap(), |_| false);
    let third = state.take(0, true);
    assert_eq!(ids(third.as_ref()), ["3", "5"]);
}

#[test]
fn an_event_waits_for_one_of_its_key_in_another_group() {
    let mut state = state(10);
    state.enqueue(entry("1", "k", 0));
    state.enqueue(entry("2", "k", 1));
    state.enqueue(entry("3", "k", 0));
    assert!(state.take(1, true).is_none());
    let mut batches = Vec::new();
    for expected in ["1", "2", "3"] {
        let batch = batches.pop().or_else(|| state.take(0, true));
        assert_eq!(ids(batch.as_ref()), [expected]);
        let batch = batch.unwrap();
        state.settle(&batch, |_| false);
        state.ready(batch.group, true, &mut batches);
        assert!(batches.len() <= 1);
    }
}

/// Enqueues events of keys of their own, and says which of them are in the batches that leave.
fn leaving(state: &mut State, numbers: std::ops::Range<usize>) -> Vec<Batch> {
    let mut batches = Vec::new();
    for number in numbers {
        state.enqueue(entry("id", &number.to_string(), 0));
        state.ready(0, false, &mut batches);
    }
    batches
}

#[test]
fn as_many_events_leave_beside_others_as_are_out() {
    let mut state = state(500);
    let batches = leaving(&mut state, 0..1024);
    let sizes: Vec<_> = batches.iter().map(Batch::len).collect();
    assert_eq!(sizes, [1, 64, 65, 130, 260, 500], "4 wait");
    batches.iter().for_each(|it| state.settle(it, |_| false));
    let waiting = state.at(0);
    assert_eq!((waiting.events_out, waiting.bytes_out), (0, 0));
    let sizes: Vec<_> = leaving(&mut state, 2000..2001)
        .iter()
        .map(Batch::len)
        .collect();
    assert_eq!(sizes, [5]);
}

#[test]
fn no_batch_leaves_beside_too_many_bytes() {
    let mut config = PublishConfig::default();
    config.batch.max_events = 2;
    config.batch.max_concurrent_bytes = 4;
    let mut state = State::new();
    let route = Route::new(&config, DynPublisher::new(Nowhere), None);
    state.group(&Arc::new(route), "a".into());
    let batches = leaving(&mut state, 0..10);
    let sizes: Vec<_> = batches.iter().map(Batch::len).collect();
    assert_eq!(sizes, [1, 2, 2], "with a byte for each event");
    state.settle(&batches[1], |_| false);
    let mut next = Vec::new();
    state.ready(0, false, &mut next);
    assert_eq!(next.iter().map(Batch::len).collect::<Vec<_>>(), [2]);
    assert!(state.take(0, true).is_none(), "5 bytes are out");
}

#[test]
fn what_is_sent_again_keeps_its_key() {
    let mut state = state(10);
    state.enqueue(entry("1", "k", 0));
    state.enqueue(entry("2", "k", 0));
    state.enqueue(entry("3", "other", 0));
    let first = state.take(0, true).unwrap();
    state.settle(&first, |index| index < 2);
    state.enqueue(entry("4", "k", 0));
    state.enqueue(entry("5", "other", 0));
    let second = state.take(0, true).unwrap();
    assert_eq!(ids(Some(&second)), ["5"]);
    let set = first.into_entries().take(2).collect();
    state.send_again(0, set);
    let again = state.take(0, false).unwrap();
    assert_eq!(ids(Some(&again)), ["1", "2"]);
    state.settle(&again, |_| false);
    assert_eq!(ids(state.take(0, true).as_ref()), ["4"]);
}

#[test]
fn an_epoch_is_over_when_its_events_are_done() {
    let mut state = state(10);
    let empty = state.epochs().end();
    assert!(state.epochs().is_over(empty));
    state.enqueue(entry("1", "a", 0));
    let before = state.epochs().end();
    assert_eq!(state.epochs().end(), before, "nothing came between");
    state.enqueue(entry("2", "b", 1));
    let both = state.epochs().end();
    let later = state.take(1, true).unwrap();
    state.settle(&later, |_| false);
    assert!(!state.epochs().is_over(before) && !state.epochs().is_over(both));
    let first = state.take(0, true).unwrap();
    state.settle(&first, |_| false);
    assert!(state.epochs().is_over(before) && state.epochs().is_over(both));
}

#[test]
fn a_key_may_join_its_own_batch_and_no_other() {
    let mut state = state(10);
    let mut batch = state.open(0, 1);
    let [mut first, mut second] = ["1", "2"].map(|id| entry(id, "k", 0));
    state.locate(&mut first);
    state.join(first, &mut batch);
    state.locate(&mut second);
    assert!(state.may_join(&second, &batch));
    let other = state.open(0, 1);
    assert!(!state.may_join(&second, &other));
    state.settle(&batch, |_| false);
    state.locate(&mut second);
    assert!(state.may_join(&second, &other));
}
