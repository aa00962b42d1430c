//! The task that takes partitions on, keeps them and hands them over, as the group shares them out.
//!
//! A partition is handed over in this order: nothing of it is begun any more, its reader ends when its
//! last read is answered, what waited for the application is dropped, what the application has is
//! waited for, and only then is the lease given up. Whoever takes it begins with what is pending.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use polybus_core::event::EventId;
use polybus_core::text::format_text;
use polybus_core::{Error, Result, Text};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::client::{Cmd, Value};
use crate::cluster::slot_of;
use crate::error::Failure;
use crate::held::InHand;
use crate::leased::{self, Leased};
use crate::member::Member;
use crate::reader;
use crate::reply::{self, EntryId};
use crate::scripts;
use crate::shares::{looking_order, share};
use crate::tenure::Partition;

/// How often a group is asked who is in it, at most.
const ASKING: Duration = Duration::from_millis(500);

/// How often something is looked at that is about to change: a handover, a partition that is due.
const LOOKING: Duration = Duration::from_millis(50);

/// Takes part in sharing out the partitions until the member stops.
pub(crate) async fn run(member: Arc<Member>) {
    let mut topics = Topics::all(&member);
    if topics.is_empty() {
        return;
    }
    loop {
        let mut pause = member.takeover_after / 6;
        for topic in &mut topics {
            pause = pause.min(topic.tend(&member).await);
        }
        tokio::select! {
            () = member.stop.cancelled() => break,
            () = sleep(pause) => {}
        }
    }
    for seat in topics.iter_mut().flat_map(|topic| &mut topic.seats) {
        while seat.reader.join_next().await.is_some() {}
    }
}

/// Gives all leases back, and leaves the groups, once the tasks have ended.
pub(crate) async fn leave(member: &Member, deadline: Instant) -> Result<()> {
    let mut commands = Vec::new();
    for partition in &member.partitions {
        if let Some(command) = give_up(member, partition) {
            commands.push((partition.stream.clone(), command));
        }
    }
    for key in members_keys(member) {
        let mut command = Cmd::new();
        command.arg("ZREM").arg(&key).arg(member.entry.as_str());
        commands.push((key.into(), command));
    }
    let answers = member.link.pipeline_of(commands, "close", deadline).await;
    answers.into_iter().try_for_each(|answer| answer.map(drop))
}

/// The command that gives a lease up; nothing if there is none.
fn give_up(member: &Member, partition: &Partition) -> Option<Cmd> {
    let token = partition.token()?;
    let arguments = [member.group.as_str(), &member.name, &token];
    partition.lose();
    Some(leased::call(scripts::GIVE_UP, partition, &arguments))
}

/// What this member is called in the lists of members: by when it joined, so that who comes later
/// changes nothing for who was there.
pub(crate) fn entry(name: &str) -> Text {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let joined = now.unwrap_or_default().as_millis();
    format_text!("{joined:020}:{name}")
}

fn members_keys(member: &Member) -> Vec<String> {
    let topics = member.partitions.chunk_by(|a, b| a.topic == b.topic);
    let key = |partitions: &[Partition]| {
        let topic = partitions.first()?.topic.name();
        Some(format!("{{{topic}}}:members:{}", member.group))
    };
    topics.filter_map(key).collect()
}

/// A topic of which the group shares the partitions out.
struct Topics {
    /// Where it is noted who is in the group.
    members_key: String,
    /// Which of the member's partitions are of it.
    range: Range<usize>,
    seats: Vec<Seat>,
    asked: Option<Instant>,
    /// How many members there are, and the rank of this one. Nothing until the server has said it.
    place: Option<(usize, usize)>,
}

/// What this member does for a partition.
#[derive(Default)]
struct Seat {
    state: State,
    /// The task that reads it, if there is one.
    reader: JoinSet<()>,
    stop: CancellationToken,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Free,
    Owned,
    /// It is given up when everything of it is settled, or at that time.
    Going(Instant),
    /// It is another's, or nobody's.
    Lost,
}

impl Topics {
    fn all(member: &Member) -> Vec<Self> {
        let mut start = 0;
        let topics = member.partitions.chunk_by(|a, b| a.topic == b.topic);
        let topics = topics.zip(members_keys(member));
        let topic = |(partitions, members_key): (&[Partition], String)| {
            let range = start..start + partitions.len();
            start = range.end;
            Self {
                members_key,
                range,
                seats: partitions.iter().map(|_| Seat::default()).collect(),
                asked: None,
                place: None,
            }
        };
        topics.map(topic).collect()
    }

