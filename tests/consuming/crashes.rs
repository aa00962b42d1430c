//! Members and servers that end without a word.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use polybus::{Batch, Bus, Config, Payload, State};
use polybus_test_support::{KafkaServer, RedisServer};

use super::place::{
    Doubled, Handled, PATIENCE, Place, TRANSPORTS, Work, publish, subscribe, wait_for_error,
};
use super::poison::busy_for;

/// Tells the member's process its config, whether it handles batches, and where it notes what it
/// handled.
const CONFIG: &str = "POLYBUS_TEST_MEMBER_CONFIG";
const BATCHES: &str = "POLYBUS_TEST_MEMBER_BATCHES";
const JOURNAL: &str = "POLYBUS_TEST_MEMBER_JOURNAL";

async fn take(Payload(work): Payload<Work>, State(handled): State<Handled>) {
    handled.note(&work);
}

/// Handles one event after the other, slowly, and appends each to a file.
async fn note_in_file(Payload(work): Payload<Work>, State(journal): State<PathBuf>) {
    append(&journal, &work).await;
}

/// The same with batches, which a kill finds half done.
async fn note_batch_in_file(batch: Batch<Work>, State(journal): State<PathBuf>) {
    for entry in batch {
        append(&journal, &entry.payload).await;
    }
}

async fn append(journal: &std::path::Path, work: &Work) {
    use std::io::Write;
    busy_for(Duration::from_millis(5)).await;
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(journal)
        .unwrap();
    file.write_all(format!("{} {}\n", work.key, work.number).as_bytes())
        .unwrap();
}

/// The program that other tests kill.
#[test]
#[ignore = "a member that other tests start as a process of its own, and kill"]
fn member() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let text = std::env::var(CONFIG).expect("started by a test");
        let journal = PathBuf::from(std::env::var(JOURNAL).expect("started by a test"));
        let config = Config::parse(&text, "polybus.toml").unwrap();
        let bus = Bus::builder().config(config).build().await.unwrap();
        let subscription = bus.subscribe("s").state(journal);
        let subscription = match std::env::var_os(BATCHES) {
            Some(_) => subscription.on_batch(note_batch_in_file).batch(25, "50ms"),
            None => subscription.on(note_in_file),
        };
        subscription.start().await.unwrap();
        std::future::pending::<()>().await;
    });
}

struct Member(Child);

