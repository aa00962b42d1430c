//! Results: a table for people, JSON for programs.

use std::path::Path;

use polybus::BoxError;
use serde::Serialize;

use crate::measure::{Rounds, Sample, Summary, summary};

/// One case with one payload and one number of partitions.
#[derive(Debug, Serialize)]
pub struct Row {
    case: String,
    payload_bytes: usize,
    partitions: usize,
    unit: &'static str,
    polybus: f64,
    raw: f64,
    ratio: f64,
    polybus_cpu_ns: f64,
    raw_cpu_ns: f64,
    rounds: usize,
    verified_events: u64,
    #[serde(skip)]
    spread: [Summary; 2],
}

impl Row {
    /// The medians of all rounds.
    pub fn new(
        case: impl Into<String>,
        payload_bytes: usize,
        partitions: usize,
        unit: &'static str,
        rounds: &Rounds,
    ) -> Self {
        let values = |side: &[Sample]| summary(side.iter().map(|sample| sample.value));
        let cpu = |side: &[Sample]| summary(side.iter().map(|sample| sample.cpu_ns)).median;
        let (polybus, raw) = (values(&rounds.polybus), values(&rounds.raw));
        let both = rounds.polybus.iter().chain(&rounds.raw);
        Self {
            case: case.into(),
            payload_bytes,
            partitions,
            unit,
            polybus: polybus.median,
            raw: raw.median,
            ratio: polybus.median / raw.median,
            polybus_cpu_ns: cpu(&rounds.polybus),
            raw_cpu_ns: cpu(&rounds.raw),
            rounds: rounds.polybus.len(),
            verified_events: both.map(|sample| sample.verified).sum(),
            spread: [polybus, raw],
        }
    }
}

/// Prints the headings of the table.
pub fn print_headings() {
    println!(
        "{:<22} {:>7} {:>5}  {:<12} {:>24} {:>24} {:>6} {:>8} {:>8} {:>6}",
        "case",
        "payload",
        "parts",
        "unit",
        "polybus (least..most)",
        "raw (least..most)",
        "ratio",
        "cpu ns",
        "raw cpu",
        "ratio"
    );
}

/// Prints a line of the table.
pub fn print(row: &Row) {
    let [polybus, raw] = &row.spread;
    println!(
        "{:<22} {:>7} {:>5}  {:<12} {:>24} {:>24} {:>6.2} {:>8.0} {:>8.0} {:>6.2}",
        row.case,
        row.payload_bytes,
        row.partitions,
        row.unit,
        spread(polybus),
        spread(raw),
        row.ratio,
        row.polybus_cpu_ns,
        row.raw_cpu_ns,
        row.polybus_cpu_ns / row.raw_cpu_ns
    );
}

fn spread(values: &Summary) -> String {
    let [median, least, most] = [values.median, values.least, values.most].map(short);
    format!("{median} ({least}..{most})")
}

fn short(value: f64) -> String {
    if value >= 1e6 {
        format!("{:.2}M", value / 1e6)
    } else if value >= 1e4 {
        format!("{:.0}k", value / 1e3)
    } else if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

/// Writes the results of a run as a JSON array.
pub fn write(path: &Path, rows: &[Row]) -> Result<(), BoxError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut text = serde_json::to_string_pretty(rows)?;
    text.push('\n');
    std::fs::write(path, text)?;
    println!("\nwritten: {}", path.display());
    Ok(())
}
