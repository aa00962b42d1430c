//! Storing and acknowledging in one step, and noting what is about to be handled.

use polybus_core::transport::{AckToken, Outgoing, Settlement};
use polybus_core::{ErrorKind, Result, Topic};

use super::RedisSettler;
use crate::client::{Cmd, Value};
use crate::entry;
use crate::error::{Failure, again};
use crate::held::{Course, InHand};
use crate::scripts::{self, Possession};
use crate::writing::Format;
use crate::{partition, reply, scripts::STARTS};

const FORWARD: &str = "forward";
const BEGIN: &str = "begin";

impl RedisSettler {
    /// Forwards what is not known to be stale.
    pub(super) async fn forward_all(&self, batch: &[(AckToken, Outgoing)]) -> Vec<Result<()>> {
        let acks: Vec<_> = batch
            .iter()
            .map(|(token, _)| (*token, Settlement::Ack))
            .collect();
        let member = &self.member;
        let courses = member.held.plan(&acks, member.certain_for());
        let is_open = |course: &Course| !matches!(course, Course::Stale | Course::Closed);
        let open: Vec<_> = batch
            .iter()
            .zip(&courses)
            .filter(|(_, course)| is_open(course))
            .map(|(item, _)| item)
            .collect();
        let mut answers = self.send_all(&open).await.into_iter();
        courses
            .iter()
            .map(|course| match is_open(course) {
                true => answers
                    .next()
                    .unwrap_or_else(|| Err(member.malformed(FORWARD))),
                false => Err(self.stale("the event was given back, or the subscriber closed")),
            })
            .collect()
    }

    async fn send_all(&self, items: &[&(AckToken, Outgoing)]) -> Vec<Result<()>> {
        let member = &self.member;
        let mut commands = Vec::with_capacity(items.len());
        let mut scratch = Vec::new();
        for (token, outgoing) in items {
            match self.forward_command(*token, outgoing, &mut scratch) {
                Ok(command) => commands.push(command),
                Err(error) => return items.iter().map(|_| Err(again(&error))).collect(),
            }
        }
        let link = &member.link;
        let replies = link.pipeline_of(commands, FORWARD, member.deadline()).await;
        let answered = items.iter().zip(replies);
        answered
            .map(|((token, outgoing), reply)| self.forwarded(*token, outgoing, reply?))
            .collect()
    }

    fn forward_command(
        &self,
        token: AckToken,
        outgoing: &Outgoing,
        scratch: &mut Vec<u8>,
    ) -> Result<(Topic, Cmd)> {
        let member = &self.member;
        let Some(stream) = member.stream(token.source) else {
            return Err(self.stale("the token is not from this subscriber"));
        };
        let mut command = Cmd::new();
        command
            .arg("EVAL")
            .arg(scripts::FORWARD)
            .arg(2)
            .arg(stream.name())
            .arg(partition::stream_of(outgoing).as_ref())
            .arg(member.group.as_str())
            .arg(member.name.as_str());
        scripts::push_ids(&mut command, [InHand::from(token).id]);
        // Written plainly an event would lose what is beside its data.
        let format = match member.config.format {
            Format::Plain => Format::Default,
            format => format,
        };
        entry::append_fields(outgoing, format, scratch, &mut command);
        Ok((Topic::new(stream.name()), command))
    }

    fn forwarded(&self, token: AckToken, outgoing: &Outgoing, reply: Value) -> Result<()> {
        let member = &self.member;
        if let Value::ServerError(error) = reply {
            let failure = Failure::Server(error);
            if failure.has_code("NOGROUP") {
                return Err(self.stale("the group is gone, and with it what was pending"));
            }
            let two_slots = failure.has_code("CROSSSLOT");
            let error = member.error(failure, FORWARD);
            return Err(match two_slots {
                true => polybus_core::Error::new(
                    ErrorKind::Unsupported,
                    "the streams are in two slots of the cluster",
                )
                .with_operation(FORWARD)
                .with_source(error),
                false => error.with_topic(outgoing.topic.name()),
            });
        }
        let possession = reply::number(&reply).and_then(Possession::read);
        if possession.is_some() {
            member.held.remove([InHand::from(token)]);
        }
        match possession {
            Some(Possession::Own | Possession::Gone) => Ok(()),
            Some(Possession::Foreign) => Err(self.stale("another member has taken the event over")),
            None => Err(member.malformed(FORWARD)),
        }
    }

    /// Notes that an entry is about to be handled. How many times it was noted before.
    pub(super) async fn note_start(&self, token: AckToken) -> Result<u32> {
        let member = &self.member;
        let Some(stream) = member.stream(token.source) else {
            return Err(self.stale("the token is not from this subscriber"));
        };
        let arguments = [member.group.as_str(), &member.name];
        let mut command = scripts::call(scripts::BEGIN, stream.name(), &arguments);
        scripts::push_ids(&mut command, [InHand::from(token).id]);
        let deadline = member.deadline();
        let answer = member.link.ask(stream.name(), &command, deadline).await?;
        let reply = match answer {
            Ok(Value::Int(-1)) => return Err(self.stale("the event is not with this member")),
            Ok(reply) => reply,
            Err(failure) if failure.has_code("NOGROUP") => {
                return Err(self.stale("the group is gone, and with it what was pending"));
            }
            Err(failure) => return Err(member.error(failure, BEGIN).with_topic(stream.name())),
        };
        let count = reply::number(&reply).ok_or_else(|| member.malformed(BEGIN))?;
        Ok(u32::try_from(count / STARTS).unwrap_or(u32::MAX))
    }
}
