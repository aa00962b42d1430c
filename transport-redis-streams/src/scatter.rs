//! Publishing to a cluster: each node gets what is its, and what it refuses because it has not the
//! slot goes to the one that has.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use futures::future::join_all;
use polybus_core::transport::{Outcome, Outgoing};
use polybus_core::{Error, ErrorKind};
use tokio::time::{Instant, sleep_until};

use crate::client::Value;
use crate::cluster::{Course, Nodes, PATIENCE, Place, pause, slot_of};
use crate::connection::{Connection, Sent};
use crate::error::Failure;
use crate::publisher::{CHUNKS_OUT, encode, outcome, rejected, unknown};
use crate::writing::Writing;

/// A batch on its way.
///
/// It is sent in rounds. In one each node gets its events, in their order, by pipelines. Once a node
/// refuses one because the stream is elsewhere, it gets no more of the round; what it refused and
/// what was not sent is sent by the next one. So the order within a stream holds, but for a node
/// that takes a later event after it refused an earlier one: that one is then rejected.
pub(crate) struct Scatter<'a> {
    nodes: &'a Nodes,
    writing: &'a Writing,
    batch: &'a [Outgoing],
    /// The stream of each event.
    streams: &'a [Cow<'a, str>],
    deadline: Instant,
    outcomes: Vec<Option<Outcome>>,
    /// Streams of slots that are being moved, and where they are.
    asked: HashMap<&'a str, Place>,
}

/// The events of one round for one place.
struct Part<'a> {
    place: Option<Place>,
    /// Of the first event's stream.
    slot: u16,
    events: Vec<(usize, &'a Outgoing)>,
}

/// What one round made of an event.
enum Fate {
    Known(Outcome),
    /// It was not carried out where it was sent, because of this.
    Astray(Place, Failure),
    /// It was refused because the cluster is down as far as the node knows.
    Down(Error),
    /// It was not sent.
    Kept,
}

