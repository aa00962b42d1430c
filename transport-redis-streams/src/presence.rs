//! Signs of life: by them the server knows which members of a group are there, also of those that
//! have nothing in hand and wait for room or for an event.

use std::sync::Arc;
use std::time::Duration;

use polybus_core::Topic;
use tokio::time::sleep;

use crate::client::Cmd;
use crate::member::Member;

/// How often a member gives a sign.
const EVERY: Duration = Duration::from_secs(5);

/// Without a sign for so long a member is taken for dead by whoever moves the group. Some signs
/// may get lost on the way.
pub(crate) const HEARD_WITHIN: Duration = Duration::from_secs(20);

/// Behind every entry. Not the last id that there can be: the server takes that one for `>`, and
/// would deliver.
const BEHIND_ALL: &str = "18446744073709551615-0";

/// Gives signs until the member stops.
pub(crate) async fn run(member: Arc<Member>) {
    loop {
        tokio::select! {
            () = member.stop.cancelled() => return,
            () = sleep(EVERY) => {}
        }
        show(&member).await;
    }
}

/// Gives a sign on every stream. One that gets lost is made up for by the next.
pub(crate) async fn show(member: &Member) {
    let streams = member.streams();
    let signs = streams.iter().map(|stream| sign(member, stream)).collect();
    let deadline = member.deadline();
    let answers = member.link.pipeline_of(signs, "keep", deadline).await;
    if answers.iter().any(Result::is_err) {
        tracing::debug!(transport = %member.config.name, group = %member.group,
            "a sign of life was not taken everywhere");
    }
}

/// A read of what the member has pending behind an id that no clock reaches. It brings nothing, but
/// the server makes the member and notes the time, in every version.
fn sign(member: &Member, stream: &Topic) -> (Topic, Cmd) {
    let mut command = Cmd::new();
    command
        .arg("XREADGROUP")
        .arg("GROUP")
        .arg(member.group.as_str())
        .arg(member.name.as_str())
        .arg("COUNT")
        .arg(1)
        .arg("STREAMS")
        .arg(stream.name())
        .arg(BEHIND_ALL);
    (stream.clone(), command)
}
