use std::fmt;
use std::time::Duration;

use crate::case::Case;

/// What became of a run of the suite.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Report {
    /// The cases that were asked for, in the order of the suite.
    pub cases: Vec<CaseReport>,
}

/// What became of one case.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CaseReport {
    /// The case.
    pub case: Case,
    /// How it ended.
    pub verdict: Verdict,
    /// How long it took.
    pub elapsed: Duration,
}

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The transport keeps this promise.
    Passed,
    /// It does not; why.
    Failed(String),
    /// It does not make this promise; why the case was not run.
    Ignored(String),
}

impl Report {
    /// The cases that passed.
    pub fn passed(&self) -> impl Iterator<Item = &CaseReport> {
        self.cases
            .iter()
            .filter(|case| case.verdict == Verdict::Passed)
    }

    /// The cases that failed.
    pub fn failed(&self) -> impl Iterator<Item = &CaseReport> {
        self.cases
            .iter()
            .filter(|case| matches!(case.verdict, Verdict::Failed(_)))
    }

    /// The cases that were not run.
    pub fn ignored(&self) -> impl Iterator<Item = &CaseReport> {
        self.cases
            .iter()
            .filter(|case| matches!(case.verdict, Verdict::Ignored(_)))
    }
}

impl fmt::Display for Report {
    /// A line for each case that failed or was ignored, with the reason, and the counts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for report in &self.cases {
            match &report.verdict {
                Verdict::Passed => {}
                Verdict::Failed(why) => writeln!(f, "failed  {}: {why}", report.case.name())?,
                Verdict::Ignored(why) => writeln!(f, "ignored {}: {why}", report.case.name())?,
            }
        }
        write!(
            f,
            "conformance: {} cases run: {} passed, {} failed; {} ignored",
            self.cases.len() - self.ignored().count(),
            self.passed().count(),
            self.failed().count(),
            self.ignored().count()
        )
    }
}
