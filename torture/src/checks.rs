//! The checks, each on its own.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::journal::{Line, Step, Told};
use crate::judge::Facts;
use crate::nemesis::Fault;
use crate::report::{Check, Window};
use crate::server::entry_id;
use crate::task::{IN_FLIGHT, Kind, TAKEOVER_MS};

/// Longest time from the end of a fault to progress.
const PROGRESS_WITHIN: f64 = 30.0;

/// For how long after a fault its duplicates may come: sessions end, and entries are taken over.
const AFTER_MS: u64 = TAKEOVER_MS + 11_000;

/// How long a hang lasts, all its attempts and the pauses between them.
const HANG_SECONDS: f64 = 5.0;

/// How many processes an event may end before it is put away.
const DEATHS: usize = 5;

/// What a process of the run never needs.
const MOST_MEMORY: u64 = 512 << 20;
const MOST_FILES: u64 = 256;

pub(crate) fn all(facts: &Facts) -> Vec<Check> {
    vec![
        lost(facts),
        rejected(facts),
        commits(facts),
        order(facts),
        overlaps(facts),
        duplicates(facts),
        once(facts),
        copies(facts),
        liveness(facts),
        deaths(facts),
        bounds(facts),
    ]
}

/// C1: every event that was accepted is handled or put away; and so is what is no event.
fn lost(facts: &Facts) -> Check {
    let logged: HashSet<_> = facts
        .setting
        .log
        .iter()
        .filter_map(|it| it.id.as_ref())
        .collect();
    let accepted = facts
        .told
        .iter()
        .filter(|(_, told)| **told == Told::Accepted);
    let lost = accepted
        .filter(|(id, _)| !facts.first_effect.contains_key(*id) && !facts.dead.contains_key(*id));
    let (in_delivery, in_storage): (Vec<_>, Vec<_>) =
        lost.map(|(id, _)| id).partition(|id| logged.contains(id));
    let mut wrong: Vec<_> = in_delivery
        .iter()
        .map(|id| format!("{id}: lost in delivery"))
        .collect();
    // What a server forgot that may forget is counted.
    if !facts.setting.may_lose {
        wrong.extend(in_storage.iter().map(|id| format!("{id}: lost in storage")));
        for line in &facts.conductor {
            if let Step::Malformed { value } = &line.step
                && !facts.dead.contains_key(value)
            {
                wrong.push(format!("{value}: not put away"));
            }
        }
    }
    let figures = format!(
        "{} accepted, {} handled, {} put away, {} lost in delivery, {} in storage",
        facts.count(Told::Accepted),
        facts.first_effect.len(),
        facts.dead.len(),
        in_delivery.len(),
        in_storage.len(),
    );
    Check::of("C1 nothing lost", figures, wrong)
}

/// C2: what was rejected is neither handled nor stored; what is handled was published.
fn rejected(facts: &Facts) -> Check {
    let logged: HashSet<_> = facts
        .setting
        .log
        .iter()
        .filter_map(|it| it.id.as_ref())
        .collect();
    let rejected = facts
        .told
        .iter()
        .filter(|(_, told)| **told == Told::Rejected);
    let stored = rejected.filter(|(id, _)| logged.contains(id));
    let mut wrong: Vec<_> = stored
        .map(|(id, _)| format!("{id}: rejected, and stored"))
        .collect();
    for id in facts
        .first_effect
        .keys()
        .filter(|id| !facts.told.contains_key(*id))
    {
        wrong.push(format!("{id}: handled, and never published"));
    }
    let (rejected, unknown) = (facts.count(Told::Rejected), facts.count(Told::Unknown));
    let share = 100.0 * unknown as f64 / facts.told.len().max(1) as f64;
    let figures = format!("{rejected} rejected, {unknown} unknown ({share:.2} %)");
    Check::of("C2 outcomes are true", figures, wrong)
}

/// C3: what the group had committed at a time was done with by then.
fn commits(facts: &Facts) -> Check {
    let (samples, wrong) = match facts.setting.kind {
        Kind::Kafka => committed(facts),
        Kind::Redis => acknowledged(facts),
    };
    Check::of(
        "C3 commits are safe",
        format!("{samples} looks at the server"),
        wrong,
    )
}

