//! What the judge says, as text and JSON.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What one check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Held {
    Yes,
    No,
    /// It is not promised there, or nothing in the run shows it.
    NotJudged,
}

/// One check.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) held: Held,
    /// Figures, in one line.
    pub(crate) figures: String,
    /// The first things that are wrong.
    pub(crate) wrong: Vec<String>,
}

/// What became of a window.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Window {
    pub(crate) fault: String,
    /// Seconds since the run began.
    pub(crate) begin: f64,
    pub(crate) heal: f64,
    pub(crate) end: f64,
    pub(crate) duplicates: usize,
    /// Seconds from its end to the first effect.
    pub(crate) progress_after: Option<f64>,
}

/// What the judge says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) seed: u64,
    pub(crate) transport: String,
    pub(crate) mutant: Option<String>,
    pub(crate) directory: PathBuf,
    pub(crate) published: usize,
    pub(crate) accepted: usize,
    pub(crate) checks: Vec<Check>,
    pub(crate) windows: Vec<Window>,
}

impl Check {
    /// A check that holds unless something is wrong.
    pub(crate) fn of(name: &str, figures: String, wrong: Vec<String>) -> Self {
        let held = if wrong.is_empty() {
            Held::Yes
        } else {
            Held::No
        };
        Self::new(name, held, figures, wrong)
    }

    pub(crate) fn not_judged(name: &str, why: impl Into<String>) -> Self {
        Self::new(name, Held::NotJudged, why.into(), Vec::new())
    }

    fn new(name: &str, held: Held, figures: String, mut wrong: Vec<String>) -> Self {
        const SHOWN: usize = 10;
        if wrong.len() > SHOWN {
            let more = wrong.len() - SHOWN;
            wrong.truncate(SHOWN);
            wrong.push(format!("{more} more"));
        }
        Self {
            name: name.to_owned(),
            held,
            figures,
            wrong,
        }
    }
}

impl Verdict {
    pub(crate) fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.held != Held::No)
    }

    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "{}, seed {}: {} published, {} accepted\n\n",
            self.transport, self.seed, self.published, self.accepted
        );
        for check in &self.checks {
            let held = match check.held {
                Held::Yes => "holds",
                Held::No => "BROKEN",
                Held::NotJudged => "not judged",
            };
            let _ = writeln!(text, "{:<22} {held:<11} {}", check.name, check.figures);
            for wrong in &check.wrong {
                let _ = writeln!(text, "    {wrong}");
            }
        }
        text.push_str("\nfault                  from s    to s  duplicates  progress after s\n");
        for window in &self.windows {
            let progress = window
                .progress_after
                .map_or("-".to_owned(), |it| format!("{it:.1}"));
            let _ = writeln!(
                text,
                "{:<22} {:>6.1} {:>7.1} {:>11} {progress:>17}",
                window.fault, window.begin, window.heal, window.duplicates
            );
        }
        text
    }
}
