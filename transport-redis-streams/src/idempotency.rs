//! Which events were handled, kept as keys that expire.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use polybus_core::idempotency::{Claim, Claimed, IdempotencyStore};
use polybus_core::{Result, Topic};
use tokio::time::Instant;

use crate::client::{Client, Cmd, Value};
use crate::connection::Link;
use crate::error::Failure;
use crate::reply;

/// What every key starts with.
const PREFIX: &str = "polybus:idempotency:";

/// How many keys one script is about, so that the server is not held up.
const PAGE: usize = 500;

/// Longer times are cut to it, in milliseconds: a hundred years. The server refuses what would
/// not fit its clock.
const LONGEST: u64 = 100 * 365 * 86_400_000;

// The scripts take keys, in the first argument a time in milliseconds, and then a fence for each
// key. A claim is kept as `c` and its fence, a mark as `d` and the fence that completed it.

/// Answers -1 for a claim that is granted, -2 for what is done, and how long it is another's. The usual
/// claim, on a key that nobody has, is one command.
const CLAIM: &str = "\
local results = {}
for i, key in ipairs(KEYS) do
  local claim = 'c' .. ARGV[i + 1]
  local known = redis.call('SET', key, claim, 'NX', 'PX', ARGV[1], 'GET')
  if not known then
    results[i] = -1
  elseif known == claim then
    redis.call('PEXPIRE', key, ARGV[1])
    results[i] = -1
  elseif string.sub(known, 1, 1) == 'd' then
    results[i] = -2
  else
    results[i] = math.max(redis.call('PTTL', key), 0)
  end
end
return results
";

const RENEW: &str = "\
local results = {}
for i, key in ipairs(KEYS) do
  results[i] = 0
  if redis.call('GET', key) == 'c' .. ARGV[i + 1] then
    results[i] = redis.call('PEXPIRE', key, ARGV[1])
  end
end
return results
";

/// Reads all keys in one go: a command for each costs a server more than what it does. A key that comes
/// twice is known by what was made of it the first time.
const COMPLETE: &str = "\
local values = redis.call('MGET', unpack(KEYS))
local results, made = {}, {}
for i, key in ipairs(KEYS) do
  local known, fence = made[key] or values[i], ARGV[i + 1]
  results[i] = 0
  if not known or string.sub(known, 2) == fence then
    made[key] = 'd' .. fence
    redis.call('SET', key, made[key], 'PX', ARGV[1])
    results[i] = 1
  end
end
return results
";

const RELEASE: &str = "\
local results = {}
for i, key in ipairs(KEYS) do
  results[i] = 0
  if redis.call('GET', key) == 'c' .. ARGV[i + 1] then
    results[i] = redis.call('DEL', key)
  end
end
return results
";

/// The store of a [`RedisTransport`](crate::RedisTransport): `idempotency = { store = "<its name>" }`.
///
/// A key is a string, `polybus:idempotency:{group}:..`, that expires with its lease or its
/// retention. A slice costs one round trip, and each key one step of a script. The group is the
/// hash tag, so that a group's keys are of one slot.
///
/// What the server forgets was not handled: a failover, a restart without persistence, and a
/// `maxmemory-policy` that evicts may each let an event be handled twice.
pub struct RedisIdempotency {
    link: Link,
    deadline: Duration,
}

impl RedisIdempotency {
    /// Connects when it is first used.
    pub(crate) fn new(client: &Client, deadline: Duration) -> Self {
        Self {
            link: Link::new(client.clone(), None),
            deadline,
        }
    }

