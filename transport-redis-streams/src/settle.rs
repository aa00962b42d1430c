mod forward;

use std::fmt;
use std::sync::Arc;

use polybus_core::transport::{AckToken, Outgoing, Settlement, Settler};
use polybus_core::{Error, ErrorKind, Result, Topic};

use crate::client::{Cmd, Value};
use crate::error::{Failure, again};
use crate::held::{Course, InHand};
use crate::leased;
use crate::member::Member;
use crate::reply;
use crate::scripts::{self, Possession};

/// How many entries one command settles, so that the server is not held up.
const PAGE: usize = 500;

/// Settles what a [`RedisSubscriber`](crate::RedisSubscriber) delivered.
///
/// A batch goes to the server in one go, as one `XACK` for all entries of a stream. Where the
/// member can't be sure any more that an entry is its own, because the server has not heard of
/// it for two thirds of `takeover_after`, the server looks before it acknowledges. For partitioned
/// topics it always looks whether the lease is the member's.
#[derive(Clone)]
pub struct RedisSettler {
    member: Arc<Member>,
}

/// One command, and which items of the batch it settles.
struct Request {
    source: u32,
    course: Course,
    items: Vec<usize>,
}

impl RedisSettler {
    pub(crate) fn new(member: Arc<Member>) -> Self {
        Self { member }
    }

    async fn send(
        &self,
        requests: &[Request],
        batch: &[(AckToken, Settlement)],
    ) -> Vec<Result<Value>> {
        let commands = requests.iter().map(|request| self.command(request, batch));
        let commands = match commands.collect::<Result<Vec<_>>>() {
            Ok(commands) => commands,
            Err(error) => return requests.iter().map(|_| Err(again(&error))).collect(),
        };
        let member = &self.member;
        let deadline = member.deadline();
        member.link.pipeline_of(commands, "settle", deadline).await
    }

    fn command(&self, request: &Request, batch: &[(AckToken, Settlement)]) -> Result<(Topic, Cmd)> {
        let member = &self.member;
        let Some(stream) = member.stream(request.source) else {
            return Err(self.stale("the token is not from this subscriber"));
        };
        let arguments = [member.group.as_str(), &member.name];
        let mut command = match request.course {
            Course::Release => scripts::call(scripts::RELEASE, stream.name(), &arguments),
            Course::AckIfOwn => match member.partition(request.source).map(|it| (it, it.token())) {
                Some((partition, Some(token))) => {
                    let arguments = [arguments[0], arguments[1], &token];
                    leased::call(scripts::ACK_LEASED, partition, &arguments)
                }
                _ => scripts::call(scripts::ACK, stream.name(), &arguments),
            },
            Course::Ack | Course::Stale | Course::Closed => {
                let mut command = Cmd::with_capacity(3 + request.items.len(), 0);
                command
                    .arg("XACK")
                    .arg(stream.name())
                    .arg(member.group.as_str());
                command
            }
        };
        let ids = request
            .items
            .iter()
            .map(|item| InHand::from(batch[*item].0).id);
        scripts::push_ids(&mut command, ids);
        Ok((stream, command))
    }

