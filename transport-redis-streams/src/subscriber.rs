use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use polybus_core::transport::{Delivery, Subscriber, Subscription};
use polybus_core::{Error, ErrorKind, Result};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::client::{Client, Cmd};
use crate::config::{MAX_DURATION, RedisConfig};
use crate::connection::{Connection, Link};
use crate::member::{Member, start_id, unique_name};
use crate::settle::RedisSettler;
use crate::{claim, discovery, heartbeat, leases, presence, readers, reply, scripts};

/// The shortest `takeover_after`: below it a busy machine can't keep what it has.
const SHORTEST_TAKEOVER: Duration = Duration::from_millis(100);

/// Reads streams as a member of a consumer group.
///
/// Tasks of its own read ahead, keep what is in hand and take over what dead members left;
/// [`close`](Subscriber::close) awaits them, dropping ends them as a crash would: what was
/// delivered and not settled goes to another member after `takeover_after`.
pub struct RedisSubscriber {
    member: Arc<Member>,
    tasks: JoinSet<()>,
}

impl RedisSubscriber {
    /// Joins the group: see [`Transport::subscribe`](polybus_core::transport::Transport::subscribe).
    pub(crate) async fn join(
        client: &Client,
        config: &RedisConfig,
        subscription: Subscription,
    ) -> Result<Self> {
        check(config, &subscription)?;
        let start = start_id(subscription.start).ok_or_else(|| {
            client
                .origin()
                .plain(ErrorKind::Unsupported, "this start is not known")
                .with_operation("subscribe")
        })?;
        let name = subscription
            .member
            .clone()
            .or_else(|| config.member.clone())
            .unwrap_or_else(|| unique_name(&config.service));
        let member = Arc::new(Member::new(
            config.clone(),
            name,
            &subscription,
            Link::new(client.clone(), None),
        ));
        let connection = member.link.connection(member.deadline()).await?;
        check_scripts(&member, &connection).await?;
        drop(connection);
        let mut streams = subscription.topics;
        streams.retain(|topic| topic.partitions().is_none());
        streams.extend(member.streams().iter().cloned());
        streams.extend(discovery::find(&member, &subscription.patterns).await?);
        for stream in &streams {
            member.create_group(stream, &start).await?;
        }
        member.add_streams(streams);
        presence::show(&member).await;

        let mut tasks = JoinSet::new();
        tasks.spawn(readers::run(Arc::clone(&member)));
        tasks.spawn(claim::run(Arc::clone(&member)));
        tasks.spawn(leases::run(Arc::clone(&member)));
        tasks.spawn(heartbeat::run(Arc::clone(&member)));
        tasks.spawn(presence::run(Arc::clone(&member)));
        if let Some(interval) = config.discovery_interval
            && !subscription.patterns.is_empty()
        {
            let member = Arc::clone(&member);
            tasks.spawn(discovery::run(member, subscription.patterns, interval));
        }
        Ok(Self { member, tasks })
    }

    /// The name of this member within its group.
    pub fn member(&self) -> &str {
        &self.member.name
    }

    /// Waits until the tasks have ended. A reader ends when its read is answered, which is
    /// now, where the server lets us unblock it.
    async fn stop(&mut self) {
        self.member.stop.cancel();
        while !self.tasks.is_empty() {
            self.member.unblock(None).await;
            tokio::select! {
                _ = self.tasks.join_next() => {}
                // The read may have been sent after it was to be unblocked.
                () = sleep(Duration::from_millis(20)) => {}
            }
        }
    }

    /// Gives back what is pending for this member, and removes it where nothing is.
    async fn leave(&self, deadline: Instant) -> Result<()> {
        let member = &self.member;
        for stream in member.streams().iter() {
            let mut start = "-".to_owned();
            loop {
                let arguments = [member.group.as_str(), &member.name, &start];
                let command = scripts::call(scripts::LEAVE, stream.name(), &arguments);
                let reply = match member.link.ask(stream.name(), &command, deadline).await? {
                    Ok(reply) => reply,
                    // The group is gone, and with it what was pending.
                    Err(failure) if failure.has_code("NOGROUP") => break,
                    Err(failure) => {
                        return Err(member.error(failure, "close").with_topic(stream.name()));
                    }
                };
                match reply::text(&reply) {
                    Some(next) => start = next,
                    None => break,
                }
            }
        }
        if !member.partitions.is_empty() {
            leases::leave(member, deadline).await?;
        }
        Ok(())
    }
}

impl Subscriber for RedisSubscriber {
    type Settler = RedisSettler;

    async fn recv(&mut self, max: usize) -> Result<Vec<Delivery>> {
        let closed = || self.member.closed("receive");
        self.member.inbox.recv(max, closed).await
    }

    fn settler(&self) -> RedisSettler {
        RedisSettler::new(Arc::clone(&self.member))
    }

    async fn close(mut self, deadline: Instant) -> Result<()> {
        let stopped = timeout_at(deadline, self.stop()).await;
        self.tasks.abort_all();
        let in_hand = self.member.held.close();
        let left = match stopped {
            Ok(()) => self.leave(deadline).await,
            Err(_) => Err(self.member.closed("close")),
        };
        let Err(error) = left else {
            return Ok(());
        };
        if in_hand == 0 {
            // What was settled is on the server; that it was not told of our end changes nothing.
            tracing::debug!(transport = %self.member.config.name, %error, "left without a word");
            return Ok(());
        }
        Err(self
            .member
            .link
            .client()
            .origin()
            .plain(
                ErrorKind::Timeout,
                format!("{in_hand} events that were not settled could not be given back in time"),
            )
            .with_operation("close")
            .with_note("another member gets them after `takeover_after`")
            .with_source(error))
    }
}

impl fmt::Debug for RedisSubscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSubscriber")
            .field("group", &self.member.group)
            .field("member", &self.member.name)
            .field("streams", &self.member.streams())
            .finish_non_exhaustive()
    }
}

fn check(config: &RedisConfig, subscription: &Subscription) -> Result<()> {
    let wrong = |why: &str| -> Result<()> {
        Err(Error::new(ErrorKind::Config, why)
            .with_operation("subscribe")
            .with_transport(config.name.clone()))
    };
    if subscription.topics.is_empty() && subscription.patterns.is_empty() {
        return wrong("a subscription needs a topic or a pattern");
    }
    if subscription.group.is_empty() {
        return wrong("a subscription needs a group with a name");
    }
    if !(SHORTEST_TAKEOVER..=MAX_DURATION).contains(&subscription.takeover_after) {
        return wrong("`takeover_after` must be from 100 ms to 365 days");
    }
    Ok(())
}

/// Fails at the start, and not when the first entry is to be kept, if the user must not run
/// scripts.
async fn check_scripts(member: &Member, connection: &Connection) -> Result<()> {
    let mut command = Cmd::new();
    command.arg("EVAL").arg("return 1").arg(0);
    connection
        .call(&command, member.deadline())
        .await
        .map(drop)
        .map_err(|failure| member.error(failure, "subscribe"))
}
