//! The Redis client: the crate `redis` is used here, in `connection.rs`, `wire.rs`, `line.rs`
//! and `error.rs`, and nowhere else.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use polybus_core::{Effect, Error, ErrorKind, Result, Text};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::cluster::{Cluster, Node};
use crate::config::{RedisConfig, TLS_SCHEME};
use crate::connection::Connection;
use crate::error::{Failure, Origin};
use crate::reply;
use crate::sentinels::Sentinels;
use crate::tls::{self, Tls};
use crate::wire::{Socket, Wire};

pub(crate) use redis::{Arg, Cmd, Pipeline, Value};

/// The oldest server that has what is used here: XAUTOCLAIM that reports deleted entries, the
/// lag in XINFO GROUPS.
const OLDEST_VERSION: u32 = 7;

/// How many commands of one connection may wait for the socket. Callers wait above it.
const SEND_QUEUE: usize = 256;

/// A server, and how to log in.
#[derive(Clone)]
pub(crate) struct Client {
    address: Address,
    peer: Peer,
    login: RedisConnectionInfo,
    tls: Option<Tls>,
    name: Text,
    connect_deadline: Duration,
    origin: Arc<Origin>,
}

#[derive(Clone)]
enum Address {
    Tcp(String, u16),
    #[cfg(unix)]
    Unix(std::path::PathBuf),
    /// Where the sentinels say.
    Sentinels(Arc<Sentinels>),
    /// Any node of it.
    Cluster(Arc<Cluster>),
}

/// What is expected of who answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    Server,
    /// A server that takes writes.
    Primary,
    Sentinel,
    /// A node of a cluster.
    Node,
}

impl Client {
    /// Reads the config's URLs and certificates. Does not connect.
    pub(crate) fn new(config: &RedisConfig) -> Result<Self> {
        let tls = config.uses_tls().then(|| Tls::new(config)).transpose()?;
        if !config.nodes.is_empty() {
            return Self::of_nodes(config, tls);
        }
        let Some(master) = &config.master else {
            let mut client = Self::of_url(config, "url", &config.url, tls)?;
            client.login = login(config, &client.login)?;
            return Ok(client);
        };
        let sentinel = |url: &String| -> Result<Self> {
            let mut client = Self::of_url(config, "sentinels", url, tls.clone())?;
            client.peer = Peer::Sentinel;
            Ok(client)
        };
        let sentinels: Result<Vec<_>> = config.sentinels.iter().map(sentinel).collect();
        let sentinels = Sentinels::new(sentinels?, master.clone());
        let shown = sentinels.to_string();
        let address = Address::Sentinels(Arc::new(sentinels));
        Self::of_several(config, address, Peer::Primary, shown, tls)
    }

    fn of_nodes(config: &RedisConfig, tls: Option<Tls>) -> Result<Self> {
        let node = |url: &String| -> Result<Node> {
            let client = Self::of_url(config, "nodes", url, None)?;
            let login = &client.login;
            let has_login = login.username().is_some() || login.password().is_some();
            match client.address {
                Address::Tcp(host, port) if !has_login && login.db() == 0 => Ok(Node {
                    host: host.into(),
                    port,
                }),
                _ => Err(config
                    .wrong("nodes", "must be `redis://host:port` each")
                    .with_note(
                        "the login stands in `user` and `password`, and a cluster has no databases",
                    )),
            }
        };
        let nodes: Result<Vec<_>> = config.nodes.iter().map(node).collect();
        let cluster = Cluster::new(nodes?);
        let shown = cluster.to_string();
        let address = Address::Cluster(Arc::new(cluster));
        Self::of_several(config, address, Peer::Node, shown, tls)
    }

    fn of_several(
        config: &RedisConfig,
        address: Address,
        peer: Peer,
        shown: String,
        tls: Option<Tls>,
    ) -> Result<Self> {
        Ok(Self {
            address,
            peer,
            login: login(config, &RedisConnectionInfo::default())?,
            tls,
            name: client_name(&config.service),
            connect_deadline: config.connect_deadline,
            origin: Arc::new(Origin {
                transport: config.name.clone(),
                address: shown,
            }),
        })
    }

    fn of_url(config: &RedisConfig, key: &str, url: &str, tls: Option<Tls>) -> Result<Self> {
        // TLS is ours and not the library's, so that the program has one provider of cryptography.
        let url = match url.strip_prefix(TLS_SCHEME) {
            Some(rest) => Cow::Owned(format!("redis://{rest}")),
            None => Cow::Borrowed(url),
        };
        // The client's error may quote the URL, and with it the password.
        let info = url.as_ref().into_connection_info().map_err(|_| {
            config
                .wrong(key, "is not the URL of a Redis server")
                .with_note("write `redis://[user][:password@]host[:port][/database]`, or `rediss://` for TLS")
        })?;
        let address = match info.addr() {
            ConnectionAddr::Tcp(host, port) => Address::Tcp(host.clone(), *port),
            #[cfg(unix)]
            ConnectionAddr::Unix(path) => Address::Unix(path.clone()),
            _ => return Err(config.wrong(key, "is not the URL of a Redis server")),
        };
        let origin = Arc::new(Origin {
            transport: config.name.clone(),
            address: info.addr().to_string(),
        });
        Ok(Self {
            address,
            peer: Peer::Server,
            // The names of the library say nothing about us, and old servers refuse to take them.
            login: info.redis_settings().clone().set_skip_set_lib_name(),
            tls,
            name: client_name(&config.service),
            connect_deadline: config.connect_deadline,
            origin,
        })
    }

