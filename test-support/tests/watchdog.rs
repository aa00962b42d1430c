//! A server ends with the test process, however that ends.
//!
//! Each test runs itself a second time as a child process, which starts servers and tells what they are.
//! Then the child dies in the way that the test is about.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use polybus_test_support::{KafkaServer, RedisServer};
use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process};

/// Set in the child process.
const CHILD: &str = "POLYBUS_TEST_WATCHDOG_CHILD";

/// Begins the line by which the child tells of a server.
const MARK: &str = "SERVER ";

/// After this, what is still there is taken to stay.
const GONE_DEADLINE: Duration = Duration::from_secs(20);

/// What a child tells of a server.
struct Remains {
    address: String,
    directory: PathBuf,
    /// None in a container.
    process: Option<Pid>,
}

#[test]
fn killed_the_test_process_leaves_nothing() {
    if is_child() {
        return run_child(&[redis, kafka], park);
    }
    let (child, servers) = start_child("killed_the_test_process_leaves_nothing", 2);
    kill_process(id_of(&child), Signal::KILL).unwrap();
    check_nothing_is_left(child, &servers);
}

#[test]
fn killed_the_test_process_leaves_no_paused_server() {
    if is_child() {
        return run_child(&[paused_redis, paused_kafka], park);
    }
    let (child, servers) = start_child("killed_the_test_process_leaves_no_paused_server", 2);
    kill_process(id_of(&child), Signal::KILL).unwrap();
    check_nothing_is_left(child, &servers);
}

#[test]
fn killed_the_test_process_leaves_no_restarted_server() {
    if is_child() {
        return run_child(&[restarted_redis], park);
    }
    let (child, servers) = start_child("killed_the_test_process_leaves_no_restarted_server", 1);
    kill_process(id_of(&child), Signal::KILL).unwrap();
    check_nothing_is_left(child, &servers);
}

#[test]
fn ctrl_c_leaves_nothing() {
    if is_child() {
        return run_child(&[redis], park);
    }
    let (child, servers) = start_child("ctrl_c_leaves_nothing", 1);
    // A terminal sends it to the whole group of its foreground process.
    kill_process_group(id_of(&child), Signal::INT).unwrap();
    check_nothing_is_left(child, &servers);
}

#[test]
fn a_panic_leaves_nothing() {
    if is_child() {
        return run_child(&[redis], || panic!("as a failing test does"));
    }
    let (child, servers) = start_child("a_panic_leaves_nothing", 1);
    check_nothing_is_left(child, &servers);
}

#[test]
fn the_end_of_the_tests_leaves_no_shared_server() {
    if is_child() {
        return run_child(&[shared_redis], || ());
    }
    let (child, servers) = start_child("the_end_of_the_tests_leaves_no_shared_server", 1);
    check_nothing_is_left(child, &servers);
}

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Starts the servers, tells of them, then does what the test is about.
fn run_child(servers: &[fn() -> Box<dyn std::any::Any>], end: fn()) {
    let started: Vec<_> = servers.iter().map(|start| start()).collect();
    end();
    drop(started);
}

/// The child is killed in here.
fn park() {
    loop {
        std::thread::park();
    }
}

fn redis() -> Box<dyn std::any::Any> {
    block_on(async {
        let server = RedisServer::start().await.unwrap();
        tell_redis(&server);
        Box::new(server)
    })
}

fn paused_redis() -> Box<dyn std::any::Any> {
    block_on(async {
        let server = RedisServer::start().await.unwrap();
        server.pause().await.unwrap();
        tell_redis(&server);
        Box::new(server)
    })
}

fn restarted_redis() -> Box<dyn std::any::Any> {
    block_on(async {
        let server = RedisServer::start().await.unwrap();
        server.kill().await.unwrap();
        server.restart().await.unwrap();
        tell_redis(&server);
        Box::new(server)
    })
}

fn shared_redis() -> Box<dyn std::any::Any> {
    block_on(async {
        let server = RedisServer::shared().await;
        tell_redis(server);
        Box::new(server)
    })
}

fn kafka() -> Box<dyn std::any::Any> {
    block_on(async {
        let server = KafkaServer::start().await.unwrap();
        tell_kafka(&server);
        Box::new(server)
    })
}

fn paused_kafka() -> Box<dyn std::any::Any> {
    block_on(async {
        let server = KafkaServer::start().await.unwrap();
        server.pause().await.unwrap();
        tell_kafka(&server);
        Box::new(server)
    })
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(work)
}

fn tell_redis(server: &RedisServer) {
    let address = server.url().strip_prefix("redis://").unwrap();
    tell(address, server.directory(), server.process_id());
}

fn tell_kafka(server: &KafkaServer) {
    tell(server.brokers(), server.directory(), server.process_id());
}

fn tell(address: &str, directory: Option<PathBuf>, process: Option<u32>) {
    let directory = directory.unwrap();
    let process = process.unwrap_or(0);
    println!("\n{MARK}{address} {process} {}", directory.display());
}

/// Runs `test` in a child process that leads a group of its own, up to where its servers are told of.
fn start_child(test: &str, servers: usize) -> (Child, Vec<Remains>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let told = lines.map_while(Result::ok).filter_map(|line| {
        let line = line.strip_prefix(MARK)?.to_owned();
        let mut fields = line.splitn(3, ' ').map(str::to_owned);
        Some(Remains {
            address: fields.next()?,
            process: Pid::from_raw(fields.next()?.parse().ok()?),
            directory: fields.next()?.into(),
        })
    });
    let told: Vec<_> = told.take(servers).collect();
    assert_eq!(
        told.len(),
        servers,
        "the child ended before its servers were ready"
    );
    (child, told)
}

fn check_nothing_is_left(mut child: Child, servers: &[Remains]) {
    child.wait().unwrap();
    for server in servers {
        wait_until("the server's process", || {
            server.process.is_none_or(is_gone)
        });
        wait_until("the server's port", || {
            TcpStream::connect(&server.address).is_err()
        });
        wait_until("the server's directory", || !server.directory.exists());
    }
}

fn wait_until(what: &str, gone: impl Fn() -> bool) {
    let begin = Instant::now();
    while !gone() {
        assert!(begin.elapsed() < GONE_DEADLINE, "{what} is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a process has ended. One that nobody has waited for yet, as in a container without an init,
/// has ended too.
fn is_gone(process: Pid) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    let ended = state.is_ok_and(|state| {
        state
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" Z"))
    });
    ended || test_kill_process(process).is_err()
}

fn id_of(child: &Child) -> Pid {
    Pid::from_child(child)
}
