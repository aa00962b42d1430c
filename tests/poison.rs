//! An event that ends the process of whoever handles it, on real servers, with real processes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use polybus::{Bus, Config, ErrorKind, Event, FailureKind, Letter, RawEvent, State};
use polybus_test_support::{KafkaServer, RedisServer, unique_name};
use tokio::time::{Instant, sleep};

const MAX_ATTEMPTS: usize = 3;

/// How long one process may take to die or to put the event away. Members that died are missed
/// after seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a child finds its config, and the journal that outlives it.
const CONFIG: &str = "POLYBUS_TEST_POISON_CONFIG";
const JOURNAL: &str = "POLYBUS_TEST_POISON_JOURNAL";

struct Scene {
    config: String,
    topic: String,
    journal: PathBuf,
    _directory: tempfile::TempDir,
}

impl Scene {
    fn new(transport: &str) -> Self {
        let topic = unique_name("poison");
        let config = format!(
            r#"
            [service]
            name = "{topic}-group"
            [transports.server]
            {transport}
            [[routes]]
            pattern = "work.*"
            transport = "server"
            topic = "{topic}"
            [subscriptions.worker]
            concurrency = 8
            takeover_after = "1s"
            retry = {{ max_attempts = {MAX_ATTEMPTS}, base = "10ms", max = "10ms" }}
            "#
        );
        let directory = tempfile::tempdir().unwrap();
        let journal = directory.path().join("journal");
        Self {
            config,
            topic,
            journal,
            _directory: directory,
        }
    }

    async fn bus(&self) -> Bus {
        let config = Config::parse(&self.config, "polybus.toml").unwrap();
        Bus::builder().config(config).build().await.unwrap()
    }

    /// This test program once more, as a worker.
    fn worker(&self) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "worker", "--nocapture"])
            .env(CONFIG, &self.config)
            .env(JOURNAL, &self.journal)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    async fn letters(&self, bus: &Bus) -> Vec<Letter> {
        let topic = format!("{}.dlq", self.topic);
        match bus.dead_letters(topic).list().await {
            Ok(letters) => letters,
            Err(error) if error.kind() == ErrorKind::TopicNotFound => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    }

    fn lines(&self, start: &str) -> Vec<String> {
        let journal = std::fs::read_to_string(&self.journal).unwrap_or_default();
        let of = journal.lines().filter_map(|line| line.strip_prefix(start));
        of.map(str::to_owned).collect()
    }
}

/// What a worker did.
enum Outcome {
    Died(ExitStatus),
    PutAway,
}

async fn work(scene: &Scene, bus: &Bus) -> Outcome {
    let mut worker = scene.worker();
    let started = Instant::now();
    loop {
        if let Some(status) = worker.try_wait().unwrap() {
            return Outcome::Died(status);
        }
        if !scene.letters(bus).await.is_empty() {
            // It leaves in good order when nobody writes to it any more.
            drop(worker.stdin.take());
            assert!(worker.wait().unwrap().success());
            return Outcome::PutAway;
        }
        assert!(
            started.elapsed() < PATIENCE,
            "neither dead nor done: {:?}",
            scene.lines("")
        );
        sleep(Duration::from_millis(50)).await;
    }
}

async fn an_event_that_ends_its_process_is_put_away(transport: &str) {
    let scene = Scene::new(transport);
    let bus = scene.bus().await;
    bus.topics().ensure().await.unwrap();
    let others: BTreeSet<String> = (0..40).map(|number| format!("good-{number}")).collect();
    let mut ids: Vec<&str> = others.iter().map(String::as_str).collect();
    ids.insert(20, "poison");
    let events = ids
        .iter()
        .map(|id| Event::builder("work.todo").id(*id).key(*id));
    for outcome in bus.publish_all(events).await {
        assert!(outcome.is_accepted());
    }
    let mut deaths = 0;
    while let Outcome::Died(status) = work(&scene, &bus).await {
        deaths += 1;
        assert!(!status.success(), "a worker ended by itself");
        assert!(deaths <= MAX_ATTEMPTS + 1, "{:?}", scene.lines(""));
    }
    assert_eq!(deaths, MAX_ATTEMPTS + 1, "each start of it is a death");
    let starts = scene.lines("start ");
    assert_eq!(starts.iter().filter(|id| *id == "poison").count(), deaths);

    let letters = scene.letters(&bus).await;
    assert_eq!(letters.len(), 1, "nothing that ran or waited beside it");
    assert_eq!(letters[0].event().unwrap().id(), "poison");
    let from = letters[0].provenance();
    assert_eq!(from.kind, Some(FailureKind::ProcessEnded));
    assert!(from.attempts as usize >= MAX_ATTEMPTS, "{}", from.attempts);

    // The others are done, by whoever it was.
    let mut worker = scene.worker();
    let started = Instant::now();
    while scene.lines("done ").into_iter().collect::<BTreeSet<_>>() != others {
        let letters = scene.letters(&bus).await;
        assert_eq!(letters.len(), 1, "{letters:?} {:?}", scene.lines(""));
        assert!(started.elapsed() < PATIENCE, "{:?}", scene.lines(""));
        sleep(Duration::from_millis(50)).await;
    }
    drop(worker.stdin.take());
    assert!(worker.wait().unwrap().success());
    assert_eq!(scene.letters(&bus).await.len(), 1);
    bus.close("10s").await.unwrap().into_result().unwrap();
}

#[tokio::test]
async fn redis_streams() {
    let redis = RedisServer::shared().await;
    let url = format!("kind = \"redis-streams\"\nurl = \"{}\"", redis.url());
    an_event_that_ends_its_process_is_put_away(&url).await;
}

#[tokio::test]
async fn kafka() {
    let kafka = KafkaServer::shared().await;
    let brokers = format!(
        "kind = \"kafka\"\nbrokers = [\"{}\"]\nsession_timeout = \"6s\"",
        kafka.brokers()
    );
    an_event_that_ends_its_process_is_put_away(&brokers).await;
}

/// One write for each line, so that it outlives an abort.
fn note(journal: &Path, line: &str) {
    let file = OpenOptions::new().create(true).append(true).open(journal);
    file.unwrap().write_all(line.as_bytes()).unwrap();
}

async fn handle(RawEvent(event): RawEvent, State(journal): State<PathBuf>) {
    note(&journal, &format!("start {}\n", event.id()));
    if event.id() == "poison" {
        std::process::abort();
    }
    sleep(Duration::from_millis(5)).await;
    note(&journal, &format!("done {}\n", event.id()));
}

/// The worker that the tests above start.
#[tokio::test]
#[ignore = "started by the other tests, as a process of its own"]
async fn worker() {
    let config = std::env::var(CONFIG).expect("started by the other tests");
    let journal = PathBuf::from(std::env::var(JOURNAL).unwrap());
    let config = Config::parse(&config, "polybus.toml").unwrap();
    let bus = Bus::builder().config(config).build().await.unwrap();
    let subscription = bus.subscribe("worker").state(journal);
    subscription.on_any(handle).start().await.unwrap();
    let told = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    told.await.unwrap().unwrap();
    bus.close("10s").await.unwrap().into_result().unwrap();
}
