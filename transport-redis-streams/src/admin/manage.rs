//! Streams by name, their groups, and what the config says of them.

use polybus_core::topic::TopicSetting;
use polybus_core::transport::TopicSpec;
use polybus_core::{ErrorKind, Result, Text};
use tokio::time::Instant;

use super::RedisAdmin;
use crate::client::{Cmd, Value};
use crate::connection::Connection;
use crate::discovery::PAGE;
use crate::{partition, reply};

/// What the server has of a topic's settings.
pub(super) const KEPT: &[TopicSetting] = &[TopicSetting::Partitions, TopicSetting::Groups];

/// And what publishers see to, where the config declares streams.
pub(super) const DECLARED: &[TopicSetting] = &[
    TopicSetting::Partitions,
    TopicSetting::Groups,
    TopicSetting::Retention,
    TopicSetting::MaxEvents,
];

const LIST: &str = "list topics";

impl RedisAdmin {
    /// The names of all topics, sorted.
    pub(super) async fn names(&self, deadline: Instant) -> Result<Vec<Text>> {
        let servers = self.link.everywhere(deadline).await;
        let mut names = Vec::new();
        for server in servers.map_err(|error| error.with_operation(LIST))? {
            self.scan(&server, deadline, &mut names).await?;
        }
        names.sort_unstable();
        // A scan may show a key twice, one that is moved may be at two servers, and a topic may be
        // divided into several streams.
        names.dedup();
        Ok(names)
    }

    async fn scan(
        &self,
        server: &Connection,
        deadline: Instant,
        names: &mut Vec<Text>,
    ) -> Result<()> {
        let mut cursor = "0".to_owned();
        loop {
            let mut command = Cmd::new();
            command.arg("SCAN").arg(&cursor).arg("COUNT").arg(PAGE);
            command.arg("TYPE").arg("stream");
            let reply = server.call(&command, deadline).await;
            let origin = self.link.client().origin();
            let reply = reply.map_err(|failure| origin.error(failure, LIST))?;
            let page = reply::array(reply).and_then(|reply| <[_; 2]>::try_from(reply).ok());
            let [next, keys] = page.ok_or_else(|| self.malformed(LIST))?;
            let keys = reply::array(keys).ok_or_else(|| self.malformed(LIST))?;
            let streams = keys.iter().filter_map(reply::text);
            names.extend(streams.map(|stream| Text::from(partition::topic_of(&stream))));
            cursor = reply::text(&next).ok_or_else(|| self.malformed(LIST))?;
            if cursor == "0" {
                return Ok(());
            }
        }
    }

    /// The groups of a stream that exists, sorted.
    pub(super) async fn groups(&self, stream: &str, deadline: Instant) -> Result<Vec<Text>> {
        let mut command = Cmd::new();
        command.arg("XINFO").arg("GROUPS").arg(stream);
        let groups = self.call(stream, &command, "describe", deadline).await?;
        let groups = reply::array(groups).ok_or_else(|| self.malformed("describe"))?;
        let name = |info: &Value| reply::field(info, "name").and_then(reply::text);
        let mut names: Vec<Text> = groups.iter().filter_map(name).map(Text::from).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Makes the groups of a stream that it does not have yet, at its beginning.
    pub(super) async fn make_groups(
        &self,
        stream: &str,
        groups: &[Text],
        deadline: Instant,
    ) -> Result<()> {
        const OPERATION: &str = "create group";
        for group in groups {
            let mut command = Cmd::new();
            command.arg("XGROUP").arg("CREATE").arg(stream);
            command.arg(group.as_str()).arg("0").arg("MKSTREAM");
            let made = self.link.ask(stream, &command, deadline).await;
            match made.map_err(|error| error.with_operation(OPERATION).with_topic(stream))? {
                Ok(_) => {}
                Err(failure) if failure.has_code("BUSYGROUP") => {}
                Err(failure) => {
                    let error = self.link.client().origin().error(failure, OPERATION);
                    return Err(error.with_topic(stream));
                }
            }
        }
        Ok(())
    }

    /// A topic that is divided into more streams than is said: what is in the others would be lost to
    /// those who go by the number.
    pub(super) async fn refuse_fewer_partitions(
        &self,
        topic: &TopicSpec,
        operation: &'static str,
        deadline: Instant,
    ) -> Result<()> {
        let Some(partitions) = topic.partitions else {
            return Ok(());
        };
        let next = partition::stream_name(&topic.name, partitions);
        if !self.exists(&next, operation, deadline).await? {
            return Ok(());
        }
        let why = format!("the topic has more than {partitions} partitions");
        let error = self.link.client().origin().plain(ErrorKind::Refused, why);
        Err(error
            .with_operation(operation)
            .with_topic(topic.name.clone())
            .with_note("set the number that there is, or route to a new topic"))
    }
}
