//! Moving a group.

use polybus_core::transport::Start;
use polybus_core::{ErrorKind, Result, Topic};
use tokio::time::Instant;

use super::RedisAdmin;
use crate::member::start_id;
use crate::presence::HEARD_WITHIN;
use crate::{reply, scripts};

const OPERATION: &str = "reset";

impl RedisAdmin {
    /// Moves a group on streams, each in one step, once none of them has a member of it.
    pub(super) async fn move_group(&self, group: &str, topics: &[Topic], to: Start) -> Result<()> {
        let origin = self.link.client().origin();
        let deadline = self.deadline();
        let start = start_id(to).ok_or_else(|| {
            let error = origin.plain(ErrorKind::Unsupported, "this start is not known");
            error.with_operation(OPERATION)
        })?;
        for topic in topics {
            let name = topic.name();
            if !self.exists(name, OPERATION, deadline).await? {
                let error = origin.plain(ErrorKind::TopicNotFound, "the stream does not exist");
                return Err(error.with_operation(OPERATION).with_topic(name));
            }
            self.ensure_no_members(group, name, deadline).await?;
        }
        for topic in topics {
            let name = topic.name();
            let command = scripts::call(scripts::MOVE, name, &[group, &start]);
            let moved = self.call(name, &command, OPERATION, deadline).await;
            moved.map_err(|error| error.with_topic(name))?;
        }
        Ok(())
    }

    async fn ensure_no_members(&self, group: &str, stream: &str, deadline: Instant) -> Result<()> {
        let within = HEARD_WITHIN.as_millis().to_string();
        let command = scripts::call(scripts::LIVING, stream, &[group, &within]);
        let living = self.call(stream, &command, OPERATION, deadline).await;
        let living = living.map_err(|error| error.with_topic(stream))?;
        let Some(member) = reply::text(&living) else {
            return Ok(());
        };
        let why = format!("the group `{group}` has the member `{member}`");
        let error = self.link.client().origin().plain(ErrorKind::InUse, why);
        Err(error
            .with_operation(OPERATION)
            .with_topic(stream)
            .with_note(format!(
                "stop its subscriptions first; one that was killed counts for {HEARD_WITHIN:?}"
            )))
    }
}
