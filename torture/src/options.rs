//! What a run is asked for.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::Failure;
use crate::nemesis::Fault;
use crate::task::{Durability, Kind, Mutant};

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
                            poison deadly malformed
                            on redis: oom wipe
  --consumers N             default: 3
  --keys N                  default: 50
  --rate N                  events a second; default: 500
  --partitions N            of the topic (kafka); default: 4
  --idempotency on|off      each event is handled once; default: off
  --copies on|off           handlers publish a copy of each event in one step with its
                            acknowledgement (kafka); default: off
  --durability always|everysec|none
                            what the server keeps when it is killed (redis); default: always
  --sentinels on|off        a primary, a replica and three sentinels (redis); default: off
  --brokers 1|3             nodes of the server (kafka); default: 1
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
    pub(crate) partitions: u32,
    pub(crate) idempotency: bool,
    pub(crate) copies: bool,
    pub(crate) durability: Durability,
    pub(crate) brokers: usize,
    pub(crate) sentinels: bool,
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
            partitions: 4,
            idempotency: false,
            copies: false,
            durability: Durability::Always,
            brokers: 1,
            sentinels: false,
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
            None => Fault::all(options.kind)
                .into_iter()
                .filter(|fault| !(options.sentinels && fault.needs_proxy()))
                .collect(),
            Some("none") => Vec::new(),
            Some(list) => list
                .split(',')
                .map(Fault::parse)
                .collect::<Result<_, _>>()?,
        };
        options.check()?;
        if options.directory.as_os_str().is_empty() {
            options.directory = PathBuf::from(format!("target/torture/{}", options.seed));
        }
        Ok(options)
    }

    fn check(&self) -> Result<(), Failure> {
        if self.sentinels && self.faults.iter().any(|fault| fault.needs_proxy()) {
            return Err("sentinels send clients past the proxy: no faults of the network".into());
        }
        match self.kind {
            Kind::Kafka if self.sentinels => Err("--sentinels is for redis".into()),
            Kind::Redis if self.copies => {
                Err("--copies needs kafka: Redis has no exactly-once subscriptions".into())
            }
            Kind::Redis if self.brokers > 1 => Err("--brokers is for kafka".into()),
            Kind::Kafka if self.durability != Durability::Always => {
                Err("--durability is for redis".into())
            }
            _ if self.copies && self.idempotency => {
                Err("--copies and --idempotency are two ways to the same".into())
            }
            _ => Ok(()),
        }
    }

    /// Whether the server may lose what it answered for: then the loss is counted, and no fault.
    pub(crate) fn may_lose(&self) -> bool {
        self.durability != Durability::Always
            || self.sentinels
            || self.faults.contains(&Fault::Wipe)
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
            "--partitions" => self.partitions = value.parse()?,
            "--idempotency" => self.idempotency = switch(value)?,
            "--copies" => self.copies = switch(value)?,
            "--sentinels" => self.sentinels = switch(value)?,
            "--brokers" => self.brokers = brokers(value)?,
            "--durability" => self.durability = durability(value)?,
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

fn switch(value: &str) -> Result<bool, Failure> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        other => Err(format!("`{other}` is neither on nor off").into()),
    }
}

fn brokers(value: &str) -> Result<usize, Failure> {
    match value {
        "1" => Ok(1),
        "3" => Ok(3),
        other => Err(format!("{other} brokers: there can be 1 or 3").into()),
    }
}

fn durability(value: &str) -> Result<Durability, Failure> {
    match value {
        "always" => Ok(Durability::Always),
        "everysec" => Ok(Durability::Everysec),
        "none" => Ok(Durability::None),
        other => Err(format!("there is no durability `{other}`; see --help").into()),
    }
}

fn mutant(name: &str) -> Result<Mutant, Failure> {
    if cfg!(not(feature = "mutants")) {
        return Err("mutants need the feature `mutants`".into());
    }
    let found = Mutant::ALL.into_iter().find(|it| it.name() == name);
    found.ok_or_else(|| format!("there is no mutant `{name}`").into())
}
