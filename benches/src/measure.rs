//! Rounds of two sides that take turns, and what is made of their figures.

use std::time::{Duration, Instant};

use polybus::BoxError;
use rustix::time::{ClockId, clock_gettime};

use crate::Side;

/// One side's figures of one round.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// In the unit of the case.
    pub value: f64,
    /// Client CPU (user and system, all threads of this process) for each event.
    pub cpu_ns: f64,
    /// How many events were found where they belong.
    pub verified: u64,
}

/// Measures a stretch in which one side alone is at work.
#[derive(Debug)]
pub struct Stopwatch {
    wall: Instant,
    cpu: Duration,
}

/// What a stretch took.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    wall: Duration,
    cpu: Duration,
}

impl Stopwatch {
    pub fn start() -> Self {
        Self {
            wall: Instant::now(),
            cpu: cpu_time(),
        }
    }

    pub fn stop(&self) -> Stretch {
        Stretch {
            wall: self.wall.elapsed(),
            cpu: cpu_time().saturating_sub(self.cpu),
        }
    }
}

impl Stretch {
    /// Events a second.
    pub fn throughput(&self, events: usize, verified: u64) -> Sample {
        Sample {
            value: events as f64 / self.wall.as_secs_f64(),
            ..self.valued(0.0, events, verified)
        }
    }

    /// Nanoseconds for each event.
    pub fn cost(&self, events: usize, verified: u64) -> Sample {
        let nanoseconds = self.wall.as_nanos() as f64 / events as f64;
        self.valued(nanoseconds, events, verified)
    }

    /// A value that was measured within the stretch.
    pub fn valued(&self, value: f64, events: usize, verified: u64) -> Sample {
        Sample {
            value,
            cpu_ns: self.cpu.as_nanos() as f64 / events as f64,
            verified,
        }
    }

    /// Seconds of the clock on the wall.
    pub fn seconds(&self) -> f64 {
        self.wall.as_secs_f64()
    }
}

/// All rounds of a case.
#[derive(Debug, Default)]
pub struct Rounds {
    pub polybus: Vec<Sample>,
    pub raw: Vec<Sample>,
}

/// Lets the two sides take turns, so that whatever else the machine does meets both. A round
/// before the first, which is not counted, warms both up. If only one side is wanted its figures
/// stand for both.
pub async fn interleave(
    rounds: usize,
    only: Option<Side>,
    mut polybus: impl AsyncFnMut() -> Result<Sample, BoxError>,
    mut raw: impl AsyncFnMut() -> Result<Sample, BoxError>,
) -> Result<Rounds, BoxError> {
    let mut samples = Rounds::default();
    for round in 0..=rounds {
        let (ours, theirs) = match only {
            None => (polybus().await?, raw().await?),
            Some(side) => {
                let sample = match side {
                    Side::Polybus => polybus().await?,
                    Side::Raw => raw().await?,
                };
                (sample, sample)
            }
        };
        if round > 0 {
            samples.polybus.push(ours);
            samples.raw.push(theirs);
        }
    }
    Ok(samples)
}

/// Middle, least and most.
#[derive(Debug, Clone, Copy)]
pub struct Summary {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

pub fn summary(values: impl IntoIterator<Item = f64>) -> Summary {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    Summary {
        median: values[values.len() / 2],
        least: values[0],
        most: values[values.len() - 1],
    }
}

/// Times of single events, in any order.
#[derive(Debug, Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    pub fn push(&mut self, latency: Duration) {
        self.0.push(latency);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// The latency in microseconds that so many of a thousand events stay within.
    pub fn within(&mut self, of_a_thousand: usize) -> f64 {
        if self.0.is_empty() {
            return 0.0;
        }
        self.0.sort_unstable();
        let index = (self.0.len() * of_a_thousand / 1000).min(self.0.len() - 1);
        self.0[index].as_secs_f64() * 1e6
    }
}

/// Fails unless the server has what was published, no more and no less.
pub fn check(what: &str, found: u64, expected: usize) -> Result<u64, BoxError> {
    if found == expected as u64 {
        Ok(found)
    } else {
        Err(format!("{what}: {found} events are there, {expected} should be").into())
    }
}

/// User and system time of all threads of this process.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanoseconds)
}

/// The most memory that this process has had, in MiB.
pub fn peak_memory() -> Option<f64> {
    memory("VmHWM:")
}

/// The memory that this process has, in MiB.
pub fn present_memory() -> Option<f64> {
    memory("VmRSS:")
}

fn memory(name: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kibibytes / 1024.0)
}
