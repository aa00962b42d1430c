//! The proxy breaks connections as it is told, and no others.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::ErrorKind;
use std::time::Duration;

use polybus_test_support::{RedisServer, Request, Strike, TcpProxy, Then, unique_name};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that says everything back.
struct Echo {
    address: String,
    task: JoinHandle<()>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    // An error: the test has cut the connection.
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        Self { address, task }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connect(proxy: &TcpProxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

/// Says something and waits for as much of an answer, or for the end.
async fn say(stream: &mut TcpStream, text: &str) -> Result<String, ErrorKind> {
    let exchange = async {
        stream.write_all(text.as_bytes()).await?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8(answer).unwrap())
    };
    timeout(PATIENCE, exchange)
        .await
        .expect("an answer or an end")
        .map_err(|error| error.kind())
}

fn check_broken(answer: &Result<String, ErrorKind>) {
    assert!(
        matches!(
            answer,
            Err(ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe)
        ),
        "{answer:?}"
    );
}

#[tokio::test]
async fn it_passes_on_what_both_sides_say_and_their_ends() {
    let echo = Echo::start().await;
    let proxy = TcpProxy::in_front_of(&echo.address).await.unwrap();
    let mut stream = connect(&proxy).await;
    assert_eq!(say(&mut stream, "hello").await.unwrap(), "hello");
    stream.write_all(b"last words").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "last words");
}

#[tokio::test]
async fn a_cut_ends_connections_old_and_new_until_it_is_mended() {
    let echo = Echo::start().await;
    let proxy = TcpProxy::in_front_of(&echo.address).await.unwrap();
    let mut old = connect(&proxy).await;
    assert_eq!(say(&mut old, "hello").await.unwrap(), "hello");
    proxy.cut();
    check_broken(&say(&mut old, "hello").await);
    check_broken(&say(&mut connect(&proxy).await, "hello").await);
    proxy.mend();
    assert_eq!(
        say(&mut connect(&proxy).await, "again").await.unwrap(),
        "again"
    );
    check_broken(&say(&mut old, "hello").await);
}

#[tokio::test]
async fn a_reset_ends_what_there_is_and_nothing_later() {
    let echo = Echo::start().await;
    let proxy = TcpProxy::in_front_of(&echo.address).await.unwrap();
    let mut old = connect(&proxy).await;
    assert_eq!(say(&mut old, "hello").await.unwrap(), "hello");
    proxy.reset();
    let mut new = connect(&proxy).await;
    assert_eq!(say(&mut new, "again").await.unwrap(), "again");
    check_broken(&say(&mut old, "hello").await);
    assert_eq!(say(&mut new, "still").await.unwrap(), "still");
}

#[tokio::test]
async fn half_open_connections_stay_and_say_nothing() {
    let echo = Echo::start().await;
    let proxy = TcpProxy::in_front_of(&echo.address).await.unwrap();
    let mut old = connect(&proxy).await;
    assert_eq!(say(&mut old, "hello").await.unwrap(), "hello");
    proxy.half_open();
    let mut new = connect(&proxy).await;
    for stream in [&mut old, &mut new] {
        stream.write_all(b"anybody?").await.unwrap();
        let mut byte = [0];
        let silence = timeout(Duration::from_millis(100), stream.read(&mut byte)).await;
        assert!(silence.is_err(), "{silence:?}");
    }
    proxy.mend();
    check_broken(&say(&mut old, "hello").await);
    check_broken(&say(&mut new, "hello").await);
    assert_eq!(
        say(&mut connect(&proxy).await, "again").await.unwrap(),
        "again"
    );
}

#[tokio::test]
async fn a_delay_holds_what_is_said_and_loses_nothing() {
    let echo = Echo::start().await;
    let proxy = TcpProxy::in_front_of(&echo.address).await.unwrap();
    let mut stream = connect(&proxy).await;
    proxy.delay(Duration::from_secs(600));
    stream.write_all(b"hello").await.unwrap();
    let mut byte = [0];
    let silence = timeout(Duration::from_millis(50), stream.read(&mut byte)).await;
    assert!(silence.is_err(), "{silence:?}");
    // What is held already stays held; what comes now is not.
    proxy.mend();
    let mut new = connect(&proxy).await;
    assert_eq!(say(&mut new, "hello").await.unwrap(), "hello");
    proxy.delay(Duration::from_millis(1));
    assert_eq!(say(&mut new, "hello").await.unwrap(), "hello");
}

#[tokio::test]
async fn a_lost_request_never_reaches_the_server() {
    let redis = RedisServer::shared().await;
    let proxy = TcpProxy::in_front_of(redis.url()).await.unwrap();
    let key = unique_name("key");
    let struck = proxy.strike(Request::Containing(b"SET"), Strike::LoseRequest, Then::GoOn);
    check_broken(&say(&mut connect(&proxy).await, &format!("SET {key} v\r\n")).await);
    struck.happened().await;
    let question = format!("EXISTS {key}\r\n");
    let mut stream = connect(&proxy).await;
    stream.write_all(question.as_bytes()).await.unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b":0\r\n");
}

#[tokio::test]
async fn a_lost_reply_is_to_a_request_that_was_carried_out() {
    let redis = RedisServer::shared().await;
    let proxy = TcpProxy::in_front_of(redis.url()).await.unwrap();
    let key = unique_name("key");
    let struck = proxy.strike(
        Request::Containing(b"SET"),
        Strike::LoseReply,
        Then::StayCut,
    );
    let mut stream = connect(&proxy).await;
    // What does not match is answered.
    stream.write_all(b"PING\r\n").await.unwrap();
    let mut pong = [0; 7];
    stream.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"+PONG\r\n");
    check_broken(&say(&mut stream, &format!("SET {key} v\r\n")).await);
    struck.happened().await;
    check_broken(&say(&mut connect(&proxy).await, "PING\r\n").await);
    proxy.mend();
    let mut stream = connect(&proxy).await;
    stream
        .write_all(format!("EXISTS {key}\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b":1\r\n");
}

#[tokio::test]
async fn a_broken_reply_ends_after_so_many_bytes() {
    let echo = Echo::start().await;
    let proxy = TcpProxy::in_front_of(&echo.address).await.unwrap();
    let struck = proxy.strike(Request::Any, Strike::BreakReply(3), Then::GoOn);
    let mut stream = connect(&proxy).await;
    stream.write_all(b"hello").await.unwrap();
    let mut bytes = [0; 3];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"hel");
    check_broken(&say(&mut stream, "more").await);
    struck.happened().await;
}

#[tokio::test]
async fn without_a_server_connections_are_reset() {
    let proxy = TcpProxy::start().await.unwrap();
    check_broken(&say(&mut connect(&proxy).await, "hello").await);
}