impl<'a> Scatter<'a> {
    pub(crate) fn new(
        nodes: &'a Nodes,
        writing: &'a Writing,
        batch: &'a [Outgoing],
        streams: &'a [Cow<'a, str>],
        deadline: Instant,
    ) -> Self {
        Self {
            nodes,
            writing,
            batch,
            streams,
            deadline,
            outcomes: batch.iter().map(|_| None).collect(),
            asked: HashMap::new(),
        }
    }

    /// One outcome for each event. None is sent again that may have been stored.
    pub(crate) async fn publish(mut self) -> Vec<Outcome> {
        let mut rest: Vec<usize> = (0..self.batch.len()).collect();
        let mut patience = self.deadline.min(Instant::now() + PATIENCE);
        let mut fruitless = 0;
        while !rest.is_empty() && Instant::now() < self.deadline {
            let before = rest.len();
            rest = self.round(rest, Instant::now() >= patience).await;
            if rest.len() < before {
                patience = self.deadline.min(Instant::now() + PATIENCE);
                fruitless = 0;
            }
            fruitless += 1;
            if !rest.is_empty() {
                sleep_until(pause(fruitless, self.deadline)).await;
            }
        }
        let late = self.late();
        let outcomes = self.outcomes.into_iter().zip(self.batch);
        outcomes
            .map(|(outcome, event)| outcome.unwrap_or_else(|| rejected(event, &late)))
            .collect()
    }

    /// Sends what is left, and returns what is to be sent again; nothing that went astray if this
    /// is the `last` round.
    async fn round(&mut self, rest: Vec<usize>, last: bool) -> Vec<usize> {
        let parts = self.parts(rest);
        let mut sent = Vec::with_capacity(parts.len());
        for part in parts {
            sent.push(self.send(part));
        }
        let mut fates: Vec<(usize, Fate)> = join_all(sent).await.into_iter().flatten().collect();
        fates.sort_unstable_by_key(|(index, _)| *index);
        let stored = self.stored(&fates);
        let mut rest = Vec::new();
        let mut is_down = false;
        for (index, fate) in fates {
            let stream: &str = &self.streams[index];
            let overtaken = stored.get(stream).is_some_and(|last| *last > index);
            let error = match fate {
                Fate::Known(outcome) => {
                    self.outcomes[index] = Some(outcome);
                    continue;
                }
                Fate::Kept => {
                    rest.push(index);
                    continue;
                }
                Fate::Down(error) => {
                    is_down = true;
                    error
                }
                Fate::Astray(place, failure) => match self.follow(stream, &place, failure).await {
                    Ok(()) if !overtaken && !last => {
                        rest.push(index);
                        continue;
                    }
                    Ok(()) => self.elsewhere(),
                    Err(failure) => self.nodes.origin().error(failure, "publish"),
                },
            };
            self.outcomes[index] = Some(rejected(&self.batch[index], &error));
        }
        if is_down {
            // It may have been cut off, while the others serve on.
            self.nodes.refresh(self.deadline).await;
        }
        rest
    }

    /// The last event of each stream that may have been stored in a round.
    fn stored(&self, fates: &[(usize, Fate)]) -> HashMap<&'a str, usize> {
        let may_be = |(index, fate): &(usize, Fate)| match fate {
            Fate::Known(Outcome::Accepted(_) | Outcome::Unknown(_)) => Some(*index),
            _ => None,
        };
        let stored = fates.iter().filter_map(may_be);
        stored
            .map(|index| (self.streams[index].as_ref(), index))
            .collect()
    }

    /// Notes where a stream is. Gives the failure back if it is no matter of where it is.
    async fn follow(
        &mut self,
        stream: &'a str,
        place: &Place,
        failure: Failure,
    ) -> Result<(), Failure> {
        let slot = slot_of(stream);
        match self
            .nodes
            .follow(slot, &failure, place, self.deadline)
            .await
        {
            Some(Course::There(place)) => drop(self.asked.insert(stream, place)),
            Some(Course::Anew) => drop(self.asked.remove(stream)),
            None => return Err(failure),
        }
        Ok(())
    }

    fn parts(&self, rest: Vec<usize>) -> Vec<Part<'a>> {
        let mut parts: Vec<Part<'a>> = Vec::new();
        let mut known: HashMap<&str, usize> = HashMap::new();
        for index in rest {
            let event = &self.batch[index];
            let stream: &'a str = &self.streams[index];
            let part = *known.entry(stream).or_insert_with(|| {
                let slot = slot_of(stream);
                let asked = self.asked.get(stream).cloned();
                let place = asked.or_else(|| self.nodes.place(slot));
                let found = parts.iter().position(|part| part.place == place);
                found.unwrap_or_else(|| {
                    let events = Vec::new();
                    parts.push(Part {
                        place,
                        slot,
                        events,
                    });
                    parts.len() - 1
                })
            });
            parts[part].events.push((index, event));
        }
        parts
    }

    async fn send(&self, part: Part<'a>) -> Vec<(usize, Fate)> {
        let reached = match part.place {
            Some(place) if place.asking => self.nodes.reach_at(place, self.deadline).await,
            _ => self.nodes.reach(part.slot, self.deadline).await,
        };
        match reached {
            Ok((place, connection)) => self.send_to(&place, &connection, &part.events).await,
            Err(error) => part
                .events
                .iter()
                .map(|(index, event)| (*index, Fate::Known(rejected(event, &error))))
                .collect(),
        }
    }

    async fn send_to(
        &self,
        place: &Place,
        connection: &Connection,
        events: &[(usize, &'a Outgoing)],
    ) -> Vec<(usize, Fate)> {
        let mut fates = Vec::with_capacity(events.len());
        let mut waiting: VecDeque<(&[(usize, &Outgoing)], Sent)> = VecDeque::new();
        let mut scratch = Vec::new();
        let mut rest = events;
        // A node that failed, or has not what it was sent, gets no more.
        let mut trouble = false;
        loop {
            let is_late = Instant::now() >= self.deadline;
            while !trouble && !is_late && !rest.is_empty() && waiting.len() < CHUNKS_OUT {
                let outgoing = rest.iter().map(|(_, event)| *event);
                let (pipeline, count) = encode(outgoing, self.writing, &mut scratch, place.asking);
                let (chunk, behind) = rest.split_at(count);
                waiting.push_back((chunk, connection.send(pipeline, self.deadline).await));
                rest = behind;
            }
            let Some((chunk, sent)) = waiting.pop_front() else {
                break;
            };
            trouble |= self.note(place, chunk, sent.replies().await, &mut fates);
        }
        fates.extend(rest.iter().map(|(index, _)| (*index, Fate::Kept)));
        fates
    }

    /// Notes what became of a chunk. Returns whether the rest is not to be sent there.
    fn note(
        &self,
        place: &Place,
        chunk: &[(usize, &Outgoing)],
        replies: Result<Vec<Value>, Failure>,
        fates: &mut Vec<(usize, Fate)>,
    ) -> bool {
        let origin = self.nodes.origin();
        let replies = match replies {
            Ok(replies) => replies,
            Err(failure) => {
                let error = origin.error(failure, "publish");
                let lost = chunk.iter();
                fates.extend(
                    lost.map(|(index, event)| (*index, Fate::Known(unknown(event, &error)))),
                );
                return true;
            }
        };
        // What answers `ASKING` is left out.
        let skipped = usize::from(place.asking);
        let replies = replies.into_iter().skip(skipped).step_by(1 + skipped);
        let mut astray = false;
        for ((index, event), reply) in chunk.iter().zip(replies) {
            let fate = match reply {
                Value::ServerError(error) if is_astray(error.code()) => {
                    astray = true;
                    Fate::Astray(place.clone(), Failure::Server(error))
                }
                Value::ServerError(error) if error.code() == "CLUSTERDOWN" => {
                    Fate::Down(origin.error(Failure::Server(error), "publish"))
                }
                reply => Fate::Known(outcome(origin, event, reply)),
            };
            fates.push((*index, fate));
        }
        astray
    }

    fn late(&self) -> Error {
        self.error(
            ErrorKind::Timeout,
            "the event could not be sent before the delivery deadline",
        )
    }

    fn elsewhere(&self) -> Error {
        self.error(
            ErrorKind::Transport,
            "the stream was being moved to another node of the cluster",
        )
        .with_retryable(true)
    }

    fn error(&self, kind: ErrorKind, message: &str) -> Error {
        let error = self.nodes.origin().plain(kind, message);
        error.with_operation("publish")
    }
}

/// Whether the node has not the stream, or not all of what it needs to know of it.
fn is_astray(code: &str) -> bool {
    matches!(code, "MOVED" | "ASK" | "TRYAGAIN")
}
