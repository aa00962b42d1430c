//! A real Redis: started, disrupted, and still itself. Spoken to over plain TCP.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use polybus_test_support::{Error, RedisServer, unique_name};

/// Sends inline commands and returns the answers, up to the end of the connection.
fn ask(server: &RedisServer, commands: &str) -> std::io::Result<String> {
    let address = server.url().strip_prefix("redis://").unwrap();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(format!("{commands}\r\nQUIT\r\n").as_bytes())?;
    let mut answers = String::new();
    stream.read_to_string(&mut answers)?;
    Ok(answers.trim_end_matches("+OK\r\n").to_owned())
}

/// Its own server, whatever the environment says: these tests disrupt it.
async fn start() -> RedisServer {
    RedisServer::start().await.unwrap()
}

#[tokio::test]
async fn it_serves() {
    assert_eq!(ask(&start().await, "PING").unwrap(), "+PONG\r\n");
}

#[tokio::test]
async fn what_was_written_is_there_after_a_kill() {
    let server = start().await;
    let url = server.url().to_owned();
    let key = unique_name("key");
    assert!(
        ask(&server, &format!("RPUSH {key} a b c"))
            .unwrap()
            .contains(":3")
    );

    server.kill().await.unwrap();
    assert!(ask(&server, "PING").is_err());
    server.restart().await.unwrap();

    assert_eq!(server.url(), url);
    assert_eq!(ask(&server, &format!("LLEN {key}")).unwrap(), ":3\r\n");
}

#[tokio::test]
async fn what_was_written_is_there_after_a_stop_and_a_restart_while_it_runs() {
    let server = start().await;
    ask(&server, "RPUSH list a").unwrap();
    server.stop().await.unwrap();
    assert!(ask(&server, "PING").is_err());
    server.restart().await.unwrap();
    ask(&server, "RPUSH list b").unwrap();
    server.restart().await.unwrap();
    assert_eq!(ask(&server, "LLEN list").unwrap(), ":2\r\n");
}

#[tokio::test]
async fn paused_it_takes_connections_and_does_not_answer() {
    let server = start().await;
    server.pause().await.unwrap();
    let silent = ask(&server, "PING").unwrap_err();
    assert_eq!(silent.kind(), std::io::ErrorKind::WouldBlock, "{silent}");
    server.resume().await.unwrap();
    assert_eq!(ask(&server, "PING").unwrap(), "+PONG\r\n");
}

#[tokio::test]
async fn paused_it_can_be_killed_and_restarted() {
    let server = start().await;
    server.pause().await.unwrap();
    server.kill().await.unwrap();
    server.kill().await.unwrap();
    server.restart().await.unwrap();
    server.pause().await.unwrap();
    server.restart().await.unwrap();
    assert_eq!(ask(&server, "PING").unwrap(), "+PONG\r\n");
}

#[tokio::test]
async fn what_does_not_run_cannot_be_paused_or_resumed() {
    let server = start().await;
    server.kill().await.unwrap();
    let refused = server.pause().await.unwrap_err();
    assert!(matches!(refused, Error::NotRunning { .. }), "{refused}");
    let refused = server.resume().await.unwrap_err();
    assert!(matches!(refused, Error::NotRunning { .. }), "{refused}");
}

#[tokio::test]
async fn servers_of_their_own_do_not_see_one_another() {
    let (one, two) = (start().await, start().await);
    assert_ne!(one.url(), two.url());
    ask(&one, "SET key one").unwrap();
    assert_eq!(ask(&two, "EXISTS key").unwrap(), ":0\r\n");
}

#[tokio::test]
async fn dropped_it_is_gone() {
    let server = start().await;
    let address = server.url().strip_prefix("redis://").unwrap().to_owned();
    drop(server);
    assert!(TcpStream::connect(address).is_err());
}

/// The test runs under two runtimes, of which the first is gone when the second uses the server.
#[test]
fn the_shared_server_is_one_and_outlives_the_runtime_that_started_it() {
    let of_runtime = || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let (one, two) = tokio::join!(RedisServer::shared(), RedisServer::shared());
            assert!(std::ptr::eq(one, two));
            one
        })
    };
    let (first, second) = (of_runtime(), of_runtime());
    assert!(std::ptr::eq(first, second));
    assert_eq!(ask(second, "PING").unwrap(), "+PONG\r\n");
}