    /// The same for a server at an address that was found out.
    pub(crate) fn at(&self, host: String, port: u16) -> Self {
        let origin = Origin {
            transport: self.origin.transport.clone(),
            address: format!("{host}:{port}"),
        };
        Self {
            address: Address::Tcp(host, port),
            origin: Arc::new(origin),
            ..self.clone()
        }
    }

    /// The cluster, if it is one.
    pub(crate) fn cluster(&self) -> Option<&Arc<Cluster>> {
        match &self.address {
            Address::Cluster(cluster) => Some(cluster),
            _ => None,
        }
    }

    /// The server's host, where it is known.
    pub(crate) fn host(&self) -> &str {
        match &self.address {
            Address::Tcp(host, _) => host,
            _ => "",
        }
    }

    /// Where errors come from.
    pub(crate) fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    pub(crate) fn connect_deadline(&self) -> Duration {
        self.connect_deadline
    }

    /// Makes one attempt to connect, log in and check the server, within the connect deadline
    /// and `deadline`.
    pub(crate) async fn open(&self, deadline: Instant) -> Result<Connection> {
        let deadline = deadline.min(Instant::now() + self.connect_deadline);
        match timeout_at(deadline, self.open_unbounded()).await {
            Ok(result) => result,
            Err(_) => {
                let error = self.origin.unreachable("it did not answer in time");
                // A server without TLS waits for the rest of what it takes for a command.
                Err(match &self.tls {
                    Some(_) => error.with_note(tls::PORT_ADVICE),
                    None => error,
                })
            }
        }
    }

    async fn open_unbounded(&self) -> Result<Connection> {
        match &self.address {
            Address::Sentinels(sentinels) => sentinels.open_primary(self).await,
            Address::Cluster(cluster) => cluster.open_any(self).await,
            _ => self.open_directly().await,
        }
    }

    /// Makes one attempt at an address that is known, without a deadline.
    pub(crate) async fn open_directly(&self) -> Result<Connection> {
        let socket = self.socket().await?;
        self.enter(socket)
            .await
            .map_err(|error| self.at_login(error))
    }

    /// A connection for reading alone to a server that one like [`open`](Self::open) was made to.
    pub(crate) async fn open_wire(&self, deadline: Instant) -> Result<Wire> {
        let deadline = deadline.min(Instant::now() + self.connect_deadline());
        let socket = timeout_at(deadline, self.socket()).await;
        let socket = socket.map_err(|_| self.origin.unreachable("it did not answer in time"))?;
        let mut wire = Wire::new(socket?);
        for command in self.login_commands() {
            let entered = wire.call(&command, deadline).await;
            entered.map_err(|failure| {
                let error = self.origin.error(failure, "connect");
                self.at_login(error.with_effect(Effect::NotApplied))
            })?;
        }
        Ok(wire)
    }

    /// What the client library sends by itself.
    fn login_commands(&self) -> Vec<Cmd> {
        let mut commands = Vec::new();
        if let Some(password) = self.login.password() {
            let mut command = Cmd::new();
            command.arg("AUTH").arg(self.login.username()).arg(password);
            commands.push(command);
        }
        if self.login.db() != 0 {
            let mut command = Cmd::new();
            command.arg("SELECT").arg(self.login.db());
            commands.push(command);
        }
        let mut command = Cmd::new();
        command.arg("CLIENT").arg("SETNAME").arg(self.name.as_str());
        commands.push(command);
        commands
    }

    async fn socket(&self) -> Result<Box<dyn Socket>> {
        match &self.address {
            Address::Tcp(host, port) => self.tcp_socket(host, *port).await,
            #[cfg(unix)]
            Address::Unix(path) => {
                let socket = tokio::net::UnixStream::connect(path).await;
                Ok(Box::new(
                    socket.map_err(|error| self.failed_to_connect(error))?,
                ))
            }
            Address::Sentinels(_) | Address::Cluster(_) => {
                Err(self.origin.unreachable("its address is not known"))
            }
        }
    }

    async fn tcp_socket(&self, host: &str, port: u16) -> Result<Box<dyn Socket>> {
        let socket = TcpStream::connect((host, port)).await;
        let socket = socket.map_err(|error| self.failed_to_connect(error))?;
        // Without it a small command waits for the acknowledgement of the one before.
        socket
            .set_nodelay(true)
            .map_err(|error| self.failed_to_connect(error))?;
        Ok(match &self.tls {
            None => Box::new(socket),
            Some(tls) => Box::new(tls.encrypt(host, socket, &self.origin).await?),
        })
    }