    /// Does what is due. Returns when to look again, at the latest.
    async fn tend(&mut self, member: &Arc<Member>) -> Duration {
        self.renew(member).await;
        self.hand_over(member).await;
        let is_due = self
            .asked
            .is_none_or(|asked| asked.elapsed() >= interval(member));
        if is_due {
            self.asked = Some(Instant::now());
            if let Err(error) = self.ask_who_is_there(member).await {
                self.complain(member, &error);
            }
        }
        let Some((members, rank)) = self.place else {
            return LOOKING;
        };
        let count = self.seats.len();
        let wanted = share(count, members, rank);
        let owned = self.count(|state| state == State::Owned);
        if owned > wanted {
            self.give_notice(member, owned - wanted).await;
        } else if owned < wanted {
            let missing = wanted - owned;
            let order: Vec<usize> = looking_order(count, members, rank).collect();
            if let Err(error) = self.look_for_free(member, &order, missing).await {
                self.complain(member, &error);
            }
        }
        match self.count(|state| state == State::Owned) == wanted
            && self.count(|state| matches!(state, State::Going(_) | State::Lost)) == 0
        {
            true => interval(member),
            false => LOOKING,
        }
    }

    fn count(&self, is_meant: impl Fn(State) -> bool) -> usize {
        self.seats.iter().filter(|it| is_meant(it.state)).count()
    }

