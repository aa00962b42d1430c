//! Finding streams whose names are not known beforehand.

use std::sync::Arc;
use std::time::Duration;

use polybus_core::topic::TopicPattern;
use polybus_core::{Result, Topic};
use tokio::time::sleep;

use crate::client::Cmd;
use crate::connection::Connection;
use crate::member::Member;
use crate::reply;

/// About how many keys the server looks at in one step.
pub(crate) const PAGE: usize = 1_000;

/// Looks for new streams at every interval until the member stops.
pub(crate) async fn run(member: Arc<Member>, patterns: Vec<TopicPattern>, interval: Duration) {
    loop {
        tokio::select! {
            () = member.stop.cancelled() => return,
            () = sleep(interval) => {}
        }
        if let Err(error) = add_new(&member, &patterns).await {
            tracing::warn!(transport = %member.config.name, group = %member.group, %error,
                "looking for new streams failed and is tried again");
        }
    }
}

async fn add_new(member: &Member, patterns: &[TopicPattern]) -> Result<()> {
    let known = member.streams();
    let found = find(member, patterns).await?;
    let new: Vec<Topic> = found
        .into_iter()
        .filter(|stream| !known.contains(stream))
        .collect();
    if new.is_empty() {
        return Ok(());
    }
    for stream in &new {
        tracing::info!(transport = %member.config.name, topic = %stream, group = %member.group,
            "a new stream fits the subscription");
        // It is new: what it holds was stored after the group was made.
        member.create_group(stream, "0").await?;
    }
    member.add_streams(new);
    Ok(())
}

/// The streams that fit any of the patterns.
pub(crate) async fn find(member: &Member, patterns: &[TopicPattern]) -> Result<Vec<Topic>> {
    let mut found: Vec<Topic> = Vec::new();
    if patterns.is_empty() {
        return Ok(found);
    }
    let servers = member.link.everywhere(member.deadline()).await;
    for server in servers.map_err(|error| error.with_operation("discover"))? {
        for pattern in patterns {
            scan(member, &server, pattern, &mut found).await?;
        }
    }
    Ok(found)
}

/// Adds the streams of one server that fit a pattern.
async fn scan(
    member: &Member,
    server: &Connection,
    pattern: &TopicPattern,
    found: &mut Vec<Topic>,
) -> Result<()> {
    let glob = pattern.to_glob();
    let mut cursor = "0".to_owned();
    loop {
        let mut command = Cmd::new();
        command.arg("SCAN").arg(&cursor).arg("MATCH").arg(&glob);
        command.arg("COUNT").arg(PAGE).arg("TYPE").arg("stream");
        let reply = server.call(&command, member.deadline()).await;
        let reply = reply.map_err(|failure| member.error(failure, "discover"))?;
        let page = reply::array(reply).and_then(|reply| <[_; 2]>::try_from(reply).ok());
        let [next, keys] = page.ok_or_else(|| member.malformed("discover"))?;
        let keys = reply::array(keys).ok_or_else(|| member.malformed("discover"))?;
        let names = keys.iter().filter_map(reply::text);
        for name in names.filter(|name| pattern.matches(name)) {
            let stream = Topic::new(name);
            // A scan may show a key twice, and one that is moved may be at two servers.
            if !found.contains(&stream) {
                found.push(stream);
            }
        }
        cursor = reply::text(&next).ok_or_else(|| member.malformed("discover"))?;
        if cursor == "0" {
            return Ok(());
        }
    }
}
