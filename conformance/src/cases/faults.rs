//! A server that dies, comes back, or stops to answer. Each of these cases runs alone.

use std::slice::from_ref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use polybus_core::Topic;
use polybus_core::transport::{Admin, Outcome, Transport};

use super::case;
use crate::case::{Case, Need};
use crate::failure::{Check, Failure, ensure};
use crate::harness::Fault;
use crate::journal::Journal;
use crate::member::{Member, delivered_ids};
use crate::scene::{Asking, Scene};
use crate::sender::{Sender, addressed, ids, numbered};

pub(super) const CASES: &[Case] = &[
    case!(
        restart_while_events_flow,
        "The server dies and comes back amid publishing and consuming: both go on, nothing accepted is lost.",
        needs: [Need::Durable, Need::Disrupt(Fault::Restart)]
    ),
    case!(
        waiting_member_survives_a_restart,
        "A member that waits in `recv` over a restart gets what is published after it.",
        needs: [Need::Durable, Need::Disrupt(Fault::Restart)]
    ),
    case!(
        unsettled_events_survive_a_restart,
        "What was received and not settled before a restart comes back after it.",
        needs: [Need::Durable, Need::Disrupt(Fault::Restart)]
    ),
    case!(
        dead_server_is_told_of,
        "With the server dead every call ends in time with an error that is true, and works again when it is back.",
        needs: [Need::Durable, Need::Disrupt(Fault::Kill), Need::Disrupt(Fault::Restart)]
    ),
    case!(
        paused_server_hangs_nobody,
        "A server that stops to answer and goes on later: every outcome is true, consuming goes on.",
        needs: [Need::Disrupt(Fault::Pause), Need::Disrupt(Fault::Resume)]
    ),
];

/// What the outcomes said, over a fault.
#[derive(Default)]
struct Told {
    accepted: Vec<String>,
    unknown: Vec<String>,
}

impl Told {
    /// Notes outcomes. What was rejected is in neither list: it must not come.
    fn note(&mut self, ids: Vec<String>, outcomes: Vec<Outcome>) {
        for (id, outcome) in ids.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Accepted(_) => self.accepted.push(id),
                Outcome::Unknown(_) => self.unknown.push(id),
                Outcome::Rejected(_) => {}
            }
        }
    }

    fn journal(self) -> Journal {
        Journal::of_ids(self.accepted).allowing(self.unknown)
    }
}

async fn restart_while_events_flow(scene: Scene) -> Check {
    let topic = scene.partitioned_topic().await?;
    let group = scene.name();
    let client = scene.connect().await?;
    let mut member = client.join_mortal(&group, from_ref(&topic)).await?;
    let sender = scene.connect().await?.sender().await?;
    let accepted = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let publish = publish_until(&sender, &topic, &accepted, &stop);
    let restart = async {
        reach(&scene, &accepted, 200).await?;
        scene.disrupt(Fault::Restart).await?;
        let so_far = accepted.load(Ordering::SeqCst);
        reach(&scene, &accepted, so_far + 200).await?;
        stop.store(true, Ordering::SeqCst);
        Ok(())
    };
    let handled = tokio::sync::Mutex::new(Vec::new());
    let consume = handle_for_ever(&mut member, &handled);
    let told = tokio::select! {
        told = async { tokio::try_join!(publish, restart) } => told?.0,
        failed = consume => return failed,
    };

    // Those handled amid the fault; the rest comes now, with what was not settled in time.
    let journal = told.journal();
    let handled = handled.into_inner();
    for id in handled {
        journal.note_earlier(&id)?;
    }
    work_over_faults(&mut member, &journal).await?;
    member.close().await?;
    journal.ensure_complete()
}

/// Waits until so many events have been accepted.
async fn reach(scene: &Scene, accepted: &AtomicUsize, count: usize) -> Check {
    let mut asking = Asking::until(scene, format_args!("{count} events are accepted"));
    loop {
        let now = accepted.load(Ordering::SeqCst);
        if now >= count {
            return Ok(());
        }
        asking.again(format!("{now} were")).await?;
    }
}

