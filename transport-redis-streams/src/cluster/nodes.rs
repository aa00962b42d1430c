//! The connections of one user of a cluster: one for each node that it needs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::join_all;
use polybus_core::{Error, Result, Topic};
use tokio::time::{Instant, sleep_until};

use super::{Cluster, Node, PATIENCE, Redirect, pause, slot_of, uncovered};
use crate::client::{Client, Cmd, Pipeline, Value};
use crate::connection::{Connection, Link, is_final};
use crate::error::{Failure, Origin, again};

/// The nodes of a cluster, as one user of it reaches them.
pub(crate) struct Nodes {
    client: Client,
    cluster: Arc<Cluster>,
    links: Mutex<HashMap<Node, Arc<Link>>>,
}

/// Where a slot is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) node: Node,
    /// The node has a part of the slot and is to be asked for it expressly.
    pub(crate) asking: bool,
}

impl Nodes {
    pub(crate) fn new(client: Client, cluster: Arc<Cluster>) -> Self {
        Self {
            client,
            cluster,
            links: Mutex::default(),
        }
    }

    /// The place of a slot, if it is known.
    pub(crate) fn place(&self, slot: u16) -> Option<Place> {
        let node = self.cluster.map().owner(slot)?.clone();
        Some(Place {
            node,
            asking: false,
        })
    }

    /// A connection to the node that has a slot, as far as is known. One that can't be reached
    /// makes the others be asked who has it now, until the connect deadline or `deadline` has
    /// passed.
    pub(crate) async fn reach(&self, slot: u16, deadline: Instant) -> Result<(Place, Connection)> {
        let deadline = deadline.min(Instant::now() + self.client.connect_deadline());
        loop {
            let map = self.cluster.map();
            let failed = match self.place(slot) {
                Some(place) => match self.link(&place.node).attempt(deadline).await {
                    Ok(connection) => return Ok((place, connection)),
                    Err(error) if is_final(&error) => return Err(error),
                    Err(error) => error,
                },
                None => uncovered(&self.client, slot),
            };
            let version = map.version();
            match self.cluster.refresh(&self.client, version, deadline).await {
                Err(error) if is_final(&error) || map.nodes().is_empty() => return Err(error),
                _ if Instant::now() >= deadline => return Err(failed),
                _ => {}
            }
        }
    }

    /// A connection to a node, whatever is known of who has which slot.
    pub(crate) async fn reach_at(
        &self,
        place: Place,
        deadline: Instant,
    ) -> Result<(Place, Connection)> {
        let connection = self.link(&place.node).attempt(deadline).await?;
        Ok((place, connection))
    }

    /// A connection to each node that has slots.
    pub(crate) async fn reach_all(&self, deadline: Instant) -> Result<Vec<Connection>> {
        let version = self.cluster.map().version();
        self.cluster
            .refresh(&self.client, version, deadline)
            .await?;
        let map = self.cluster.map();
        let mut reached = Vec::with_capacity(map.nodes().len());
        for node in map.nodes() {
            let link = self.link(node);
            reached.push(async move { link.connection(deadline).await });
        }
        join_all(reached).await.into_iter().collect()
    }

    /// Where errors come from.
    pub(crate) fn origin(&self) -> &Origin {
        self.client.origin()
    }

    /// The connection to a node, if there is one.
    pub(crate) fn current_at(&self, node: &Node) -> Option<Connection> {
        self.link(node).current()
    }

    /// The connections that there are.
    pub(crate) fn current(&self) -> Vec<Connection> {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.values().filter_map(|link| link.current()).collect()
    }

    pub(crate) fn disconnect(&self) {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.values().for_each(|link| link.disconnect());
    }

