//! What a run is asked for.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::Failure;
use crate::nemesis::Fault;
use crate::task::{Kind, Mutant};

pub(crate) const HELP: &str = "\
usage: torture [run] [options]      breaks a bus of several processes, and judges it
       torture judge DIRECTORY      judges a run again by what it left
       torture mutants [options]    runs transports that break a promise: each must be found out

  --transport kafka|redis   default: redis
  --minutes N               how long faults strike, before the drain; default: 1
  --seed N                  default: by chance, and printed
  --faults A,B              default: all; `none` for none. Known:
                            kill term stop kill-producer term-producer
                            crash-before-effect crash-after-effect crash-before-ack crash-after-ack
                            crash-dead-letter broker-kill broker-stop broker-pause cut half-open
                            latency reset break-reply lost-reply lost-request rebalance rolling
                            poison malformed oom (redis)
  --consumers N             default: 3
  --keys N                  default: 50
  --rate N                  events a second; default: 500
  --partitions N            of the topic; default: 4 on kafka, none on redis
  --window A-B              seconds of a fault; default: 10-20
  --heal N                  seconds after it; default: 10
  --directory DIR           where journals and the report go; default: target/torture/SEED
  --mutant NAME             with a transport that breaks a promise (feature `mutants`)";

/// What a run is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) kind: Kind,
    pub(crate) length: Duration,
    pub(crate) seed: u64,
    pub(crate) faults: Vec<Fault>,
    pub(crate) consumers: usize,
    pub(crate) keys: usize,
    pub(crate) rate: f64,
    pub(crate) partitions: Option<u32>,
    pub(crate) window: RangeInclusive<u64>,
    pub(crate) heal: Duration,
    /// How long the rest may take once nothing is broken any more.
    pub(crate) drain_within: Duration,
    pub(crate) directory: PathBuf,
    pub(crate) mutant: Option<Mutant>,
}

impl Options {
    pub(crate) fn parse(words: &[&str]) -> Result<Self, Failure> {
        let seed = fastrand::u64(..1_000_000);
        let mut options = Self {
            kind: Kind::Redis,
            length: Duration::from_secs(60),
            seed,
            faults: Vec::new(),
            consumers: 3,
            keys: 50,
            rate: 500.0,
            partitions: None,
            window: 10..=20,
            heal: Duration::from_secs(10),
            drain_within: Duration::from_secs(90),
            directory: PathBuf::new(),
            mutant: None,
        };
        let mut faults = None;
        for pair in words.chunks(2) {
            let [name, value] = pair else {
                return Err(format!("{} needs a value; see --help", pair[0]).into());
            };
            match *name {
                "--faults" => faults = Some(*value),
                name => options.set(name, value)?,
            }
        }
        options.faults = match faults {
            None => Fault::all(options.kind),
            Some("none") => Vec::new(),
            Some(list) => list
                .split(',')
                .map(Fault::parse)
                .collect::<Result<_, _>>()?,
        };
        if options.directory.as_os_str().is_empty() {
            options.directory = PathBuf::from(format!("target/torture/{}", options.seed));
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        match name {
            "--transport" => {
                self.kind = match value {
                    "kafka" => Kind::Kafka,
                    "redis" => Kind::Redis,
                    "memory" => return Err("memory is not shared by processes".into()),
                    other => return Err(format!("there is no transport `{other}`").into()),
                }
            }
            "--minutes" => self.length = Duration::from_secs_f64(value.parse::<f64>()? * 60.0),
            "--seed" => self.seed = value.parse()?,
            "--consumers" => self.consumers = value.parse()?,
            "--keys" => self.keys = value.parse()?,
            "--rate" => self.rate = value.parse()?,
            "--partitions" => self.partitions = Some(value.parse()?),
            "--window" => {
                let (from, to) = value.split_once('-').ok_or("a window is as 10-20")?;
                self.window = from.parse()?..=to.parse()?;
            }
            "--heal" => self.heal = Duration::from_secs_f64(value.parse()?),
            "--directory" => self.directory = value.into(),
            "--mutant" => self.mutant = Some(mutant(value)?),
            other => return Err(format!("unknown option `{other}`; see --help").into()),
        }
        Ok(())
    }
}

fn mutant(name: &str) -> Result<Mutant, Failure> {
    if cfg!(not(feature = "mutants")) {
        return Err("mutants need the feature `mutants`".into());
    }
    let found = Mutant::ALL.into_iter().find(|it| it.name() == name);
    found.ok_or_else(|| format!("there is no mutant `{name}`").into())
}