    fn seats<'a>(
        &'a mut self,
        member: &'a Member,
    ) -> impl Iterator<Item = (&'a mut Seat, &'a Partition)> {
        self.seats
            .iter_mut()
            .zip(&member.partitions[self.range.clone()])
    }

    fn complain(&self, member: &Member, error: &Error) {
        tracing::warn!(transport = %member.config.name, group = %member.group, %error,
            "sharing out partitions failed and is tried again");
    }

    /// Says that we are there, and asks who else is.
    async fn ask_who_is_there(&mut self, member: &Member) -> Result<()> {
        let duration = milliseconds(member.takeover_after);
        let arguments = [member.entry.as_str(), &duration];
        let command = scripts::call(scripts::MEMBERS, &self.members_key, &arguments);
        let link = &member.link;
        let reply = link
            .call_of(&self.members_key, &command, "join", deadline(member))
            .await?;
        let entries = reply::array(reply).ok_or_else(|| member.malformed("join"))?;
        let mut entries: Vec<String> = entries.iter().filter_map(reply::text).collect();
        entries.sort_unstable();
        let rank = entries.iter().position(|it| *it == member.entry.as_str());
        let rank = rank.ok_or_else(|| member.malformed("join"))?;
        self.place = Some((entries.len(), rank));
        Ok(())
    }

    /// Renews the leases that are due, and lets those go that are lost.
    async fn renew(&mut self, member: &Member) {
        let duration = milliseconds(member.takeover_after);
        let due = member.takeover_after / 6;
        let mut commands = Vec::new();
        let mut renewed = Vec::new();
        for (seat, partition) in self.seats(member) {
            if !matches!(seat.state, State::Owned | State::Going(_)) {
                continue;
            }
            let age = partition.age().unwrap_or_default();
            let token = partition.token().filter(|_| age < member.takeover_after);
            let Some(token) = token else {
                // Somebody found that it has ended, or it has just now.
                seat.lose(member, partition).await;
                continue;
            };
            if age >= due {
                let arguments = [token.as_str(), &duration];
                let command = leased::call(scripts::RENEW, partition, &arguments);
                commands.push((partition.stream.clone(), command));
                renewed.push((seat, partition));
            }
        }
        if commands.is_empty() {
            return;
        }
        let sent = Instant::now();
        let link = &member.link;
        let answers = link.pipeline_of(commands, "keep", deadline(member)).await;
        for ((seat, partition), answer) in renewed.into_iter().zip(answers) {
            match answer {
                Ok(Value::Int(1)) => partition.renew(sent),
                Ok(Value::Int(_)) => seat.lose(member, partition).await,
                // Nobody knows. It is lost when its time is over.
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Gives notice of so many partitions.
    async fn give_notice(&mut self, member: &Member, count: usize) {
        let seats: Vec<_> = self.seats(member).collect();
        let owned = seats.into_iter().rev();
        let owned = owned.filter(|(seat, _)| seat.state == State::Owned);
        for (seat, partition) in owned.take(count) {
            tracing::debug!(transport = %member.config.name, group = %member.group,
                stream = %partition.stream, "a partition is handed over");
            partition.give_notice();
            seat.state = State::Going(Instant::now() + member.takeover_after);
            seat.end_reader(member, partition).await;
        }
    }

    /// Gives up what is settled, or has been waited for long enough.
    async fn hand_over(&mut self, member: &Member) {
        for (seat, partition) in self.seats(member) {
            let until = match seat.state {
                State::Free | State::Owned => continue,
                State::Going(until) => Some(until),
                State::Lost => None,
            };
            while seat.reader.try_join_next().is_some() {}
            if !seat.reader.is_empty() {
                // It may have begun to wait after it was told.
                member.unblock(Some(partition.source)).await;
                continue;
            }
            drop_waiting(member, partition).await;
            if let Some(until) = until {
                let is_late = Instant::now() >= until;
                if !is_late && member.held.count_of(partition.source) > 0 {
                    continue;
                }
                if is_late {
                    tracing::warn!(transport = %member.config.name, group = %member.group,
                        stream = %partition.stream,
                        "a partition is handed over before everything of it was settled");
                }
                if let Some(command) = give_up(member, partition) {
                    let name = partition.stream.name();
                    // If it fails, the lease ends by itself in time.
                    let _ = member.link.ask(name, &command, deadline(member)).await;
                }
            }
            member.held.forget(partition.source);
            seat.state = State::Free;
        }
    }

    /// Takes up to so many of the partitions that nobody has.
    async fn look_for_free(
        &mut self,
        member: &Arc<Member>,
        order: &[usize],
        missing: usize,
    ) -> Result<()> {
        let partitions = &member.partitions[self.range.clone()];
        let is_free = |index: &&usize| self.seats[**index].state == State::Free;
        let candidates: Vec<usize> = order.iter().filter(is_free).copied().collect();
        let question = |index: &usize| {
            let mut command = Cmd::new();
            command.arg("EXISTS").arg(&partitions[*index].lease);
            (partitions[*index].stream.clone(), command)
        };
        let questions = candidates.iter().map(question).collect();
        let link = &member.link;
        let answers = link.pipeline_of(questions, "join", deadline(member)).await;
        let mut missing = missing;
        for (index, answer) in candidates.into_iter().zip(answers) {
            if missing == 0 || member.stop.is_cancelled() {
                break;
            }
            if !matches!(answer?, Value::Int(0)) {
                continue;
            }
            let partition = &partitions[index];
            if let Some(leased) = acquire(member, partition).await? {
                missing -= 1;
                self.seats[index].occupy(member, partition, leased);
            }
        }
        Ok(())
    }
}

impl Seat {
    fn occupy(&mut self, member: &Arc<Member>, partition: &Partition, leased: Leased) {
        tracing::debug!(transport = %member.config.name, group = %member.group,
            stream = %partition.stream, "a partition is taken on");
        self.state = State::Owned;
        self.stop = leased.stop.clone();
        let nodes = member.link.nodes();
        let slot = nodes.map(|_| slot_of(partition.stream.name()));
        self.reader
            .spawn(reader::run(Arc::clone(member), slot, Some(leased)));
    }

    async fn end_reader(&mut self, member: &Member, partition: &Partition) {
        self.stop.cancel();
        member.unblock(Some(partition.source)).await;
    }

    /// The lease is not ours any more: what is settled from now on is another's matter.
    async fn lose(&mut self, member: &Member, partition: &Partition) {
        tracing::warn!(transport = %member.config.name, group = %member.group,
            stream = %partition.stream, "the lease of a partition was lost");
        partition.lose();
        self.state = State::Lost;
        member.held.forget(partition.source);
        drop_waiting(member, partition).await;
        self.end_reader(member, partition).await;
    }
}

/// Takes what waits for the application out of its way.
async fn drop_waiting(member: &Member, partition: &Partition) {
    // Whoever claims entries just now puts them there first.
    let _claiming = member.claiming.lock().await;
    let waiting = member.inbox.remove(partition.source);
    member.held.remove(waiting.into_iter().map(InHand::from));
}

/// Takes the lease of a partition, unless another has it, and with it all that is pending.
async fn acquire(member: &Member, partition: &Partition) -> Result<Option<Leased>> {
    let token = format_text!("{}:{}", EventId::generate(), member.name);
    let duration = milliseconds(member.takeover_after);
    let arguments = [member.group.as_str(), &member.name, &token, &duration];
    let command = leased::call(scripts::ACQUIRE, partition, &arguments);
    let name = partition.stream.name();
    let sent = Instant::now();
    let reply = match member.link.ask(name, &command, deadline(member)).await? {
        Ok(reply) => reply,
        Err(failure) if failure.has_code("NOGROUP") => {
            member.heal(&partition.stream).await?;
            return Ok(None);
        }
        Err(failure) => return Err(located(member, partition, failure)),
    };
    // Another was quicker.
    let Some(answer) = reply::array(reply) else {
        return Ok(None);
    };
    let last = answer.first().and_then(reply::entry_id);
    let lost = answer.get(1).and_then(reply::number).unwrap_or(0);
    member.count_lost(&partition.stream, usize::try_from(lost).unwrap_or(0));
    partition.take(token.clone(), sent);
    Ok(Some(Leased {
        source: partition.source,
        token,
        last: last.unwrap_or(EntryId::new(0, 0)),
        stop: member.stop.child_token(),
    }))
}

fn located(member: &Member, partition: &Partition, failure: Failure) -> Error {
    let error = member.error(failure, "join");
    error.with_topic(partition.stream.name())
}

/// A server that does not answer must not keep the leases at others from being renewed.
fn deadline(member: &Member) -> Instant {
    let within = member.config.operation_deadline;
    Instant::now() + within.min(member.takeover_after / 3)
}

fn interval(member: &Member) -> Duration {
    ASKING.min(member.takeover_after / 6)
}

fn milliseconds(duration: Duration) -> String {
    duration.as_millis().max(1).to_string()
}