    /// Calls a script on the keys of claims, and reads its answer for each of them.
    async fn run<T>(
        &self,
        operation: &'static str,
        script: &str,
        claims: &[Claim],
        time: Duration,
        read: impl Fn(i64) -> Option<T>,
    ) -> Result<Vec<T>> {
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let slices = slices(claims);
        let calls = slices.iter().map(|slice| {
            let command = command(script, claims, slice, time);
            // All keys of a slice are in one slot.
            let first = slice
                .first()
                .map_or("", |index| claims[*index].key.as_str());
            (Topic::new(key(first)), command)
        });
        let deadline = Instant::now() + self.deadline;
        let replies = self.link.pipeline_of(calls.collect(), operation, deadline);
        let replies = replies.await;
        let origin = self.link.client().origin();
        let mut answers: Vec<Option<T>> = claims.iter().map(|_| None).collect();
        for (slice, reply) in slices.iter().zip(replies) {
            let reply = reply?;
            if let Value::ServerError(error) = reply {
                return Err(origin.error(Failure::Server(error), operation));
            }
            let numbers = reply::array(reply).unwrap_or_default();
            for (index, number) in slice.iter().zip(numbers) {
                answers[*index] = integer(&number).and_then(&read);
            }
        }
        let answers: Option<Vec<T>> = answers.into_iter().collect();
        answers.ok_or_else(|| origin.malformed(operation))
    }
}

#[async_trait]
impl IdempotencyStore for RedisIdempotency {
    async fn claim(&self, claims: &[Claim], lease: Duration) -> Result<Vec<Claimed>> {
        let read = |number| match number {
            -1 => Some(Claimed::Claimed),
            -2 => Some(Claimed::Done),
            remaining => {
                let remaining = u64::try_from(remaining).ok()?;
                Some(Claimed::Busy(Duration::from_millis(remaining)))
            }
        };
        self.run("claim", CLAIM, claims, lease, read).await
    }

    async fn renew(&self, claims: &[Claim], lease: Duration) -> Result<Vec<bool>> {
        self.run("renew", RENEW, claims, lease, yes).await
    }

    async fn complete(&self, claims: &[Claim], retain: Duration) -> Result<Vec<bool>> {
        self.run("complete", COMPLETE, claims, retain, yes).await
    }

    async fn release(&self, claims: &[Claim]) -> Result<Vec<bool>> {
        self.run("release", RELEASE, claims, Duration::ZERO, yes)
            .await
    }
}

impl fmt::Debug for RedisIdempotency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisIdempotency")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// What one script each is about: keys of one slot, in their order.
fn slices(claims: &[Claim]) -> Vec<Vec<usize>> {
    let mut slices: Vec<(&str, Vec<usize>)> = Vec::new();
    for (index, claim) in claims.iter().enumerate() {
        let group = parts(&claim.key).0;
        // From the end, because the last one usually fits.
        let mut fitting = slices.iter_mut().rev();
        match fitting.find(|(known, slice)| *known == group && slice.len() < PAGE) {
            Some((_, slice)) => slice.push(index),
            None => slices.push((group, vec![index])),
        }
    }
    slices.into_iter().map(|(_, slice)| slice).collect()
}

/// The key of a claim, with its group as hash tag.
fn key(claim: &str) -> String {
    let mut name = String::new();
    write_key(&mut name, claim);
    name
}

fn write_key(name: &mut String, claim: &str) {
    let (group, rest) = parts(claim);
    for part in [PREFIX, "{", group, "}", rest] {
        name.push_str(part);
    }
}

fn command(script: &str, claims: &[Claim], slice: &[usize], time: Duration) -> Cmd {
    let mut command = Cmd::with_capacity(4 + 2 * slice.len(), 128 * slice.len());
    command.arg("EVAL").arg(script).arg(slice.len());
    let mut name = String::new();
    for index in slice {
        name.clear();
        write_key(&mut name, &claims[*index].key);
        command.arg(&name);
    }
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    command.arg(milliseconds.clamp(1, LONGEST));
    for index in slice {
        command.arg(&claims[*index].fence.to_bytes()[..]);
    }
    command
}

/// The group, and the rest of the key from the colon on.
fn parts(key: &str) -> (&str, &str) {
    key.split_at(key.find(':').unwrap_or(key.len()))
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        _ => None,
    }
}

fn yes(number: i64) -> Option<bool> {
    Some(number == 1)
}