    /// One result for each item of a request.
    fn judge(&self, request: &Request, reply: Result<Value>) -> Vec<Result<()>> {
        let count = request.items.len();
        let all = |result: &dyn Fn() -> Result<()>| (0..count).map(|_| result()).collect();
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => return all(&|| Err(again(&error))),
        };
        if let Value::ServerError(error) = reply {
            let failure = Failure::Server(error);
            if failure.has_code("NOGROUP") {
                // The group is gone, and with it what was pending.
                return all(&|| Ok(()));
            }
            let error = self.member.error(failure, "settle");
            return all(&|| Err(again(&error)));
        }
        if request.course == Course::Ack {
            // The number tells how many were pending: the others were settled before.
            return all(&|| Ok(()));
        }
        let answers = reply::array(reply).unwrap_or_default();
        if answers.len() != count {
            return all(&|| Err(self.member.malformed("settle")));
        }
        let result = |answer| match reply::number(answer).and_then(Possession::read) {
            Some(Possession::Own | Possession::Gone) => Ok(()),
            Some(Possession::Foreign) => Err(self.stale("another member has taken the event over")),
            None => Err(self.member.malformed("settle")),
        };
        answers.iter().map(result).collect()
    }

    /// Notes what the server did.
    fn note(&self, request: &Request, batch: &[(AckToken, Settlement)], results: &[Result<()>]) {
        let acknowledged = request.course != Course::Release;
        let done = request
            .items
            .iter()
            .zip(results)
            .filter(|(_, result)| match result {
                Ok(()) => acknowledged,
                Err(error) => error.kind() == ErrorKind::Stale,
            });
        let done = done.map(|(item, _)| InHand::from(batch[*item].0));
        self.member.held.remove(done);
        if !acknowledged {
            self.member.released.notify_one();
        }
    }

    fn stale(&self, why: &str) -> Error {
        Error::new(ErrorKind::Stale, why)
            .with_operation("settle")
            .with_transport(self.member.config.name.clone())
    }
}

impl Settler for RedisSettler {
    async fn settle(&self, batch: &[(AckToken, Settlement)]) -> Vec<Result<()>> {
        let mut courses = self.member.held.plan(batch, self.member.certain_for());
        for (course, (token, _)) in courses.iter_mut().zip(batch) {
            // The server knows whether the lease is ours.
            if *course == Course::Ack && self.member.partition(token.source).is_some() {
                *course = Course::AckIfOwn;
            }
        }
        let mut results: Vec<Option<Result<()>>> = courses
            .iter()
            .map(|course| match course {
                Course::Stale => Some(Err(self.stale("the event was given back"))),
                Course::Closed => Some(Err(self.stale("the subscriber is closed"))),
                Course::Ack | Course::AckIfOwn | Course::Release => None,
            })
            .collect();
        let requests = requests(batch, &courses);
        let replies = match requests.is_empty() {
            true => Vec::new(),
            false => self.send(&requests, batch).await,
        };
        for (request, reply) in requests.iter().zip(replies) {
            let judged = self.judge(request, reply);
            self.note(request, batch, &judged);
            for (item, result) in request.items.iter().zip(judged) {
                results[*item] = Some(result);
            }
        }
        let missing = || Err(self.member.malformed("settle"));
        results
            .into_iter()
            .map(|result| result.unwrap_or_else(missing))
            .collect()
    }

    async fn forward(&self, batch: &[(AckToken, Outgoing)]) -> Vec<Result<()>> {
        self.forward_all(batch).await
    }

    async fn begin(&self, token: AckToken) -> Result<u32> {
        self.note_start(token).await
    }

    fn is_current(&self, token: AckToken) -> bool {
        let (member, duration) = (&self.member, self.member.takeover_after);
        let partition = member.partition(token.source);
        partition.is_none_or(|it| it.is_ours(duration)) && member.held.is_current(token, duration)
    }
}

impl fmt::Debug for RedisSettler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettler")
            .field("group", &self.member.group)
            .field("member", &self.member.name)
            .finish_non_exhaustive()
    }
}

/// One command for what is alike, cut to pages.
fn requests(batch: &[(AckToken, Settlement)], courses: &[Course]) -> Vec<Request> {
    let mut requests: Vec<Request> = Vec::new();
    for (item, ((token, _), course)) in batch.iter().zip(courses).enumerate() {
        if matches!(course, Course::Stale | Course::Closed) {
            continue;
        }
        // From the end, because the last one usually fits.
        let fitting = requests.iter_mut().rev().find(|request| {
            request.source == token.source
                && request.course == *course
                && request.items.len() < PAGE
        });
        match fitting {
            Some(request) => request.items.push(item),
            None => requests.push(Request {
                source: token.source,
                course: *course,
                items: vec![item],
            }),
        }
    }
    requests
}
