//! The task that takes over what dead members left, beside the one that reads.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use polybus_core::{Result, Topic};
use tokio::time::{Instant, sleep};

use crate::client::{Cmd, Value};
use crate::leased;
use crate::member::{Arrival, Member};
use crate::reply::{self, Entry};
use crate::scripts;
use crate::tenure::Partition;

/// How many entries one step of a walk claims at most. The server looks at ten times as many.
const PAGE: usize = 100;

/// Walks over what is pending at the start, at every interval, and when something was released,
/// until the member stops.
pub(crate) async fn run(member: Arc<Member>) {
    // Dead members get no deader within a fraction of the time that makes them dead.
    let interval = member.config.claim_interval.min(member.takeover_after / 2);
    let mut cleaned: Option<Instant> = None;
    loop {
        let clean = cleaned.is_none_or(|at| at.elapsed() >= cleaning_interval(&member));
        if clean {
            cleaned = Some(Instant::now());
        }
        if let Err(error) = walk_all(&member, clean).await {
            tracing::warn!(transport = %member.config.name, group = %member.group, %error,
                "looking for entries of dead members failed and is tried again");
        }
        tokio::select! {
            () = member.stop.cancelled() => return,
            () = member.released.notified() => {}
            () = sleep(interval) => {}
        }
    }
}

/// Removing members is not urgent.
fn cleaning_interval(member: &Member) -> Duration {
    member
        .config
        .remove_members_after
        .min(Duration::from_secs(60))
}

/// Walks over all streams. A server that fails keeps none of the others from being looked at.
async fn walk_all(member: &Member, clean: bool) -> Result<()> {
    let servers = member.streams_by_server();
    let mut walks = Vec::with_capacity(servers.len());
    for streams in &servers {
        walks.push(walk_streams(member, streams, clean));
    }
    join_all(walks).await.into_iter().collect()
}

async fn walk_streams(member: &Member, streams: &[(u32, Topic)], clean: bool) -> Result<()> {
    for (source, stream) in streams {
        let partition = member.partition(*source);
        if partition.is_some_and(|it| !it.is_ours(member.takeover_after)) {
            continue;
        }
        let mut cursor = "0-0".to_owned();
        loop {
            tokio::select! {
                biased;
                () = member.stop.cancelled() => return Ok(()),
                () = member.room() => {}
            }
            // Before the step: while it waits for a server, nobody else may claim.
            tokio::select! {
                biased;
                () = member.stop.cancelled() => return Ok(()),
                reached = member.link.connection_of(stream.name(), member.deadline()) => {
                    reached?;
                }
            }
            cursor = step(member, *source, stream, &cursor).await?;
            if cursor == "0-0" {
                break;
            }
        }
        if clean {
            remove_stale_members(member, stream).await?;
        }
    }
    Ok(())
}

/// One step of a walk. Returns where the next one starts; `0-0` is the end.
async fn step(member: &Member, source: u32, stream: &Topic, cursor: &str) -> Result<String> {
    let _claiming = member.claiming.lock().await;
    let partition = member.partition(source);
    let token = match partition.map(Partition::token) {
        Some(Some(token)) => Some(token),
        Some(None) => return Ok("0-0".to_owned()),
        None => None,
    };
    let mut command = match (partition, &token) {
        (Some(partition), Some(token)) => {
            let arguments = [member.group.as_str(), &member.name, token];
            leased::call(scripts::CLAIM_LEASED, partition, &arguments)
        }
        _ => scripts::on("XAUTOCLAIM", stream.name(), &[&member.group, &member.name]),
    };
    command
        .arg(u64::try_from(member.takeover_after.as_millis()).unwrap_or(u64::MAX))
        .arg(cursor)
        .arg("COUNT")
        .arg(PAGE);
    let sent = Instant::now();
    let deadline = member.deadline();
    let reply = match member.link.ask(stream.name(), &command, deadline).await? {
        Ok(reply) => reply,
        Err(failure) if failure.has_code("NOGROUP") => {
            member.heal(stream).await?;
            return Ok("0-0".to_owned());
        }
        Err(failure) if failure.has_code(scripts::FENCED) => return Ok("0-0".to_owned()),
        Err(failure) => return Err(member.error(failure, "claim").with_topic(stream.name())),
    };
    let (next, entries, deleted) = read(reply).ok_or_else(|| member.malformed("claim"))?;
    member.count_lost(stream, deleted);
    if !entries.is_empty() {
        let attempts = attempts(member, stream, &entries).await;
        let arrivals = entries.into_iter().zip(attempts);
        let arrivals = arrivals
            .map(|(entry, count)| Arrival::of(entry, Some(count)))
            .collect();
        // What is another's by now is not ours to hand out.
        let is_ours = |it: &Partition| token.as_ref().is_some_and(|token| it.is_held_by(token));
        if partition.is_none_or(is_ours) {
            member.deliver(source, arrivals, sent);
        }
    }
    Ok(next)
}

/// `[next, [entry, ...], [deleted id, ...]]`
fn read(reply: Value) -> Option<(String, Vec<Entry>, usize)> {
    let mut items = reply::array(reply)?.into_iter();
    let next = reply::text(&items.next()?)?;
    let entries = reply::array(items.next()?)?;
    let deleted = items
        .next()
        .and_then(reply::array)
        .map_or(0, |ids| ids.len());
    let entries = entries.into_iter().filter_map(reply::entry).collect();
    Some((next, entries, deleted))
}

/// How many times each entry has been delivered, this time included. What can't be found out
/// was delivered twice at least.
async fn attempts(member: &Member, stream: &Topic, entries: &[Entry]) -> Vec<u64> {
    let question = |entry: &Entry| {
        let mut command = Cmd::new();
        command.arg("XPENDING").arg(stream.name());
        let id = entry.id.to_string();
        command.arg(member.group.as_str()).arg(&id).arg(&id).arg(1);
        (stream.clone(), command)
    };
    let questions = entries.iter().map(question).collect();
    let deadline = member.deadline();
    let replies = member.link.pipeline_of(questions, "claim", deadline).await;
    let mut replies = replies.into_iter();
    let count = |reply: Value| {
        // `[[id, member, idle, count]]`
        let pending = reply::array(reply)?.into_iter().next()?;
        reply::number(reply::array(pending)?.get(3)?)
    };
    let counted = |_| replies.next()?.ok().and_then(count);
    (0..entries.len())
        .map(counted)
        .map(|count| count.unwrap_or(2))
        .collect()
}

async fn remove_stale_members(member: &Member, stream: &Topic) -> Result<()> {
    let after = member.config.remove_members_after.as_millis().to_string();
    let command = scripts::call(
        scripts::REMOVE_STALE,
        stream.name(),
        &[&member.group, &member.name, &after],
    );
    let name = stream.name();
    let removed = member
        .link
        .call_of(name, &command, "claim", member.deadline())
        .await;
    let removed = removed.map_err(|error| error.with_topic(stream.name()))?;
    match reply::number(&removed) {
        Some(count) if count > 0 => {
            tracing::info!(transport = %member.config.name, topic = %stream,
                group = %member.group, count, "members that are long gone were removed");
        }
        _ => {}
    }
    Ok(())
}
