//! Proves the judge: each transport that breaks a promise must be found out.

use std::time::Duration;

use crate::Failure;
use crate::conductor;
use crate::options::Options;
use crate::report::Held;
use crate::task::Mutant;

/// A mutant, and the run that finds it out.
const RUNS: [(Mutant, &str, &str); 18] = [
    (Mutant::CommitBeforeProcessing, "redis", "kill"),
    (Mutant::CommitHighestSeen, "kafka", "kill"),
    (Mutant::AckBeforeDeadLetter, "redis", "poison,rolling"),
    (Mutant::GroupAtNow, "redis", "none"),
    (Mutant::DeleteConsumer, "redis", "rebalance"),
    (Mutant::AcceptBeforeStored, "redis", "kill-producer"),
    (Mutant::ReleaseIsAck, "redis", "rolling"),
    (Mutant::RejectStored, "redis", "none"),
    (Mutant::DeliverTwice, "redis", "none"),
    (Mutant::Reorder, "kafka", "none"),
    (Mutant::LostWakeUp, "redis", "none"),
    (Mutant::DropSome, "redis", "none"),
    (Mutant::ForgetAck, "redis", "none"),
    (Mutant::NoLease, "redis", "none"),
    (Mutant::NoEpoch, "redis", "stop"),
    (Mutant::MarkBeforeSuccess, "redis", "kill"),
    (Mutant::ForgetMarks, "redis", "crash-before-ack"),
    (Mutant::CopyOutside, "kafka", "rebalance"),
];

/// Within so many runs, which is two minutes of breaking, the harm must have been done and seen.
const MOST_RUNS: u32 = 6;

/// Whether every mutant is found out. `words` names some of them, by commas; default: all.
pub(crate) async fn kill_table(words: &[&str]) -> Result<bool, Failure> {
    let chosen: Vec<&str> = words
        .first()
        .map_or(Vec::new(), |it| it.split(',').collect());
    let mut lines = Vec::new();
    let mut all = true;
    for (mutant, transport, faults) in RUNS {
        let name = mutant.name();
        if !chosen.is_empty() && !chosen.contains(&name.as_str()) {
            continue;
        }
        let mut broken = Vec::new();
        let mut runs = 0;
        while broken.is_empty() && runs < MOST_RUNS {
            runs += 1;
            broken = broken_by(mutant, transport, faults, runs).await?;
        }
        all &= !broken.is_empty();
        let found = if broken.is_empty() {
            "SURVIVED"
        } else {
            "killed"
        };
        lines.push(format!(
            "{name:<26} {transport:<6} {faults:<16} {found:<9} {runs:>4}  {}",
            broken.join(", ")
        ));
    }
    println!(
        "{:<26} {:<6} {:<16} {:<9} {:>4}  by",
        "mutant", "on", "faults", "", "runs"
    );
    println!("{}", lines.join("\n"));
    Ok(all)
}

/// The names of the checks that a run breaks. The run is also its seed.
async fn broken_by(
    mutant: Mutant,
    transport: &str,
    faults: &str,
    run: u32,
) -> Result<Vec<String>, Failure> {
    let name = mutant.name();
    let directory = format!("target/torture/mutants/{name}");
    let mut options = Options::parse(&[
        "--transport",
        transport,
        "--faults",
        faults,
        "--mutant",
        &name,
        "--minutes",
        "0.3",
        "--rate",
        "1000",
        "--window",
        "4-6",
        "--heal",
        "4",
        "--seed",
        &run.to_string(),
        "--directory",
        &directory,
    ])?;
    provide_for(mutant, &mut options);
    options.drain_within = Duration::from_secs(30);
    let verdict = conductor::run(&options).await?;
    let broken = verdict
        .checks
        .into_iter()
        .filter(|check| check.held == Held::No);
    Ok(broken.map(|check| check.name).collect())
}

/// What a mutant needs to do its harm.
fn provide_for(mutant: Mutant, options: &mut Options) {
    match mutant {
        Mutant::MarkBeforeSuccess | Mutant::ForgetMarks => options.idempotency = true,
        Mutant::CopyOutside => options.copies = true,
        Mutant::ReleaseIsAck | Mutant::CommitHighestSeen => {
            // More than one lane can do, so that some of it is in hand at each end.
            options.consumers = 1;
            options.keys = 1;
            options.rate = 600.0;
        }
        Mutant::NoLease => options.partitions = Some(4),
        Mutant::NoEpoch => {
            // It gets its partition back itself, with more to do than its lane can.
            options.consumers = 1;
            options.partitions = Some(1);
            options.keys = 1;
            options.rate = 500.0;
            options.window = 6..=7;
        }
        _ => {}
    }
}
