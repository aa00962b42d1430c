//! The same promises with callers on several threads at once.

use std::collections::HashMap;

use polybus::Outcome;

use crate::fake::{Answer, Fake, keyed};

const CALLERS: usize = 8;
const EVENTS: usize = 1500;

/// Each caller has keys of its own and shares the batches; the fake itself panics where two calls
/// have one key.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn order_per_key_holds_with_callers_on_several_threads() {
    let mut answers = 0_u32;
    let fake = Fake::new().script(move |_, _| {
        answers += 1;
        if answers.is_multiple_of(97) {
            Answer::Reject
        } else {
            Answer::Accept
        }
    });
    let route = "batch = { max_events = 16, max_concurrent_batches = 4 }\n\
                 retry = { max_attempts = 50, base = '1ms', max = '2ms' }";
    let config = fake.config(route, "[publishing]\nmax_queued_events = 200");
    let bus = fake.builder(&config).build().await.unwrap();
    let callers = (0..CALLERS).map(|caller| {
        let bus = bus.clone();
        tokio::spawn(async move {
            let event = |number: usize| keyed(number, &format!("{caller}-{}", number % 5));
            for number in (0..EVENTS).step_by(3) {
                // Rejected for good is what a later event of the key has passed.
                let _ = bus.publish(event(number)).await;
                let pending = bus.enqueue(event(number + 1)).unwrap();
                let _ = pending.await;
                let _ = bus.publish_all([event(number + 2)]).await;
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    let many = (0..EVENTS).map(|number| keyed(EVENTS + number, &format!("0-{}", number % 5)));
    let outcomes = bus.publish_all(many).await;
    let rejected = outcomes
        .iter()
        .filter(|it| matches!(it, Outcome::Rejected(_)));
    let rejected = rejected.count() as u64;
    let _ = bus.close("30s").await.unwrap();
    let stats = bus.publish_stats();
    let given = (CALLERS * EVENTS + EVENTS) as u64;
    assert_eq!(stats.accepted + stats.rejected + stats.unknown, given);
    assert!(
        stats.rejected >= rejected && stats.unknown == 0,
        "{stats:?}"
    );
    assert_eq!(stats.accepted, fake.stored().len() as u64);
    assert_eq!((stats.queued_events, stats.batches_in_flight), (0, 0));
    let mut last: HashMap<String, usize> = HashMap::new();
    for event in fake.stored() {
        let number: usize = event.id().parse().unwrap();
        let before = last.insert(event.key().unwrap().to_owned(), number);
        assert!(before.is_none_or(|before| before < number), "{event:?}");
    }
}