fn committed(facts: &Facts) -> (usize, Vec<String>) {
    // Of each partition, when everything up to an offset was done with, and what was last.
    let mut partitions: BTreeMap<u64, Vec<(u64, u64, &str)>> = BTreeMap::new();
    for record in &facts.setting.log {
        let done = facts.done(record).unwrap_or(u64::MAX);
        let name = record.id.as_ref().unwrap_or(&record.value);
        let known = partitions.entry(record.position.0).or_default();
        let before = known
            .last()
            .map_or((0, ""), |(_, time, name)| (*time, *name));
        let (time, name) = before.max((done, name));
        known.push((record.position.1, time, name));
    }
    let (mut samples, mut wrong) = (0, BTreeMap::new());
    for line in &facts.conductor {
        let Step::Committed { offsets, .. } = &line.step else {
            continue;
        };
        samples += 1;
        for (partition, offset) in offsets {
            let key = u64::from(partition.unsigned_abs());
            let records = partitions.get(&key).map_or(&[][..], Vec::as_slice);
            let below = records.partition_point(|(it, ..)| *it < offset.unsigned_abs());
            if let Some((_, time, name)) = below.checked_sub(1).map(|last| records[last])
                && time > line.time
            {
                let at =
                    format!("{name}: below commit {offset} of partition {partition}, not done");
                wrong.entry(name).or_insert(at);
            }
        }
    }
    (samples, wrong.into_values().collect())
}

fn acknowledged(facts: &Facts) -> (usize, Vec<String>) {
    let streams: BTreeSet<u32> = facts.setting.log.iter().map(|it| it.stream).collect();
    let all = streams.into_iter().map(|it| acknowledged_of(facts, it));
    all.fold((0, Vec::new()), |(samples, mut wrong), (more, found)| {
        wrong.extend(found);
        (samples + more, wrong)
    })
}

fn acknowledged_of(facts: &Facts, stream: u32) -> (usize, Vec<String>) {
    let log = facts.setting.log.iter();
    let mut log: Vec<_> = log.filter(|record| record.stream == stream).collect();
    log.sort_by_key(|record| record.position);
    let (mut next, mut open) = (0, BTreeMap::new());
    let (mut samples, mut wrong) = (0, Vec::new());
    for line in &facts.conductor {
        let Step::Acknowledged {
            stream: of,
            last,
            pending,
            ..
        } = &line.step
        else {
            continue;
        };
        if *of != stream {
            continue;
        }
        samples += 1;
        let last = entry_id(last).unwrap_or_default();
        while let Some(record) = log.get(next).filter(|it| it.position <= last) {
            open.insert(record.position, *record);
            next += 1;
        }
        let pending: HashSet<_> = pending.iter().filter_map(|id| entry_id(id)).collect();
        open.retain(|position, record| {
            let is_open = pending.contains(position);
            if !is_open && facts.done(record).is_none_or(|time| time > line.time) {
                let name = record.id.as_ref().unwrap_or(&record.value);
                wrong.push(format!("{name}: acknowledged, not done"));
            }
            is_open
        });
    }
    (samples, wrong)
}

/// C4: the events of a key are handled in the order of the log.
fn order(facts: &Facts) -> Check {
    const NAME: &str = "C4 order of keys";
    if !facts.setting.ordered {
        return Check::not_judged(
            NAME,
            "Redis promises it within one process, but for takeovers and partitions",
        );
    }
    let mut last: HashMap<&str, (u64, &str)> = HashMap::new();
    let (mut wrong, mut pairs) = (Vec::new(), 0);
    for record in &facts.setting.log {
        let Some(id) = &record.id else { continue };
        let Some(time) = facts.first_effect.get(id) else {
            continue;
        };
        let key = id.split('/').next().unwrap_or_default();
        if let Some((before, earlier)) = last.insert(key, (*time, id)) {
            pairs += 1;
            if before > *time {
                wrong.push(format!("{id} before {earlier}, which is stored before it"));
            }
        }
    }
    Check::of(NAME, format!("{pairs} pairs of neighbours"), wrong)
}

/// C4: no process handles two events of a key at once.
fn overlaps(facts: &Facts) -> Check {
    let (mut wrong, mut starts) = (Vec::new(), 0);
    for (life, lines) in &facts.lives {
        let mut open: HashMap<&str, &str> = HashMap::new();
        for line in lines {
            match &line.step {
                Step::Start { id, .. } => {
                    starts += 1;
                    if let Some(other) = open.insert(key_of(id), id) {
                        wrong.push(format!("{id} beside {other} in {life}"));
                    }
                }
                Step::End { id } => drop(open.remove(key_of(id))),
                _ => {}
            }
        }
    }
    Check::of("C4 one of a key", format!("{starts} handlings"), wrong)
}