    fn at_login(&self, error: Error) -> Error {
        match &self.tls {
            Some(_) => tls::ended_at_login(error),
            None => error,
        }
    }

    async fn enter(&self, socket: Box<dyn Socket>) -> Result<Connection> {
        let connection = self.log_in(socket).await?;
        if self.peer == Peer::Sentinel {
            return Ok(connection);
        }
        // Whatever the greeting came to, what the caller wants was not sent yet.
        let greeted = self.greet(&connection).await;
        greeted.map_err(|error| error.with_effect(Effect::NotApplied))?;
        Ok(connection)
    }

    async fn log_in(&self, socket: Box<dyn Socket>) -> Result<Connection> {
        // No time limit of the client's own: it would end reads that block. Every caller sets one.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(SEND_QUEUE);
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&self.login, socket, config)
                .await
                .map_err(|error| {
                    self.origin
                        .error(Failure::Lost(error), "connect")
                        .with_effect(Effect::NotApplied)
                })?;
        Ok(Connection::new(
            connection,
            tokio::spawn(driver),
            self.clone(),
        ))
    }

    /// Checks that the server is one we can use and serves. `PING` is refused while the server
    /// loads its data, which the others are not.
    async fn greet(&self, connection: &Connection) -> Result<()> {
        // `open` ends it earlier, as an attempt that took too long.
        let deadline = Instant::now() + 2 * self.connect_deadline;
        let failed = |failure| self.origin.error(failure, "connect");
        let mut command = Cmd::new();
        command.arg("HELLO");
        let hello = connection.call(&command, deadline).await.map_err(failed)?;
        self.check_version(&hello)?;
        self.check_role(&hello)?;
        self.check_mode(&hello)?;
        let mut pipeline = Pipeline::with_capacity(2);
        let name = self.name.as_str();
        pipeline.cmd("CLIENT").arg("SETNAME").arg(name);
        pipeline.cmd("PING");
        let replies = connection.pipeline(&pipeline, deadline).await;
        for reply in replies.map_err(failed)? {
            if let Value::ServerError(error) = reply {
                return Err(failed(Failure::Server(error)));
            }
        }
        Ok(())
    }

    /// Sentinels may name a server that is no primary any more, or not yet.
    fn check_role(&self, hello: &Value) -> Result<()> {
        let role = reply::field(hello, "role").and_then(reply::text);
        if self.peer == Peer::Primary && role.as_deref() != Some("master") {
            let why = "it is a replica, and the sentinels have not told of another primary yet";
            return Err(self.origin.unreachable(why));
        }
        Ok(())
    }

    /// One node of a cluster refuses what belongs to the others.
    fn check_mode(&self, hello: &Value) -> Result<()> {
        let mode = reply::field(hello, "mode").and_then(reply::text);
        let (why, note) = match (mode.as_deref() == Some("cluster"), self.peer) {
            (true, Peer::Server | Peer::Primary) => (
                "is a node of a Redis Cluster",
                "name the cluster's nodes in `nodes`, in place of `url`",
            ),
            (false, Peer::Node) => (
                "is no node of a Redis Cluster",
                "name a single server in `url`, in place of `nodes`",
            ),
            _ => return Ok(()),
        };
        let message = format!("the server at {} {why}", self.origin.address);
        let error = self.origin.plain(ErrorKind::Unsupported, message);
        Err(error.with_operation("connect").with_note(note))
    }

    fn check_version(&self, hello: &Value) -> Result<()> {
        let version = reply::field(hello, "version").and_then(reply::text);
        let major = version
            .as_deref()
            .and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        if major.is_none_or(|major| major < OLDEST_VERSION) {
            let version = version.as_deref().unwrap_or("unknown");
            return Err(self
                .origin
                .plain(
                    ErrorKind::Unsupported,
                    format!(
                        "the server at {} has version {version}, and Redis {OLDEST_VERSION}.0 or newer is needed",
                        self.origin.address
                    ),
                )
                .with_operation("connect"));
        }
        Ok(())
    }

    fn failed_to_connect(&self, error: std::io::Error) -> Error {
        self.origin
            .unreachable(&error.to_string())
            .with_source(error)
    }
}

/// The login of the URL, or of the settings beside it.
fn login(config: &RedisConfig, url: &RedisConnectionInfo) -> Result<RedisConnectionInfo> {
    let mut login = url.clone().set_skip_set_lib_name();
    if let Some(user) = &config.user {
        if url.username().is_some() {
            return Err(config.wrong("user", "stands in `url` as well"));
        }
        login = login.set_username(user);
    }
    if let Some(password) = &config.password {
        if url.password().is_some() {
            return Err(config.wrong("password", "stands in `url` as well"));
        }
        login = login.set_password(password);
    }
    Ok(login)
}

/// `CLIENT SETNAME` takes neither spaces nor control characters.
fn client_name(service: &str) -> Text {
    let allowed = |character: char| {
        if character.is_ascii_graphic() {
            character
        } else {
            '-'
        }
    };
    service.chars().map(allowed).collect()
}
