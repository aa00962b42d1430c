//! Questions to a server over plain TCP, without any client library.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

/// How long one question may take. A server that is still starting is asked again.
const ANSWER_DEADLINE: Duration = Duration::from_secs(1);

/// Whether a Redis serves, and which.
const QUESTION: &str = "PING\r\nINFO server\r\nQUIT\r\n";

/// The id of the Redis process that serves at `address`, or `None` while none serves.
pub(crate) fn redis_process(address: SocketAddr) -> Option<u32> {
    process_in(&ask_redis(address, QUESTION).ok()?)
}

/// As [`redis_process`], of a server that demands a password of the user `default`.
pub(crate) fn guarded_redis_process(address: SocketAddr, password: &str) -> Option<u32> {
    let answer = ask_redis(address, &format!("AUTH {password}\r\n{QUESTION}")).ok()?;
    process_in(answer.strip_prefix("+OK\r\n")?)
}

fn process_in(answer: &str) -> Option<u32> {
    // While it loads its data, Redis answers PING with an error.
    let rest = answer.strip_prefix("+PONG\r\n")?;
    let line = rest
        .lines()
        .find_map(|line| line.strip_prefix("process_id:"));
    line?.trim().parse().ok()
}

/// Whether a Kafka broker at `address` answers an `ApiVersions` request, the first that any client
/// sends. A broker that accepts connections and cannot serve yet does not.
pub(crate) fn kafka_answers(address: SocketAddr) -> bool {
    // Length, API key 18, version 0, correlation id 7, client id null.
    const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
    // Length (4 bytes), then the correlation id, then the error code: 0.
    let mut answer = [0; 10];
    let asked = connect(address).and_then(|mut stream| {
        stream.write_all(&REQUEST)?;
        stream.read_exact(&mut answer)
    });
    asked.is_ok() && answer[4..] == [0, 0, 0, 7, 0, 0]
}

/// Connects to `host:port` and hangs up.
pub(crate) fn knock(address: &str) -> io::Result<()> {
    let mut refused = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match connect(address) {
            Ok(_) => return Ok(()),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// What was written to `log` behind the first `begin` bytes. Nothing when it cannot be read.
pub(crate) fn log_from(log: &Path, begin: u64) -> String {
    let read = File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::Start(begin))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    String::from_utf8_lossy(&read.unwrap_or_default()).into_owned()
}

/// What a Redis, or a sentinel, says to commands of which the last is `QUIT`.
pub(crate) fn ask_redis(address: SocketAddr, commands: &str) -> io::Result<String> {
    let mut stream = connect(address)?;
    stream.write_all(commands.as_bytes())?;
    // A sentinel does not know `QUIT`, and hangs up when nothing more can come.
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, ANSWER_DEADLINE)?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    stream.set_write_timeout(Some(ANSWER_DEADLINE))?;
    Ok(stream)
}
