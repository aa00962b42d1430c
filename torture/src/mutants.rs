//! Proves the judge: each transport that breaks a promise must be found out.

use crate::Failure;
use crate::conductor;
use crate::options::Options;
use crate::report::Held;
use crate::task::Mutant;

/// A mutant, and the run that finds it out.
const RUNS: [(Mutant, &str, &str); 17] = [
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
    (Mutant::MarkBeforeSuccess, "redis", "kill"),
    (Mutant::ForgetMarks, "redis", "crash-before-ack"),
    (Mutant::CopyOutside, "kafka", "rebalance"),
];

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
            "1",
            "--directory",
            &directory,
        ])?;
        provide_for(mutant, &mut options);
        options.drain_within = std::time::Duration::from_secs(30);
        let verdict = conductor::run(&options).await?;
        let broken = verdict.checks.iter().filter(|check| check.held == Held::No);
        let broken: Vec<_> = broken.map(|check| check.name.as_str()).collect();
        all &= !broken.is_empty();
        let found = if broken.is_empty() {
            "SURVIVED"
        } else {
            "killed"
        };
        lines.push(format!(
            "{name:<26} {transport:<6} {faults:<16} {found:<9} {}",
            broken.join(", ")
        ));
    }
    println!("{:<26} {:<6} {:<16} {:<9} by", "mutant", "on", "faults", "");
    println!("{}", lines.join("\n"));
    Ok(all)
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
        _ => {}
    }
}
