//! One run: starts everything, lets the nemesis rage, waits until all is handled, asks the judge.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, interval, sleep};

use crate::Failure;
use crate::children::Role;
use crate::journal::{self, Journal, Step};
use crate::judge;
use crate::nemesis;
use crate::options::Options;
use crate::report::Verdict;
use crate::server::Server;
use crate::task::{Kind, Task};

/// How long the processes may take to begin.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How often the run is looked at.
const LOOK: Duration = Duration::from_millis(500);

pub(crate) const GROUP: &str = "torture";

/// Where what comes of the events goes.
pub(crate) const COPIES: &str = "torture-copies";

/// The stage of a run, as the nemesis sees it.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) kind: Kind,
    pub(crate) topic: String,
    pub(crate) server: Server,
    pub(crate) producer: Role,
    pub(crate) consumers: Vec<Role>,
    /// Consumers that are to stay down until the window is over, and that are halted.
    pub(crate) down: Vec<usize>,
    pub(crate) halted: Vec<usize>,
    pub(crate) producer_down: bool,
    journal: Journal,
}

/// Runs and judges.
pub(crate) async fn run(options: &Options) -> Result<Verdict, Failure> {
    eprintln!(
        "seed {}, journals in {}",
        options.seed,
        options.directory.display()
    );
    prepare(&options.directory)?;
    let mut stage = Stage::set(options).await?;
    nemesis::rage(&mut stage, options).await?;
    stage.drain(options.drain_within).await?;
    judge::judge(options, &stage.server, &stage.topic).await
}

fn prepare(directory: &Path) -> Result<(), Failure> {
    if directory.exists() {
        std::fs::remove_dir_all(directory)?;
    }
    std::fs::create_dir_all(directory)?;
    Ok(())
}

impl Stage {
    async fn set(options: &Options) -> Result<Self, Failure> {
        let server = Server::start(options).await?;
        let topic = "torture-events".to_owned();
        server.create_topic(&topic).await?;
        let copies = options.copies.then(|| COPIES.to_owned());
        if let Some(copies) = &copies {
            server.create_topic(copies).await?;
        }
        let task = Task {
            directory: options.directory.clone(),
            kind: options.kind,
            address: server.address(),
            direct: server.direct(),
            topic: topic.clone(),
            partitions: options.partitions,
            store: server.store(),
            copies,
            slot: 0,
            life: 0,
            keys: options.keys,
            rate: options.rate,
            poison: false,
            deadly: false,
            crash: None,
            mutant: options.mutant,
        };
        let consumer = |slot| {
            Role::new(
                "consumer",
                Task {
                    slot,
                    ..task.clone()
                },
            )
        };
        let mut stage = Self {
            kind: options.kind,
            topic,
            producer: Role::new("producer", task.clone()),
            consumers: (0..options.consumers).map(consumer).collect(),
            down: Vec::new(),
            halted: Vec::new(),
            producer_down: false,
            journal: Journal::open(&options.directory, "conductor")?,
            server,
        };
        stage.producer.start(None)?;
        // A group that begins anywhere but at the beginning misses something.
        sleep(4 * LOOK).await;
        for consumer in &mut stage.consumers {
            consumer.start(None)?;
        }
        stage.all_ready(&options.directory).await?;
        Ok(stage)
    }

    /// Waits until every process is at work: what is broken before that shows nothing.
    async fn all_ready(&self, directory: &Path) -> Result<(), Failure> {
        let end = Instant::now() + READY_WITHIN;
        while Instant::now() < end {
            let journals = journal::read(directory, "")?;
            let lines = journals.iter().flat_map(|(_, lines)| lines);
            let ready = lines.filter(|line| line.step == Step::Ready).count();
            if ready > self.consumers.len() {
                return Ok(());
            }
            sleep(LOOK).await;
        }
        Err("the processes did not begin in time".into())
    }

    pub(crate) fn note(&self, step: Step) {
        self.journal.note(step);
    }

    /// Looks at the run until a point in time: children that ended are started again, the group's
    /// progress and the children's sizes are noted.
    pub(crate) async fn watch_until(&mut self, end: Instant) -> Result<(), Failure> {
        let mut looks = interval(LOOK);
        while Instant::now() < end {
            looks.tick().await;
            for index in 0..self.consumers.len() {
                if !self.down.contains(&index) {
                    self.consumers[index].revive(&self.journal)?;
                }
            }
            if !self.producer_down {
                self.producer.revive(&self.journal)?;
            }
            for role in self.consumers.iter().chain([&self.producer]) {
                role.measure(&self.journal);
            }
            self.look().await;
        }
        Ok(())
    }

    /// Notes how far the group is, if the server says so in time: it may be away.
    async fn look(&self) -> Option<u64> {
        let settled = self.server.settled(&self.topic, GROUP);
        let steps = tokio::time::timeout(LOOK, settled).await.ok()?.ok()?;
        let lag = match steps.first()? {
            Step::Committed { lag, .. } | Step::Acknowledged { lag, .. } => Some(*lag),
            _ => None,
        };
        for step in steps {
            self.note(step);
        }
        lag
    }

    /// Ends a consumer in good order. That it does not is noted as a death.
    pub(crate) async fn stop_consumer(&mut self, index: usize) -> Result<(), Failure> {
        let in_order = self.consumers[index].stop().await?;
        self.note_end(in_order, self.consumers[index].name());
        Ok(())
    }

    pub(crate) async fn stop_producer(&mut self) -> Result<(), Failure> {
        let in_order = self.producer.stop().await?;
        self.note_end(in_order, self.producer.name());
        Ok(())
    }

    fn note_end(&self, in_order: bool, role: String) {
        if !in_order {
            let status = "did not end in good order".to_owned();
            self.note(Step::Died { role, status });
        }
    }

    /// Lets the producer make poison from now on, or no more.
    pub(crate) async fn poison(&mut self, poison: bool) -> Result<(), Failure> {
        self.stop_producer().await?;
        self.producer.set_poison(poison);
        self.producer.start(None)
    }

    /// Lets the producer make one event that ends every process that handles it.
    pub(crate) async fn deadly(&mut self) -> Result<(), Failure> {
        self.stop_producer().await?;
        self.producer.set_deadly(true);
        self.producer.start(None)?;
        self.producer.set_deadly(false);
        Ok(())
    }

    /// Waits until everything is handled, then ends everything in good order.
    async fn drain(&mut self, within: Duration) -> Result<(), Failure> {
        eprintln!("drain");
        self.stop_producer().await?;
        self.producer_down = true;
        let end = Instant::now() + within;
        let mut in_time = false;
        while !in_time && Instant::now() < end {
            self.watch_until(Instant::now() + LOOK).await?;
            in_time = self.look().await == Some(0);
        }
        self.note(Step::Drained { in_time });
        for index in 0..self.consumers.len() {
            self.stop_consumer(index).await?;
        }
        Ok(())
    }
}
