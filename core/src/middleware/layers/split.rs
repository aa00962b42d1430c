use crate::middleware::reply::complete;
use crate::transport::{DynPublisher, Outcome, Outgoing, Publisher};

/// Publishes those events of a batch for which there is no outcome yet, and fills theirs in.
pub(super) async fn publish_rest(
    inner: &DynPublisher,
    batch: &[Outgoing],
    outcomes: &mut [Option<Outcome>],
) {
    if outcomes.iter().all(Option::is_none) {
        fill(outcomes, inner.publish(batch).await);
        return;
    }
    let open = batch.iter().zip(&*outcomes);
    let open = open.filter(|(_, outcome)| outcome.is_none());
    let rest: Vec<_> = open.map(|(outgoing, _)| outgoing.clone()).collect();
    if !rest.is_empty() {
        fill(outcomes, inner.publish(&rest).await);
    }
}

fn fill(outcomes: &mut [Option<Outcome>], mut answers: Vec<Outcome>) {
    let count = outcomes.iter().filter(|outcome| outcome.is_none()).count();
    complete(&mut answers, count);
    let open = outcomes.iter_mut().filter(|outcome| outcome.is_none());
    for (outcome, answer) in open.zip(answers) {
        *outcome = Some(answer);
    }
}

/// The outcomes of a batch that are all there.
pub(super) fn collect(outcomes: Vec<Option<Outcome>>) -> Vec<Outcome> {
    outcomes.into_iter().flatten().collect()
}