    /// Sends a command on one stream, and sends it again wherever it was not carried out because
    /// the stream is elsewhere. What is left is what the server refused for another reason.
    pub(crate) async fn ask(
        &self,
        stream: &str,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<Result<Value, Failure>> {
        let slot = slot_of(stream);
        let patience = deadline.min(Instant::now() + PATIENCE);
        let mut asked: Option<Place> = None;
        let mut count = 0;
        loop {
            let (place, connection) = match asked {
                Some(place) => self.reach_at(place, deadline).await?,
                None => self.reach(slot, deadline).await?,
            };
            let failure = match connection.call_at(&place, command, deadline).await {
                Ok(value) => return Ok(Ok(value)),
                Err(failure) => failure,
            };
            if Instant::now() >= patience {
                return Ok(Err(failure));
            }
            match self.follow(slot, &failure, &place, deadline).await {
                Some(Course::There(place)) => asked = Some(place),
                Some(Course::Anew) => asked = None,
                None => return Ok(Err(failure)),
            }
            count += 1;
            sleep_until(pause(count, patience)).await;
        }
    }

    /// Notes what a failure says of where a slot is. Nothing if it says nothing: the command was
    /// not refused for that.
    pub(crate) async fn follow(
        &self,
        slot: u16,
        failure: &Failure,
        place: &Place,
        deadline: Instant,
    ) -> Option<Course> {
        match Redirect::of(failure, &place.node.host) {
            Some(Redirect::Moved(node)) => {
                self.cluster.note_moved(slot, node);
                return Some(Course::Anew);
            }
            Some(Redirect::Ask(node)) => {
                let asking = true;
                return Some(Course::There(Place { node, asking }));
            }
            None => {}
        }
        if failure.has_code("TRYAGAIN") {
            return Some(Course::Anew);
        }
        // A node that was cut off does not know any more who has what. The others may.
        if failure.has_code("CLUSTERDOWN") {
            self.refresh(deadline).await;
            return (self.place(slot)?.node != place.node).then_some(Course::Anew);
        }
        None
    }

    /// Asks who has which slot. If nobody answers, what was known stays.
    pub(crate) async fn refresh(&self, deadline: Instant) {
        let deadline = deadline.min(Instant::now() + self.client.connect_deadline());
        let version = self.cluster.map().version();
        let refreshed = self.cluster.refresh(&self.client, version, deadline).await;
        if let Err(error) = refreshed {
            tracing::debug!(%error, "no node of the cluster says who has which slot");
        }
    }

    /// Sends commands, each on one stream, in one go for each node; those that were sent to the
    /// wrong one are sent again. One answer for each, which may be an error of the server.
    pub(crate) async fn pipeline(
        &self,
        commands: &[(Topic, Cmd)],
        operation: &'static str,
        deadline: Instant,
    ) -> Vec<Result<Value>> {
        let mut parts: Vec<(Option<Node>, Vec<usize>)> = Vec::new();
        for (index, (stream, _)) in commands.iter().enumerate() {
            let node = self.place(slot_of(stream.name())).map(|place| place.node);
            match parts.iter_mut().find(|(known, _)| *known == node) {
                Some((_, part)) => part.push(index),
                None => parts.push((node, vec![index])),
            }
        }
        let mut sent = Vec::with_capacity(parts.len());
        for (_, part) in parts {
            sent.push(async move {
                let answers = self.send_part(commands, &part, operation, deadline).await;
                part.into_iter().zip(answers).collect::<Vec<_>>()
            });
        }
        let mut answers: Vec<_> = join_all(sent).await.into_iter().flatten().collect();
        answers.sort_unstable_by_key(|(index, _)| *index);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    async fn send_part(
        &self,
        commands: &[(Topic, Cmd)],
        part: &[usize],
        operation: &'static str,
        deadline: Instant,
    ) -> Vec<Result<Value>> {
        let sent = match part.first() {
            Some(first) => {
                self.send_together(commands, part, *first, operation, deadline)
                    .await
            }
            None => Ok(Vec::new()),
        };
        let replies = match sent {
            Ok(replies) => replies,
            Err(error) => return part.iter().map(|_| Err(again(&error))).collect(),
        };
        let mut answers = Vec::with_capacity(part.len());
        for (index, reply) in part.iter().zip(replies) {
            let (stream, command) = &commands[*index];
            answers.push(match is_astray(&reply) {
                false => Ok(reply),
                true => self.answer(stream, command, operation, deadline).await,
            });
        }
        answers
    }

    async fn send_together(
        &self,
        commands: &[(Topic, Cmd)],
        part: &[usize],
        first: usize,
        operation: &'static str,
        deadline: Instant,
    ) -> Result<Vec<Value>> {
        let mut pipeline = Pipeline::with_capacity(part.len());
        for index in part {
            pipeline.add_command(commands[*index].1.clone());
        }
        let slot = slot_of(commands[first].0.name());
        let reached = self.reach(slot, deadline).await;
        let (_, connection) = reached.map_err(|error| error.with_operation(operation))?;
        let replies = connection.pipeline(&pipeline, deadline).await;
        replies.map_err(|failure| self.error(failure, operation))
    }

    /// The answer to a command, an error of the server among them.
    async fn answer(
        &self,
        stream: &Topic,
        command: &Cmd,
        operation: &'static str,
        deadline: Instant,
    ) -> Result<Value> {
        let answer = self.ask(stream.name(), command, deadline).await;
        match answer.map_err(|error| error.with_operation(operation))? {
            Ok(value) => Ok(value),
            Err(Failure::Server(error)) => Ok(Value::ServerError(error)),
            Err(failure) => Err(self.error(failure, operation)),
        }
    }

    fn error(&self, failure: Failure, operation: &'static str) -> Error {
        self.client.origin().error(failure, operation)
    }

    /// The link to a node. Those to nodes that have no slots any more, and that nobody uses, are
    /// let go when another is made.
    fn link(&self, node: &Node) -> Arc<Link> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(node) {
            return Arc::clone(link);
        }
        let map = self.cluster.map();
        links.retain(|known, link| map.nodes().contains(known) || Arc::strong_count(link) > 1);
        let link = Arc::new(Link::new(self.at(node), None));
        links.insert(node.clone(), Arc::clone(&link));
        link
    }

    fn at(&self, node: &Node) -> Client {
        self.client.at(node.host.to_string(), node.port)
    }
}

/// Where to send a command that was not carried out.
pub(crate) enum Course {
    /// To this place.
    There(Place),
    /// To the place that is known now.
    Anew,
}

/// Whether a command was not carried out because of where it was sent.
fn is_astray(reply: &Value) -> bool {
    let Value::ServerError(error) = reply else {
        return false;
    };
    matches!(error.code(), "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN")
}
