//! What polybus costs, beside the raw clients in the same run. Started by `scripts/bench`.

mod consume;
mod contracts;
mod local;
mod measure;
mod null;
mod plot;
mod publish;
mod raw;
mod report;
mod servers;
mod shape;
mod tally;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use polybus::BoxError;

use crate::report::Row;
use crate::servers::Servers;

/// Measures polybus beside the raw clients.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    /// What is measured.
    subject: Subject,
    /// Only these cases. Default: all.
    #[arg(long = "case")]
    cases: Vec<String>,
    /// Few events and two rounds: shows that it runs, not how fast.
    #[arg(long)]
    quick: bool,
    /// How often the two sides take turns. Default: 5, 2 with --quick.
    #[arg(long)]
    rounds: Option<usize>,
    /// Only payloads of this size. Default: 200 and 1024.
    #[arg(long)]
    payload: Option<usize>,
    /// Only topics of so many partitions. Default: 1 and 8.
    #[arg(long)]
    partitions: Option<usize>,
    /// Only this side, for a profile. Its figures then stand on both sides.
    #[arg(long)]
    side: Option<Side>,
    /// Where the results are written.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Subject {
    Publish,
    Consume,
    Contracts,
}

/// One of the two that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Side {
    Polybus,
    Raw,
}

/// A run: its servers, its extent, and what it has found.
#[derive(Debug)]
pub struct Bench {
    servers: Servers,
    rounds: usize,
    quick: bool,
    side: Option<Side>,
    payload: Option<usize>,
    partitions: Option<usize>,
    out: PathBuf,
    rows: Vec<Row>,
}

impl Bench {
    /// So many events, or fewer in a quick run.
    fn events(&self, events: usize) -> usize {
        if self.quick {
            (events / 50).max(100)
        } else {
            events
        }
    }

    fn payloads(&self) -> Vec<usize> {
        self.payload.map_or_else(|| vec![200, 1024], |it| vec![it])
    }

    fn partitions(&self) -> Vec<usize> {
        self.partitions.map_or_else(|| vec![1, 8], |it| vec![it])
    }

    /// Lets two sides take turns.
    async fn interleave(
        &self,
        polybus: impl AsyncFnMut() -> Result<measure::Sample, BoxError>,
        raw: impl AsyncFnMut() -> Result<measure::Sample, BoxError>,
    ) -> Result<measure::Rounds, BoxError> {
        measure::interleave(self.rounds, self.side, polybus, raw).await
    }

    fn add(&mut self, row: Row) {
        report::print(&row);
        self.rows.push(row);
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let arguments = Arguments::parse();
    let (all, name) = match arguments.subject {
        Subject::Publish => (publish::CASES, "publish"),
        Subject::Consume => (consume::CASES, "consume"),
        Subject::Contracts => (contracts::CASES, "contracts"),
    };
    if let Some(unknown) = arguments
        .cases
        .iter()
        .find(|it| !all.contains(&it.as_str()))
    {
        return Err(format!(
            "there is no case `{unknown}`; there are: {}",
            all.join(", ")
        )
        .into());
    }
    let wanted =
        |case: &&&str| arguments.cases.is_empty() || arguments.cases.iter().any(|it| it == **case);
    let mut bench = Bench {
        servers: Servers::default(),
        rounds: arguments
            .rounds
            .unwrap_or(if arguments.quick { 2 } else { 5 }),
        quick: arguments.quick,
        side: arguments.side,
        payload: arguments.payload,
        partitions: arguments.partitions,
        out: arguments.out,
        rows: Vec::new(),
    };
    report::print_headings();
    for case in all.iter().filter(wanted) {
        match arguments.subject {
            Subject::Publish => publish::run(case, &mut bench).await?,
            Subject::Consume => consume::run(case, &mut bench).await?,
            Subject::Contracts => contracts::run(case, &mut bench).await?,
        }
    }
    report::write(&bench.out.join(format!("{name}.json")), &bench.rows)
}
