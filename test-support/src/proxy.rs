//! A proxy between clients and a server, which breaks connections as it is told.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::error::Error;
use crate::proxy_strike::{Plan, Sight};

/// How much is passed on at once.
const CHUNK: usize = 64 * 1024;

/// A TCP proxy on 127.0.0.1 that breaks connections when a test tells it to.
///
/// It passes everything on until then. What it does is decided by calls, never by time or chance:
/// [`cut`](Self::cut), [`half_open`](Self::half_open), [`delay`](Self::delay),
/// [`reset`](Self::reset), [`strike`](Self::strike), and [`mend`](Self::mend) to end them.
///
/// Its tasks run on the runtime that it was started on, and end when it is dropped.
///
/// ```no_run
/// # async fn example() -> Result<(), polybus_test_support::Error> {
/// use polybus_test_support::{RedisServer, Request, Strike, TcpProxy, Then};
///
/// let redis = RedisServer::start().await?;
/// let proxy = TcpProxy::in_front_of(redis.url()).await?;
/// // The next XADD is carried out, and the client never hears of it.
/// let struck = proxy.strike(Request::Containing(b"XADD"), Strike::LoseReply, Then::GoOn);
/// // ... the client publishes to proxy.address() ...
/// struck.happened().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// What the connections of a proxy look at.
#[derive(Debug)]
pub(crate) struct Shared {
    /// `host:port` of the server, when it is known.
    server: Mutex<Option<String>>,
    network: watch::Sender<Network>,
    plan: Mutex<Option<Plan>>,
}

/// How the network is between client and server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    state: State,
    delay: Duration,
    /// Connections from before the last one are reset.
    resets: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    Cut,
    HalfOpen,
}

/// The request that a [strike](TcpProxy::strike) waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// The next one, whatever it is.
    Any,
    /// The next that contains these bytes, at least one.
    Containing(&'static [u8]),
    /// The next request of Kafka's protocol with this number (`api_key`): 0 is Produce.
    Kafka(u16),
}

/// What a [strike](TcpProxy::strike) does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Strike {
    /// The server never gets the request: the connection is reset instead of passing it on.
    LoseRequest,
    /// The server gets the request and answers, and the connection is reset instead of passing the
    /// answer on.
    LoseReply,
    /// As `LoseReply`, after so many bytes of the answer.
    BreakReply(usize),
}

/// How it goes on after a [strike](TcpProxy::strike).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Then {
    /// New connections are passed on.
    GoOn,
    /// As after [`cut`](TcpProxy::cut).
    StayCut,
}

/// A strike that was ordered.
#[derive(Debug)]
pub struct Struck(oneshot::Receiver<()>);

impl Struck {
    /// Waits until it has happened.
    ///
    /// # Panics
    ///
    /// If another strike was ordered before it happened, or the proxy is gone.
    pub async fn happened(self) {
        self.0
            .await
            .expect("the strike was not taken back before it happened");
    }
}

impl TcpProxy {
    /// Starts a proxy whose server is told [later](Self::set_server). Until then it resets every
    /// connection.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when there is no port to listen on.
    pub async fn start() -> Result<Self, Error> {
        let doing = || Error::io("listen as a proxy");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(doing())?;
        let address = listener.local_addr().map_err(doing())?;
        let network = Network {
            state: State::Up,
            delay: Duration::ZERO,
            resets: 0,
        };
        let shared = Arc::new(Shared {
            server: Mutex::default(),
            network: watch::Sender::new(network),
            plan: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            accepting,
        })
    }