impl Member {
    fn start(place: &Place, journal: &std::path::Path, batches: bool) -> Self {
        let program = std::env::current_exe().unwrap();
        let child = Command::new(program)
            .envs(batches.then_some((BATCHES, "yes")))
            .args(["crashes::member", "--exact", "--ignored", "--nocapture"])
            .env(CONFIG, &place.text)
            .env(JOURNAL, journal)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Member {
    /// SIGKILL: nothing is settled or said any more.
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn journal_of(file: &std::path::Path) -> Vec<Work> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let work = |line: &str| {
        let (key, number) = line.split_once(' ')?;
        Some(Work {
            key: key.to_owned(),
            number: number.parse().ok()?,
        })
    };
    text.lines().filter_map(work).collect()
}

async fn wait_for_lines(file: &std::path::Path, lines: usize) {
    let waiting = async {
        while journal_of(file).len() < lines {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("the member handles events");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_member_had_comes_to_the_next_one() {
    let both = TRANSPORTS.map(|transport| kill_members(transport, false));
    futures::future::join_all(both).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_member_had_that_was_killed_within_a_batch_comes_to_the_next_one() {
    let both = TRANSPORTS.map(|transport| kill_members(transport, true));
    futures::future::join_all(both).await;
}

async fn kill_members(transport: &'static str, batches: bool) {
    let settings = "takeover_after = '2s'\nconcurrency = 4\n";
    let place = Place::shared(transport, settings).await;
    let directory = tempfile::tempdir().unwrap();
    let journal = directory.path().join("journal");
    let bus = place.bus().await;
    publish(&bus, 8, 0..50).await;
    for killed in 1..=2 {
        let member = Member::start(&place, &journal, batches);
        wait_for_lines(&journal, 60 * killed).await;
        drop(member);
    }
    let handled = Handled::default();
    for work in journal_of(&journal) {
        handled.note(&work);
    }
    let before = handled.total();
    assert!(before < 400, "the members were killed in the middle");
    subscribe(&bus, handled.clone(), take).await;
    place.wait_until_done(&bus).await;
    handled.assert_all(8, 0..50, Doubled::AfterCrash);
    place.close(bus).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_started_again_loses_nothing_and_the_subscription_goes_on() {
    let redis = async {
        let server = RedisServer::start().await.unwrap();
        let place = Place::on("redis", server.url(), "takeover_after = '2s'\n").await;
        let restart = async || {
            server.kill().await.unwrap();
            server.restart().await.unwrap();
        };
        handle_across(&place, restart).await;
    };
    let kafka = async {
        let server = KafkaServer::start().await.unwrap();
        let place = Place::on("kafka", server.brokers(), "").await;
        let restart = async || {
            server.kill().await.unwrap();
            server.restart().await.unwrap();
        };
        handle_across(&place, restart).await;
    };
    tokio::join!(redis, kafka);
}

async fn handle_across(place: &Place, restart: impl AsyncFn()) {
    let bus = place.bus().await;
    let handled = Handled::default();
    let subscription = subscribe(&bus, handled.clone(), slowly).await;
    publish(&bus, 8, 0..100).await;
    handled.wait_for(100).await;
    restart().await;
    publish(&bus, 8, 100..120).await;
    place.wait_until_done(&bus).await;
    handled.assert_all(8, 0..120, Doubled::Again);
    assert_eq!(
        subscription.status().state,
        polybus::SubscriptionState::Running
    );
    wait_for_error(&subscription).await;
    place.close(bus).await;
}

async fn slowly(Payload(work): Payload<Work>, State(handled): State<Handled>) {
    busy_for(Duration::from_millis(5)).await;
    handled.note(&work);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_wiped_under_a_subscription_is_read_on() {
    let server = RedisServer::start().await.unwrap();
    let place = Place::on("redis", server.url(), "").await;
    let bus = place.bus().await;
    let handled = Handled::default();
    let subscription = subscribe(&bus, handled.clone(), take).await;
    publish(&bus, 4, 0..10).await;
    handled.wait_for(40).await;
    let client = redis::Client::open(server.url()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("FLUSHALL").exec_async(&mut redis).await.unwrap();
    // Published at once, before the subscription has noticed.
    publish(&bus, 4, 10..20).await;
    handled.wait_for(80).await;
    place.wait_until_done(&bus).await;
    handled.assert_all(4, 0..20, Doubled::Never);
    let error = wait_for_error(&subscription).await;
    assert!(error.contains("created again"), "{error}");
    place.close(bus).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_trims_while_a_member_has_it_is_in_the_counts() {
    let place = Place::shared("redis", "takeover_after = '1s'").await;
    let bus = place.bus().await;
    publish(&bus, 1, 0..10).await;
    let url = RedisServer::shared().await.url();
    let client = redis::Client::open(url).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let (topic, group) = (place.topic.as_str(), place.group.as_str());
    for command in [
        redis::cmd("XGROUP").arg(&["CREATE", topic, group, "0"]),
        redis::cmd("XREADGROUP").arg(&["GROUP", group, "gone", "STREAMS", topic, ">"]),
        redis::cmd("XTRIM").arg(&[topic, "MAXLEN", "4"]),
    ] {
        command.exec_async(&mut redis).await.unwrap();
    }

    let handled = Handled::default();
    let subscription = subscribe(&bus, handled.clone(), take).await;
    handled.wait_for(4).await;
    place.wait_until_done(&bus).await;
    assert_eq!(handled.by_key()["key-0"], [6, 7, 8, 9]);
    assert_eq!(subscription.status().counts.deleted, 6);
    place.close(bus).await;
}