fn key_of(id: &str) -> &str {
    id.split('/').next().unwrap_or_default()
}

/// C5: nothing is handled twice unless something broke, and then no more than was in hand.
fn duplicates(facts: &Facts) -> Check {
    let windows = windows(facts);
    // On Kafka also what was done behind an event that is not: a hang is tried three times.
    let seconds = match facts.setting.kind {
        Kind::Kafka => HANG_SECONDS,
        Kind::Redis => 1.0,
    };
    let more = (facts.setting.rate * seconds) as usize;
    let bound = IN_FLIGHT * facts.setting.consumers + more;
    let total: usize = windows.iter().map(|window| window.duplicates).sum();
    let mut wrong = Vec::new();
    for window in &windows {
        let bound = match window.fault.as_str() {
            fault if Fault::is_clean(fault) => 0,
            // Process after process, until it is found out.
            "deadly" => DEATHS * bound,
            _ => bound,
        };
        if window.duplicates > bound {
            let (count, fault, begin) = (window.duplicates, &window.fault, window.begin);
            wrong.push(format!(
                "{count} with `{fault}` from {begin:.1} s: at most {bound}"
            ));
        }
    }
    let figures =
        format!("{total} duplicates; at most {bound} for a fault, none where all is clean");
    Check::of("C5 duplicates", figures, wrong)
}

/// C5: what was marked as handled is not handled again. A process that dies between the effect and
/// the mark repeats the effect: that is the window which the documentation names.
fn once(facts: &Facts) -> Check {
    const NAME: &str = "C5 handled once";
    if !facts.setting.idempotency || facts.setting.may_lose {
        return Check::not_judged(NAME, "nothing keeps which events were handled");
    }
    let mut wrong = Vec::new();
    for (life, lines) in &facts.lives {
        for line in lines {
            if let Step::Start { id, .. } = &line.step
                && facts
                    .marked
                    .get(id)
                    .is_some_and(|marked| *marked < line.time)
            {
                wrong.push(format!("{id} in {life}, though it was marked before"));
            }
        }
    }
    let again = facts.effects.len() - facts.first_effect.len();
    let figures = format!(
        "{} marked, {again} effects before a mark",
        facts.marked.len()
    );
    Check::of(NAME, figures, wrong)
}

/// C6: what comes of each event is stored once, with its acknowledgement.
fn copies(facts: &Facts) -> Check {
    const NAME: &str = "C6 transactions";
    let Some(copies) = &facts.setting.copies else {
        return Check::not_judged(NAME, "the handlers publish nothing");
    };
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for copy in copies {
        let id = copy.id.as_deref().unwrap_or(&copy.value);
        *counts.entry(id).or_default() += 1;
    }
    let ids = facts.setting.log.iter().filter_map(|it| it.id.as_deref());
    let missing = ids.filter(|id| !counts.contains_key(id) && !facts.dead.contains_key(*id));
    let mut wrong: Vec<_> = missing
        .map(|id| format!("{id}: nothing came of it"))
        .collect();
    for (id, count) in &counts {
        if *count > 1 {
            wrong.push(format!("{id}: {count} copies"));
        }
        if facts.dead.contains_key(*id) {
            wrong.push(format!("{id}: a copy, and put away"));
        }
    }
    Check::of(NAME, format!("{} copies", copies.len()), wrong)
}

/// C7: events flow again after each fault, and all are handled in the end.
fn liveness(facts: &Facts) -> Check {
    let windows = windows(facts);
    let mut wrong = Vec::new();
    let mut slowest = 0.0_f64;
    for window in &windows {
        match window.progress_after {
            Some(seconds) if seconds <= PROGRESS_WITHIN => slowest = slowest.max(seconds),
            Some(seconds) => wrong.push(format!("{:.0} s after `{}`", seconds, window.fault)),
            None => wrong.push(format!("nothing more after `{}`", window.fault)),
        }
    }
    let drained = facts.conductor.iter().find_map(|line| match line.step {
        Step::Drained { in_time } => Some(in_time),
        _ => None,
    });
    if drained != Some(true) {
        wrong.push("not everything was settled in the end".to_owned());
    }
    let figures = format!("at most {slowest:.1} s from the end of a fault to progress");
    Check::of("C7 liveness", figures, wrong)
}

