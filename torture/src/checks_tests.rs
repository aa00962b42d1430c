//! What the judge says of runs that are made up.

use super::*;
use crate::judge::Setting;
use crate::report::Held;
use crate::server::Record;

/// A run in which each of some events of a key is accepted, stored and handled, 10 ms after the one
/// before it.
fn run(kind: Kind, count: u64) -> Facts {
    let id = |number: u64| format!("k0/1-{number}");
    let record = |number: u64| Record {
        id: Some(id(number)),
        value: String::new(),
        position: match kind {
            Kind::Kafka => (0, number),
            Kind::Redis => (number, 0),
        },
        time: 0,
    };
    let effects: Vec<_> = (0..count).map(|it| (1_000 + 10 * it, id(it))).collect();
    Facts {
        setting: Setting {
            kind,
            seed: 0,
            consumers: 1,
            rate: 1.0,
            mutant: None,
            may_lose: false,
            idempotency: true,
            copies: None,
            log: (0..count).map(record).collect(),
            dead: Vec::new(),
        },
        told: (0..count).map(|it| (id(it), Told::Accepted)).collect(),
        first_effect: effects
            .iter()
            .map(|(time, id)| (id.clone(), *time))
            .collect(),
        effects,
        dead: HashMap::new(),
        lives: Vec::new(),
        marked: HashMap::new(),
        conductor: vec![line(0, window("none")), line(5_000, heal("none"))],
    }
}

fn line(time: u64, step: Step) -> Line {
    Line { time, step }
}

fn window(fault: &str) -> Step {
    Step::Window {
        fault: fault.to_owned(),
    }
}

fn heal(fault: &str) -> Step {
    Step::Heal {
        fault: fault.to_owned(),
    }
}

#[track_caller]
fn check(check: &Check, wrong: &[&str]) {
    let held = if wrong.is_empty() {
        Held::Yes
    } else {
        Held::No
    };
    assert_eq!(
        (check.held, &check.wrong[..]),
        (
            held,
            &wrong.iter().map(ToString::to_string).collect::<Vec<_>>()[..]
        )
    );
}

#[test]
fn what_is_lost_is_told_apart() {
    let mut facts = run(Kind::Redis, 3);
    check(&lost(&facts), &[]);
    facts.first_effect.remove("k0/1-1");
    check(&lost(&facts), &["k0/1-1: lost in delivery"]);
    facts.setting.log.remove(1);
    check(&lost(&facts), &["k0/1-1: lost in storage"]);
    facts.dead.insert("k0/1-1".to_owned(), 1);
    check(&lost(&facts), &[]);
    facts.told.insert("k0/1-9".to_owned(), Told::Unknown);
    check(&lost(&facts), &[]);
}

#[test]
fn a_record_that_is_no_event_has_to_be_put_away() {
    let mut facts = run(Kind::Redis, 1);
    let value = "malformed-1".to_owned();
    facts.conductor.push(line(1, Step::Malformed { value }));
    check(&lost(&facts), &["malformed-1: not put away"]);
    facts.dead.insert("malformed-1".to_owned(), 1);
    check(&lost(&facts), &[]);
}

#[test]
fn what_is_rejected_is_not_stored() {
    let mut facts = run(Kind::Kafka, 2);
    check(&rejected(&facts), &[]);
    facts.told.insert("k0/1-0".to_owned(), Told::Rejected);
    check(&rejected(&facts), &["k0/1-0: rejected, and stored"]);
    facts.told.remove("k0/1-0");
    check(&rejected(&facts), &["k0/1-0: handled, and never published"]);
}

#[test]
fn a_commit_above_what_is_not_done_is_found() {
    let mut facts = run(Kind::Kafka, 5);
    let committed = |offset| Step::Committed {
        offsets: vec![(0, offset)],
        lag: 0,
    };
    // Event 2 is done at 1020 ms.
    facts.conductor.push(line(1_020, committed(3)));
    check(&commits(&facts), &[]);
    facts.conductor.push(line(1_019, committed(3)));
    check(
        &commits(&facts),
        &["k0/1-2: below commit 3 of partition 0, not done"],
    );
}

#[test]
fn an_acknowledgement_of_what_is_not_done_is_found() {
    let mut facts = run(Kind::Redis, 5);
    let acknowledged = |last: &str, pending: &[&str]| Step::Acknowledged {
        last: last.to_owned(),
        pending: pending.iter().map(ToString::to_string).collect(),
        lag: 0,
    };
    facts
        .conductor
        .push(line(1_010, acknowledged("3-0", &["2-0", "3-0"])));
    facts
        .conductor
        .push(line(1_020, acknowledged("3-0", &["3-0"])));
    check(&commits(&facts), &[]);
    facts.conductor.push(line(1_025, acknowledged("4-0", &[])));
    check(
        &commits(&facts),
        &[
            "k0/1-3: acknowledged, not done",
            "k0/1-4: acknowledged, not done",
        ],
    );
}

