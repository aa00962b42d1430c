//! Reads what a run left, and judges it.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::checks;
use crate::conductor::{COPIES, GROUP};
use crate::journal::{self, Line, Step, Told};
use crate::options::Options;
use crate::plot;
use crate::report::Verdict;
use crate::server::{Record, Server};
use crate::task::Kind;

/// What the options said that the judge has to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Setting {
    pub(crate) kind: Kind,
    pub(crate) seed: u64,
    pub(crate) consumers: usize,
    pub(crate) rate: f64,
    pub(crate) mutant: Option<String>,
    /// The server may lose what it answered for.
    pub(crate) may_lose: bool,
    pub(crate) idempotency: bool,
    /// The server's log, and its dead letters, read past the bus.
    pub(crate) log: Vec<Record>,
    pub(crate) dead: Vec<Record>,
    /// What came of the events, where handlers publish it.
    pub(crate) copies: Option<Vec<Record>>,
}

/// All that is known of a run.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) setting: Setting,
    /// What the producer was told of each event; what it was not told of is unknown.
    pub(crate) told: HashMap<String, Told>,
    /// In the order of their times.
    pub(crate) effects: Vec<(u64, String)>,
    pub(crate) first_effect: HashMap<String, u64>,
    pub(crate) dead: HashMap<String, u64>,
    /// Each life of a consumer.
    pub(crate) lives: Vec<(String, Vec<Line>)>,
    /// When each event was first marked as handled.
    pub(crate) marked: HashMap<String, u64>,
    pub(crate) conductor: Vec<Line>,
}

/// Reads the server's log and judges the run.
pub(crate) async fn judge(
    options: &Options,
    server: &Server,
    topic: &str,
) -> Result<Verdict, Failure> {
    let setting = Setting {
        kind: options.kind,
        seed: options.seed,
        consumers: options.consumers,
        rate: options.rate,
        mutant: options.mutant.map(crate::task::Mutant::name),
        may_lose: options.may_lose(),
        idempotency: options.idempotency,
        copies: match options.copies {
            true => Some(server.read(COPIES).await?),
            false => None,
        },
        log: server.read(topic).await?,
        dead: server.read(&format!("{topic}.dlq")).await?,
    };
    // The last word of the group.
    if let Ok(step) = server.settled(topic, GROUP).await {
        journal::Journal::open(&options.directory, "conductor")?.note(step);
    }
    let text = serde_json::to_vec(&setting)?;
    std::fs::write(options.directory.join("setting.json"), text)?;
    conclude(&options.directory)
}

/// Judges a run by what it left in its directory.
pub(crate) fn again(directory: &Path) -> Result<bool, Failure> {
    let verdict = conclude(directory)?;
    print!("{}", verdict.text());
    Ok(verdict.holds())
}

fn conclude(directory: &Path) -> Result<Verdict, Failure> {
    let facts = Facts::read(directory)?;
    let verdict = Verdict {
        seed: facts.setting.seed,
        transport: format!("{:?}", facts.setting.kind).to_lowercase(),
        mutant: facts.setting.mutant.clone(),
        directory: directory.to_owned(),
        published: facts.told.len(),
        accepted: facts.count(Told::Accepted),
        checks: checks::all(&facts),
        windows: checks::windows(&facts),
    };
    std::fs::write(directory.join("report.txt"), verdict.text())?;
    std::fs::write(
        directory.join("report.json"),
        serde_json::to_vec_pretty(&verdict)?,
    )?;
    std::fs::write(directory.join("plot.svg"), plot::svg(&facts, &verdict))?;
    Ok(verdict)
}

impl Facts {
    fn read(directory: &Path) -> Result<Self, Failure> {
        let setting: Setting =
            serde_json::from_slice(&std::fs::read(directory.join("setting.json"))?)?;
        let mut told = HashMap::new();
        for (_, lines) in journal::read(directory, "producer-")? {
            for line in lines {
                match line.step {
                    Step::Intent { id } => drop(told.entry(id).or_insert(Told::Unknown)),
                    Step::Outcome { id, outcome, .. } => drop(told.insert(id, outcome)),
                    _ => {}
                }
            }
        }
        let lives = journal::read(directory, "consumer-")?;
        let mut effects = Vec::new();
        for line in lives.iter().flat_map(|(_, lines)| lines) {
            if let Step::Effect { id } = &line.step {
                effects.push((line.time, id.clone()));
            }
        }
        effects.sort_by_key(|(time, _)| *time);
        let mut first_effect = HashMap::new();
        for (time, id) in &effects {
            first_effect.entry(id.clone()).or_insert(*time);
        }
        let mut dead = HashMap::new();
        for record in &setting.dead {
            let name = record.id.as_ref().unwrap_or(&record.value);
            dead.entry(name.clone()).or_insert(record.time);
        }
        let mut marked = HashMap::new();
        for (_, lines) in journal::read(directory, "settled-")? {
            for line in lines {
                if let Step::Marked { id } = line.step {
                    let first = marked.entry(id).or_insert(line.time);
                    *first = line.time.min(*first);
                }
            }
        }
        let conductor = journal::read(directory, "conductor")?;
        Ok(Self {
            setting,
            told,
            effects,
            first_effect,
            dead,
            lives,
            marked,
            conductor: conductor.into_iter().flat_map(|(_, lines)| lines).collect(),
        })
    }

    pub(crate) fn count(&self, told: Told) -> usize {
        self.told.values().filter(|it| **it == told).count()
    }

    /// When an event, or what is none, was done with: handled, or put away.
    pub(crate) fn done(&self, record: &Record) -> Option<u64> {
        let name = record.id.as_ref().unwrap_or(&record.value);
        let times = [self.first_effect.get(name), self.dead.get(name)];
        times.into_iter().flatten().min().copied()
    }

    /// When the run began.
    pub(crate) fn begin(&self) -> u64 {
        self.conductor.first().map_or(0, |line| line.time)
    }
}