    /// Starts a proxy in front of a server: `host:port`, or a URL that has it behind `//`.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn in_front_of(server: &str) -> Result<Self, Error> {
        let proxy = Self::start().await?;
        proxy.set_server(server);
        Ok(proxy)
    }

    /// Where new connections are passed on to: `host:port`, or a URL that has it behind `//`.
    pub fn set_server(&self, server: &str) {
        let address = server.split_once("//").map_or(server, |(_, rest)| rest);
        let address = address.rsplit_once('@').map_or(address, |(_, rest)| rest);
        let address = address.split('/').next().unwrap_or(address);
        *lock(&self.shared.server) = Some(address.to_owned());
    }

    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets every connection, and every new one at once, until [`mend`](Self::mend).
    pub fn cut(&self) {
        self.shared.change(|network| network.state = State::Cut);
    }

    /// Swallows everything, both ways, until [`mend`](Self::mend): connections stay open, new ones
    /// are accepted, and nobody hears from the other side. Then they are reset, because a part of
    /// what was said is lost.
    pub fn half_open(&self) {
        self.shared
            .change(|network| network.state = State::HalfOpen);
    }

    /// Holds each piece (64 KiB at most) back for so long before it is passed on, both ways, one
    /// after the other.
    pub fn delay(&self, delay: Duration) {
        self.shared.change(|network| network.delay = delay);
    }

    /// Resets every connection that there is; new ones are passed on.
    pub fn reset(&self) {
        self.shared.change(|network| network.resets += 1);
    }

    /// Passes everything on again, without a delay. A strike that was ordered stays ordered.
    pub fn mend(&self) {
        self.shared.change(|network| {
            network.state = State::Up;
            network.delay = Duration::ZERO;
        });
    }

    /// Orders a strike against the next such request, on whatever connection it comes. One at a
    /// time: it takes the place of one that has not happened yet.
    ///
    /// The answer to a request is what the server says next on the connection; for
    /// [`Request::Kafka`] it is known by its number, whatever else is on its way.
    #[must_use = "whether it happened is known by awaiting it"]
    pub fn strike(&self, request: Request, strike: Strike, then: Then) -> Struck {
        let (happened, struck) = oneshot::channel();
        *lock(&self.shared.plan) = Some(Plan {
            request,
            strike,
            then,
            happened,
        });
        Struck(struck)
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        // Its connections are the task's, and end with it.
        self.accepting.abort();
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut Network)) {
        self.network.send_modify(change);
    }

    /// Takes the plan if a request fits it.
    pub(crate) fn take_plan(&self, fits: impl FnOnce(&Plan) -> bool) -> Option<Plan> {
        lock(&self.plan).take_if(|plan| fits(plan))
    }

    /// The request that a strike waits for, if one is ordered.
    pub(crate) fn planned(&self) -> Option<Request> {
        lock(&self.plan).as_ref().map(|plan| plan.request)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    connections.spawn(serve(client, Arc::clone(&shared)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Serves a connection until one side closes it, or the network breaks it.
async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    let mut network = shared.network.subscribe();
    let begin = *network.borrow_and_update();
    let broken = match begin.state {
        State::Cut => true,
        State::HalfOpen => {
            swallow(&mut client, None, &mut network).await;
            true
        }
        State::Up => match connect(&shared).await {
            Err(_) => true,
            Ok(mut server) => {
                let broken = join(&mut client, &mut server, &shared, &mut network).await;
                if broken {
                    // An error: the server has hung up, which comes to the same.
                    let _ = server.set_zero_linger();
                }
                broken
            }
        },
    };
    if broken {
        let _ = client.set_zero_linger();
    }
}

async fn connect(shared: &Shared) -> io::Result<TcpStream> {
    let address = lock(&shared.server).clone();
    let address = address.ok_or(io::ErrorKind::NotConnected)?;
    let server = TcpStream::connect(address).await?;
    server.set_nodelay(true)?;
    Ok(server)
}

/// Passes on between two sides. Whether the connection is to be reset in the end.
async fn join(
    client: &mut TcpStream,
    server: &mut TcpStream,
    shared: &Shared,
    network: &mut watch::Receiver<Network>,
) -> bool {
    if client.set_nodelay(true).is_err() {
        return true;
    }
    let sight = Mutex::new(Sight::default());
    let broken_by = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = pump(from_client, to_server, shared, |chunk| {
            lock(&sight).request(chunk, shared)
        });
        let down = pump(from_server, to_client, shared, |chunk| {
            lock(&sight).reply(chunk)
        });
        tokio::select! {
            ended = async { tokio::try_join!(up, down) } => match ended {
                Ok(_) => return false,
                Err(_) => None,
            },
            state = changed(network) => Some(state),
        }
    };
    if broken_by == Some(State::HalfOpen) {
        swallow(client, Some(server), network).await;
    }
    let plan = lock(&sight).struck();
    if let Some(plan) = plan {
        if plan.then == Then::StayCut {
            shared.change(|network| network.state = State::Cut);
        }
        // An error: nobody waits for it.
        let _ = client.set_zero_linger();
        let _ = plan.happened.send(());
    }
    true
}

/// Waits until the network breaks the connections that it has now; gives what it is then.
async fn changed(network: &mut watch::Receiver<Network>) -> State {
    let begin = *network.borrow_and_update();
    let broken = |now: &Network| now.state != begin.state || now.resets != begin.resets;
    match network.wait_for(broken).await {
        Ok(now) => now.state,
        // The proxy is gone.
        Err(_) => State::Cut,
    }
}

/// Reads what both sides say and says nothing, until the network changes.
async fn swallow(
    client: &mut TcpStream,
    server: Option<&mut TcpStream>,
    network: &mut watch::Receiver<Network>,
) {
    let discard = async {
        match server {
            None => discard(client).await,
            Some(server) => {
                tokio::join!(discard(client), discard(server));
            }
        }
        // They have hung up; nobody is told.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = discard => {}
        _ = changed(network) => {}
    }
}

async fn discard(stream: &mut TcpStream) {
    let mut buffer = vec![0; CHUNK];
    while matches!(stream.read(&mut buffer).await, Ok(count) if count > 0) {}
}

/// Passes on what one side says until it has said everything. `watch` sees each piece, and says how
/// much of it passes before the connection breaks.
///
/// # Errors
///
/// When the connection is broken.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    shared: &Shared,
    watch: impl Fn(&[u8]) -> Option<usize>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        let chunk = &buffer[..count];
        let passes = watch(chunk);
        let delay = shared.network.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        to.write_all(&chunk[..passes.unwrap_or(count)]).await?;
        if passes.is_some() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
    }
}