#[test]
fn the_order_of_a_key_is_that_of_the_log() {
    let mut facts = run(Kind::Kafka, 3);
    check(&order(&facts), &[]);
    facts.first_effect.insert("k0/1-1".to_owned(), 2_000);
    check(
        &order(&facts),
        &["k0/1-2 before k0/1-1, which is stored before it"],
    );
    assert_eq!(order(&run(Kind::Redis, 3)).held, Held::NotJudged);
}

#[test]
fn two_of_a_key_at_once_are_found() {
    let mut facts = run(Kind::Redis, 2);
    let start = |id: &str| {
        let id = id.to_owned();
        line(0, Step::Start { id, attempt: 1 })
    };
    let end = |id: &str| line(0, Step::End { id: id.to_owned() });
    let (one, two, other) = ("k0/1-0", "k0/1-1", "k1/1-0");
    let apart = vec![start(one), start(other), end(one), start(two), end(two)];
    facts.lives = vec![("consumer-0-1".to_owned(), apart)];
    check(&overlaps(&facts), &[]);
    facts.lives[0].1 = vec![start(one), start(two)];
    check(&overlaps(&facts), &["k0/1-1 beside k0/1-0 in consumer-0-1"]);
}

#[test]
fn a_duplicate_belongs_to_the_fault_before_it() {
    let mut facts = run(Kind::Redis, 3);
    facts.effects.push((4_000, "k0/1-0".to_owned()));
    check(
        &duplicates(&facts),
        &["1 with `none` from 0.0 s: at most 0"],
    );
    facts.conductor[0] = line(0, window("kill"));
    check(&duplicates(&facts), &[]);
    // Shortly behind a fault it is that one's, and long behind it is not.
    facts.conductor.push(line(6_000, window("none")));
    facts.effects.push((6_500, "k0/1-1".to_owned()));
    check(&duplicates(&facts), &[]);
    facts.effects.push((60_000, "k0/1-2".to_owned()));
    check(
        &duplicates(&facts),
        &["1 with `none` from 6.0 s: at most 0"],
    );
}

#[test]
fn a_run_that_does_not_go_on_is_found() {
    let mut facts = run(Kind::Redis, 3);
    facts.conductor[1] = line(1_005, heal("none"));
    facts
        .conductor
        .push(line(9_000, Step::Drained { in_time: true }));
    check(&liveness(&facts), &[]);
    facts.conductor[2] = line(9_000, Step::Drained { in_time: false });
    check(
        &liveness(&facts),
        &["not everything was settled in the end"],
    );
    facts.conductor[1] = line(8_000, heal("none"));
    check(
        &liveness(&facts),
        &[
            "nothing more after `none`",
            "not everything was settled in the end",
        ],
    );
}

#[test]
fn what_a_forgetful_server_loses_is_counted_and_no_fault() {
    let mut facts = run(Kind::Redis, 3);
    facts.setting.may_lose = true;
    facts.first_effect.remove("k0/1-1");
    check(&lost(&facts), &["k0/1-1: lost in delivery"]);
    facts.setting.log.remove(1);
    check(&lost(&facts), &[]);
    assert!(lost(&facts).figures.ends_with("1 in storage"));
}

#[test]
fn what_is_marked_is_not_handled_again() {
    let mut facts = run(Kind::Redis, 1);
    let start = |time| {
        let id = "k0/1-0".to_owned();
        line(time, Step::Start { id, attempt: 1 })
    };
    facts.lives = vec![("one".to_owned(), vec![start(990), start(1_000)])];
    facts.marked.insert("k0/1-0".to_owned(), 1_000);
    check(&once(&facts), &[]);
    facts.lives.push(("two".to_owned(), vec![start(1_001)]));
    check(
        &once(&facts),
        &["k0/1-0 in two, though it was marked before"],
    );
    facts.setting.idempotency = false;
    assert_eq!(once(&facts).held, Held::NotJudged);
}

#[test]
fn one_copy_comes_of_each_event() {
    let mut facts = run(Kind::Kafka, 3);
    assert_eq!(copies(&facts).held, Held::NotJudged);
    facts.setting.copies = Some(facts.setting.log.clone());
    check(&copies(&facts), &[]);
    let all = facts.setting.copies.as_mut().unwrap();
    all[1] = all[0].clone();
    facts.dead.insert("k0/1-2".to_owned(), 1);
    check(
        &copies(&facts),
        &[
            "k0/1-1: nothing came of it",
            "k0/1-0: 2 copies",
            "k0/1-2: a copy, and put away",
        ],
    );
}

#[test]
fn a_process_that_an_event_ends_gave_not_up() {
    let mut facts = run(Kind::Redis, 1);
    let died = |status: &str| Step::Died {
        role: "consumer-1".to_owned(),
        status: status.to_owned(),
    };
    facts.conductor.push(line(1, died("signal: 6 (SIGABRT)")));
    let id = "k0/1-0".to_owned();
    let abort = vec![line(1, Step::Abort { id })];
    facts.lives = vec![("consumer-1-1".to_owned(), abort)];
    check(&deaths(&facts), &[]);
    facts.conductor.push(line(2, died("signal: 6 (SIGABRT)")));
    check(&deaths(&facts), &["consumer-1: signal: 6 (SIGABRT)"]);
}