/// No process ends by itself, and each ends in good order when it is asked to.
fn deaths(facts: &Facts) -> Check {
    let lines = facts.lives.iter().flat_map(|(_, lines)| lines);
    let mut aborts = lines
        .filter(|it| matches!(it.step, Step::Abort { .. }))
        .count();
    let ended_by_events = aborts;
    let mut deaths = Vec::new();
    for line in &facts.conductor {
        let Step::Died { role, status } = &line.step else {
            continue;
        };
        // An event that ends its process, and the nemesis may end that before it is seen.
        if role.starts_with("consumer") && status.contains("SIGABRT") && aborts > 0 {
            aborts -= 1;
        } else {
            deaths.push(format!("{role}: {status}"));
        }
    }
    let figures = format!(
        "{} processes ended unasked or in disorder, {ended_by_events} by an event",
        deaths.len()
    );
    Check::of("C7 no process gives up", figures, deaths)
}

/// C8: memory and open files.
fn bounds(facts: &Facts) -> Check {
    let mut sizes: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    let (mut memory, mut files) = (0, 0);
    for line in &facts.conductor {
        if let Step::Size {
            role,
            resident,
            files: open,
        } = &line.step
        {
            sizes.entry(role).or_default().push((line.time, *resident));
            memory = memory.max(*resident);
            files = files.max(*open);
        }
    }
    let mut wrong = Vec::new();
    if memory > MOST_MEMORY || files > MOST_FILES {
        wrong.push(format!("over {MOST_MEMORY} bytes or {MOST_FILES} files"));
    }
    let slopes = sizes.values().filter_map(|sizes| slope(sizes));
    let slope = slopes.fold(0.0, f64::max);
    let figures = format!(
        "at most {} MiB and {files} files; steepest {slope:.1} MiB a minute",
        memory >> 20
    );
    Check::of("C8 bounds", figures, wrong)
}

/// MiB a minute, of the second half of a life that is long enough to say.
fn slope(sizes: &[(u64, u64)]) -> Option<f64> {
    const LEAST: usize = 60;
    let half = sizes
        .get(sizes.len() / 2..)
        .filter(|half| half.len() >= LEAST)?;
    let count = half.len() as f64;
    let (begin, _) = half[0];
    let points = half.iter().map(|(time, size)| {
        let minutes = (time - begin) as f64 / 60_000.0;
        (minutes, *size as f64 / f64::from(1 << 20))
    });
    let (x, y, xx, xy) = points.fold((0.0, 0.0, 0.0, 0.0), |(x, y, xx, xy), (a, b)| {
        (x + a, y + b, xx + a * a, xy + a * b)
    });
    Some((count * xy - x * y) / (count * xx - x * x))
}

/// What became of each window.
pub(crate) fn windows(facts: &Facts) -> Vec<Window> {
    let begin = facts.begin();
    let seconds = |time: u64| time.saturating_sub(begin) as f64 / 1_000.0;
    let mut windows: Vec<(Window, u64)> = Vec::new();
    for Line { time, step } in &facts.conductor {
        match step {
            Step::Window { fault } => {
                let window = Window {
                    fault: fault.clone(),
                    begin: seconds(*time),
                    heal: f64::MAX,
                    end: f64::MAX,
                    duplicates: 0,
                    progress_after: None,
                };
                if let Some((last, _)) = windows.last_mut() {
                    last.end = window.begin;
                }
                windows.push((window, u64::MAX));
            }
            Step::Heal { .. } => {
                if let Some((window, heal)) = windows.last_mut() {
                    window.heal = seconds(*time);
                    *heal = *time;
                    let next = facts.effects.iter().find(|(it, _)| it >= time);
                    window.progress_after = next.map(|(it, _)| (it - time) as f64 / 1_000.0);
                }
            }
            _ => {}
        }
    }
    let mut seen = HashSet::new();
    for (time, id) in &facts.effects {
        if !seen.insert(id) {
            count_duplicate(&mut windows, *time, seconds(*time));
        }
    }
    windows.into_iter().map(|(window, _)| window).collect()
}

/// A duplicate belongs to the fault of its time, or to one shortly before where that one is clean.
fn count_duplicate(windows: &mut [(Window, u64)], time: u64, seconds: f64) {
    let Some(mut index) = windows.iter().rposition(|(it, _)| it.begin <= seconds) else {
        return;
    };
    let own = index;
    while Fault::is_clean(&windows[index].0.fault) {
        let before = index.checked_sub(1).filter(|it| {
            let heal = windows[*it].1;
            heal.saturating_add(AFTER_MS) >= time
        });
        match before {
            Some(before) => index = before,
            None => {
                index = own;
                break;
            }
        }
    }
    windows[index].0.duplicates += 1;
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