async fn publish_until(
    sender: &Sender,
    topic: &Topic,
    accepted: &AtomicUsize,
    stop: &AtomicBool,
) -> Check<Told> {
    let mut told = Told::default();
    let mut batch = 0;
    while !stop.load(Ordering::SeqCst) {
        let events = numbered(&format!("batch-{batch}"), 0..10);
        let outcomes = sender.try_send(&addressed(topic, &events)).await?;
        told.note(ids(&events), outcomes);
        accepted.store(told.accepted.len(), Ordering::SeqCst);
        batch += 1;
        // A caller's pause, so that a dead server is not asked in a tight loop.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(told)
}

/// Receives and acknowledges until it is dropped. A settlement that fails leaves its event to
/// come back.
async fn handle_for_ever(member: &mut Member, handled: &tokio::sync::Mutex<Vec<String>>) -> Check {
    loop {
        let batch = member.recv(crate::member::USUAL).await?;
        handled.lock().await.extend(delivered_ids(&batch)?);
        member.ack_if_possible(&batch).await?;
    }
}

async fn work_over_faults(member: &mut Member, journal: &Journal) -> Check {
    journal.start_waiting();
    while !journal.is_complete() {
        let Some(batch) = member.next_of(journal).await? else {
            break;
        };
        journal.record(&batch)?;
        member.ack_if_possible(&batch).await?;
    }
    Ok(())
}

async fn waiting_member_survives_a_restart(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    let mut member = client.join_mortal(&scene.name(), from_ref(&topic)).await?;
    let before = numbered("before", 0..5);
    sender.send_to(&topic, &before).await?;
    let journal = Journal::of(&before);
    member.work(&journal).await?;

    let after = numbered("after", 0..20);
    // What was acknowledged just before may come once more.
    let journal = Journal::of(&after).allowing(ids(&before));
    let restart = async {
        scene.disrupt(Fault::Restart).await?;
        send_when_possible(&scene, &sender, &topic, &after).await
    };
    tokio::try_join!(restart, work_over_faults(&mut member, &journal))?;
    member.close().await
}

async fn unsettled_events_survive_a_restart(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let group = scene.name();
    let client = scene.connect().await?;
    let events = numbered("event", 0..30);
    client.sender().await?.send_to(&topic, &events).await?;
    let mut first = client.join_mortal(&group, from_ref(&topic)).await?;
    let batch = first.take(20).await?;
    let (done, unsettled) = batch.split_at(5);
    first.ack(done).await?;
    let unsettled = delivered_ids(unsettled)?;
    scene.disrupt(Fault::Restart).await?;
    first.crash();

    let rest = ids(&events[20..]).into_iter().chain(unsettled);
    let journal = Journal::of_ids(rest).allowing(delivered_ids(done)?);
    let after = scene.connect().await?;
    let mut second = after.join_mortal(&group, from_ref(&topic)).await?;
    work_over_faults(&mut second, &journal).await?;
    second.close().await?;
    journal.ensure_complete()
}

async fn dead_server_is_told_of(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    let mut member = client.join_mortal(&scene.name(), from_ref(&topic)).await?;
    let before = numbered("before", 0..10);
    sender.send_to(&topic, &before).await?;
    scene.disrupt(Fault::Kill).await?;

    let mut told = Told::default();
    let during = numbered("during", 0..10);
    let outcomes = sender.try_send(&addressed(&topic, &during)).await?;
    let accepted = outcomes.iter().any(Outcome::is_accepted);
    told.note(ids(&during), outcomes);
    ensure!(!accepted, "a dead server accepted an event");
    let step = scene.step("asking a dead server for health");
    let health = client.admin().health().await;
    drop(step);
    ensure!(
        matches!(&health, Err(error) if error.retryable()),
        "a dead server's health is {health:?}"
    );
    let step = scene.step("connecting to a dead server");
    let connected = match scene.connect().await {
        Ok(late) => late.transport().publisher().await.is_ok(),
        Err(_) => false,
    };
    drop(step);
    ensure!(!connected, "a client connected to a dead server");

    scene.disrupt(Fault::Restart).await?;
    let after = numbered("after", 0..10);
    send_when_possible(&scene, &sender, &topic, &after).await?;
    told.accepted
        .extend(ids(&before).into_iter().chain(ids(&after)));
    let journal = told.journal();
    work_over_faults(&mut member, &journal).await?;
    member.close().await?;
    journal.ensure_complete()
}

async fn paused_server_hangs_nobody(scene: Scene) -> Check {
    let topic = scene.topic().await?;
    let client = scene.connect().await?;
    let sender = client.sender().await?;
    let mut member = client.join_mortal(&scene.name(), from_ref(&topic)).await?;
    let before = numbered("before", 0..10);
    sender.send_to(&topic, &before).await?;
    let mut told = Told::default();
    told.accepted.extend(ids(&before));

    scene.disrupt(Fault::Pause).await?;
    let during = numbered("during", 0..10);
    let batch = addressed(&topic, &during);
    let resume = async {
        tokio::time::sleep(scene.tuning().takeover_after).await;
        scene.disrupt(Fault::Resume).await
    };
    let (outcomes, ()) = tokio::try_join!(sender.try_send(&batch), resume)?;
    told.note(ids(&during), outcomes);

    let after = numbered("after", 0..10);
    send_when_possible(&scene, &sender, &topic, &after).await?;
    told.accepted.extend(ids(&after));
    let journal = told.journal();
    work_over_faults(&mut member, &journal).await?;
    member.close().await?;
    journal.ensure_complete()
}

/// Publishes events of which each must be accepted in the end; a caller's own retry. An
/// `Unknown` one may be stored twice by that, which a caller that retries it accepts.
async fn send_when_possible(
    scene: &Scene,
    sender: &Sender,
    topic: &Topic,
    events: &[polybus_core::Event],
) -> Check {
    let mut waiting = addressed(topic, events);
    let mut asking = Asking::until(scene, "the server takes events again");
    loop {
        let outcomes = sender.try_send(&waiting).await?;
        let mut last = String::new();
        let mut refused = Vec::new();
        for (outgoing, outcome) in waiting.into_iter().zip(outcomes) {
            if let Err(error) = outcome.into_result() {
                if !error.retryable() {
                    return Err(Failure::new(format!("not retryable: {error:?}")));
                }
                last = error.to_string();
                refused.push(outgoing);
            }
        }
        if refused.is_empty() {
            return Ok(());
        }
        waiting = refused;
        asking.again(last).await?;
    }
}
