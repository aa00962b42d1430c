//! Order per key, and nothing lost, whatever a transport does.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use polybus::{Bus, Event, Outcome};

use crate::fake::{Answer, Fake, event_of};

const EVENTS: usize = 400;
const TYPES: [&str; 3] = ["test.a", "test.b", "test.high"];

/// A generator of the test's own, so that a seed gives the same run everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

fn config(fake: &Fake, random: &mut Random) -> String {
    let batch = format!(
        "batch = {{ max_events = {}, max_wait = '{}ms', max_concurrent_batches = {}, group_by = {} }}\n\
         retry = {{ max_attempts = {}, base = '3ms', max = '20ms' }}\non_unknown = '{}'",
        1 + random.below(20),
        random.below(3),
        1 + random.below(6),
        ["'topic'", "'type'", "1"][usize::try_from(random.below(3)).unwrap()],
        1 + random.below(4),
        ["fail", "retry"][usize::try_from(random.below(2)).unwrap()],
    );
    let high = "[[routes]]\npattern = 'test.high'\ntransport = 'fake'\ntopic = 'tests'\n\
                priority = 'high'";
    let room = format!(
        "[publishing]\nmax_queued_events = {}",
        5 + random.below(500)
    );
    fake.config(&batch, &format!("{high}\n{room}"))
}

/// Three producers, each with keys of its own, that publish in three ways.
async fn publish(bus: &Bus, seed: u64) -> Vec<(usize, Outcome)> {
    let producers = (0..3).map(|producer| async move {
        let mut random = Random(seed * 31 + producer);
        let numbers = (0..EVENTS).filter(|number| (number % 3) as u64 == producer);
        let mut events = numbers.map(|number| {
            let key = format!("{producer}-{}", random.below(6));
            let keyed = random.below(8) > 0;
            let name = TYPES[usize::try_from(random.below(3)).unwrap()];
            let event = event_of(name, number, keyed.then_some(key.as_str()));
            (number, event)
        });
        let mut outcomes = Vec::new();
        let mut way = Random(seed * 17 + producer);
        while let Some((number, event)) = events.next() {
            match way.below(3) {
                0 => outcomes.push((number, lone(bus, event).await)),
                1 => {
                    let (numbers, rest): (Vec<_>, Vec<_>) = events.by_ref().take(40).unzip();
                    let all = std::iter::once(event).chain(rest);
                    let all = bus.publish_all(all).await;
                    let numbers = std::iter::once(number).chain(numbers);
                    outcomes.extend(numbers.zip(all));
                }
                _ => {
                    let rest: Vec<_> = events.by_ref().take(4).collect();
                    let all = std::iter::once((number, event)).chain(rest);
                    let pending = all.map(|(number, event)| {
                        let pending = bus.enqueue(event).unwrap();
                        async move { (number, outcome(pending.await)) }
                    });
                    let pending: Vec<_> = pending.collect();
                    for pending in pending {
                        outcomes.push(pending.await);
                    }
                }
            }
        }
        outcomes
    });
    join_all(producers).await.into_iter().flatten().collect()
}

async fn lone(bus: &Bus, event: Event) -> Outcome {
    outcome(bus.publish(event).await)
}

fn outcome(result: polybus::Result<polybus::Receipt>) -> Outcome {
    match result {
        Ok(receipt) => Outcome::Accepted(receipt.position),
        Err(error) => Outcome::from_error(error),
    }
}

async fn check(seed: u64) {
    let mut random = Random(seed);
    let mut answers = Random(seed + 1_000_003);
    let pauses: Vec<_> = (0..2000)
        .map(|_| Duration::from_micros(random.below(4000)))
        .collect();
    let fake = Fake::new().pauses(pauses).script(move |_, _| {
        [
            Answer::Reject,
            Answer::RejectForGood,
            Answer::Lose,
            Answer::StoreUnknown,
        ]
        .get(usize::try_from(answers.below(20)).unwrap())
        .copied()
        .unwrap_or(Answer::Accept)
    });
    let config = config(&fake, &mut random);
    let bus = fake.builder(&config).build().await.unwrap();
    let outcomes = publish(&bus, seed).await;
    let report = bus.close("1h").await.unwrap();
    assert!(report.unsent().is_empty(), "{report}");
    check_outcomes(&bus, &outcomes);
    check_store(&fake, &outcomes);
}

fn check_outcomes(bus: &Bus, outcomes: &[(usize, Outcome)]) {
    assert_eq!(outcomes.len(), EVENTS);
    let stats = bus.publish_stats();
    let count = |want: fn(&Outcome) -> bool| {
        outcomes.iter().filter(|(_, outcome)| want(outcome)).count() as u64
    };
    assert_eq!(stats.accepted, count(Outcome::is_accepted));
    assert_eq!(
        stats.rejected,
        count(|it| matches!(it, Outcome::Rejected(_)))
    );
    assert_eq!(stats.unknown, count(|it| matches!(it, Outcome::Unknown(_))));
    assert_eq!(
        stats.accepted + stats.rejected + stats.unknown,
        EVENTS as u64
    );
    assert_eq!((stats.queued_events, stats.queued_bytes), (0, 0));
    assert_eq!(stats.batches_in_flight, 0);
    assert_eq!(stats.failed_kept as u64, stats.rejected + stats.unknown);
}

fn check_store(fake: &Fake, outcomes: &[(usize, Outcome)]) {
    let mut times: HashMap<usize, usize> = HashMap::new();
    let mut last: HashMap<String, usize> = HashMap::new();
    for event in fake.stored() {
        let number: usize = event.id().parse().unwrap();
        *times.entry(number).or_default() += 1;
        let Some(key) = event.key() else { continue };
        let last = last.entry(key.to_owned()).or_default();
        assert!(
            number >= *last,
            "{number} of key {key} is stored after {last}"
        );
        *last = number;
    }
    for (number, outcome) in outcomes {
        let stored = times.get(number).copied().unwrap_or_default();
        match outcome {
            Outcome::Accepted(_) => assert!(stored >= 1, "{number} is lost"),
            Outcome::Rejected(error) => {
                assert_eq!(stored, 0, "{number} is stored and rejected: {error}");
            }
            Outcome::Unknown(_) => {}
        }
    }
}

/// `on_unknown = "retry"` may store an event twice, and rejected on the second attempt after it was
/// stored unnoticed at the first one: then the outcome is unknown, never rejected.
#[tokio::test(start_paused = true)]
async fn order_per_key_holds_and_nothing_is_lost_whatever_happens() {
    for seed in 0..150 {
        check(seed).await;
    }
}
