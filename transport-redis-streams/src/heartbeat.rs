//! The task that keeps what is in hand: as long as this process lives, no other member takes an
//! entry for abandoned, however long its handler runs or it waits for one.

use std::sync::Arc;

use futures::future::join_all;
use polybus_core::{Result, Topic};
use tokio::time::{Instant, sleep};

use crate::client::Value;
use crate::held::InHand;
use crate::member::Member;
use crate::reply;
use crate::scripts::{self, Possession};

/// How many entries one call of the script touches, so that the server is not held up.
const PAGE: usize = 500;

/// Refreshes what is older than a third of the time after which it may be taken, until the
/// member stops. With a look at every sixth, nothing gets older than half of it.
pub(crate) async fn run(member: Arc<Member>) {
    loop {
        tokio::select! {
            () = member.stop.cancelled() => return,
            () = sleep(member.takeover_after / 6) => {}
        }
        member.held.forget_released(member.takeover_after);
        let mut due = member.held.older_than(member.takeover_after / 3);
        due.sort_unstable_by_key(|entry| (entry.source, entry.id));
        let servers = match due.is_empty() {
            true => Vec::new(),
            false => member.streams_by_server(),
        };
        let mut refreshed = Vec::with_capacity(servers.len());
        for streams in &servers {
            refreshed.push(refresh_all(&member, streams, &due));
        }
        join_all(refreshed).await;
    }
}

/// Refreshes those of the entries that are in streams of one server. It waits for no other: one
/// that is away must not make the others' entries look abandoned.
async fn refresh_all(member: &Member, streams: &[(u32, Topic)], due: &[InHand]) {
    for entries in due.chunk_by(|a, b| a.source == b.source) {
        if !streams
            .iter()
            .any(|(source, _)| *source == entries[0].source)
        {
            continue;
        }
        for page in entries.chunks(PAGE) {
            if let Err(error) = refresh(member, page).await {
                tracing::warn!(transport = %member.config.name, group = %member.group, %error,
                    "keeping what is in hand failed and is tried again");
            }
        }
    }
}

/// Refreshes entries of one stream, and lets those go that another member has taken.
async fn refresh(member: &Member, entries: &[InHand]) -> Result<()> {
    let Some(stream) = entries
        .first()
        .and_then(|entry| member.stream(entry.source))
    else {
        return Ok(());
    };
    let arguments = [member.group.as_str(), &member.name];
    let mut command = scripts::call(scripts::REFRESH, stream.name(), &arguments);
    scripts::push_ids(&mut command, entries.iter().map(|entry| entry.id));
    let sent = Instant::now();
    let name = stream.name();
    let deadline = member.deadline();
    let reply = member.link.call_of(name, &command, "keep", deadline).await;
    let reply = reply.map_err(|error| error.with_topic(stream.name()))?;
    let possession = |value: &Value| reply::number(value).and_then(Possession::read);
    let answers = reply::array(reply)
        .filter(|answers| answers.len() == entries.len())
        .ok_or_else(|| member.malformed("keep"))?;
    let mut taken = 0;
    for (entry, answer) in entries.iter().zip(&answers) {
        match possession(answer) {
            Some(Possession::Own) => member.held.refresh(*entry, sent),
            Some(Possession::Foreign) => {
                taken += 1;
                member.held.remove([*entry]);
            }
            Some(Possession::Gone) => member.held.remove([*entry]),
            None => return Err(member.malformed("keep")),
        }
    }
    if taken > 0 {
        tracing::warn!(transport = %member.config.name, topic = %stream, group = %member.group,
            count = taken, "other members took over entries that this one had too long");
    }
    Ok(())
}
