//! A Kafka for tests.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use testcontainers::{ContainerRequest, GenericImage, ImageExt};
use uuid::Uuid;

use crate::backend::{Backend, Disruption, unblock};
use crate::choice::Ways;
use crate::docker::{DockerServer, Image};
use crate::error::Error;
use crate::external::ExternalServer;
use crate::kafka_files::{LOG4J2, Node, behind_proxy, server_properties};
use crate::kafka_options::{Doors, KafkaOptions};
use crate::kafka_tools::KafkaPrograms;
use crate::names::free_port;
use crate::native::{Attempt, NativeServer, Recipe};
use crate::probe::kafka_answers;
use crate::process::{Process, Program};
use crate::proxy::TcpProxy;
use crate::watchdog::Watchdog;

const VARIABLE: &str = "POLYBUS_TEST_KAFKA_BROKERS";

/// Kafka is ready in 2.5 s, and in 4 s after a kill; this is for a machine that is busy with everything
/// else.
const READY_DEADLINE: Duration = Duration::from_secs(90);

const IMAGE: Image = Image {
    name: "apache/kafka",
    tag: "4.3.0",
    request: container,
    ready_deadline: READY_DEADLINE,
    ready: kafka_answers,
};

/// What the container runs, in place of the image's own start: the same files and options as a native
/// server's. Started again, it finds its storage formatted.
const CONTAINER_SCRIPT: &str = r#"
set -e
cd /tmp
printf '%s' "$POLYBUS_SERVER_PROPERTIES" >server.properties
printf '%s' "$POLYBUS_LOG4J2" >log4j2.xml
java -XX:TieredStopAtLevel=1 -cp '/opt/kafka/libs/*' kafka.tools.StorageTool \
    format --ignore-formatted --cluster-id "$POLYBUS_CLUSTER_ID" --config server.properties
exec java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile=log4j2.xml \
    -cp '/opt/kafka/libs/*' kafka.Kafka server.properties
"#;

/// A real Kafka: one node, broker and controller in one (KRaft). Topics are not made by using them
/// (`auto.create.topics.enable=false`).
///
/// Dropping it ends the server and removes its data. See the [crate's page](crate) for which server is
/// started.
#[derive(Debug)]
pub struct KafkaServer {
    brokers: String,
    url: String,
    sasl_brokers: Option<String>,
    mutual_tls_brokers: Option<String>,
    backend: Arc<Backend>,
}

impl KafkaServer {
    /// Starts a Kafka that nobody else uses, and waits until it serves (90 s at most, usually 4 s).
    ///
    /// # Errors
    ///
    /// When no way of getting a server works; the text says what was tried and what to install.
    ///
    /// # Cancel safety
    ///
    /// A server that was being started when the future was dropped is ended again.
    pub async fn start() -> Result<Self, Error> {
        unblock(Self::start_blocking).await
    }

    /// As [`start`](Self::start), always as a process of this machine, with one more way in: clients
    /// that come through the proxy are sent to the proxy by the broker as well. The proxy's server is
    /// set; [`brokers`](Self::brokers) is the way past it.
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`] without Java or Kafka's jars, and when the server does not come up.
    ///
    /// # Cancel safety
    ///
    /// As [`start`](Self::start).
    pub async fn start_behind(proxy: &TcpProxy) -> Result<Self, Error> {
        let address = proxy.address();
        let started = unblock(move || {
            let programs = KafkaPrograms::find()?;
            native_behind(&programs, &KafkaOptions::new(), None, address)
        });
        let (server, behind) = started.await?;
        proxy.set_server(&behind);
        Ok(server)
    }

    /// The Kafka of this test binary: started by the first call, there until the process ends.
    ///
    /// # Panics
    ///
    /// When it cannot be started, with what [`Error`] says: a missing server fails the test.
    pub async fn shared() -> &'static Self {
        match Self::try_shared().await {
            Ok(server) => server,
            Err(error) => panic!("{error}"),
        }
    }

    /// As [`shared`](Self::shared), for callers that report the error themselves.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start). The first outcome stays; the start is not tried again.
    ///
    /// # Cancel safety
    ///
    /// The start goes on for the next caller when the future is dropped.
    pub async fn try_shared() -> Result<&'static Self, &'static Error> {
        static SHARED: OnceLock<Result<KafkaServer, Error>> = OnceLock::new();
        unblock(|| SHARED.get_or_init(Self::start_blocking))
            .await
            .as_ref()
    }

    /// The bootstrap servers as `127.0.0.1:PORT`, or as the environment gave them: comma separated. The
    /// same after a restart.
    #[must_use]
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// [`brokers`](Self::brokers) behind `kafka://`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The bootstrap servers for TLS with a login: of a server that was started with
    /// [`KafkaOptions::secure`].
    #[must_use]
    pub fn sasl_brokers(&self) -> Option<&str> {
        self.sasl_brokers.as_deref()
    }

    /// The bootstrap servers for TLS with a certificate of the client: of a server that was started with
    /// [`KafkaOptions::secure`].
    #[must_use]
    pub fn mutual_tls_brokers(&self) -> Option<&str> {
        self.mutual_tls_brokers.as_deref()
    }

    /// The id of the server's process, while it runs as a process of this machine: not in a container, and
    /// not external.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.backend.process_id()
    }

    /// The directory of a native server's data and log; removed with the server.
    #[must_use]
    pub fn directory(&self) -> Option<PathBuf> {
        self.backend.directory()
    }

    /// Ends the server with SIGKILL; nothing happens when it does not run.
    ///
    /// # Errors
    ///
    /// [`Error::External`] when the server is not ours.
    pub async fn kill(&self) -> Result<(), Error> {
        self.backend.disrupt(Disruption::Kill).await
    }

    /// Stops the process in its tracks (SIGSTOP): connections stay open and nothing is answered.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] when it does not run, [`Error::External`] when it is not ours.
    pub async fn pause(&self) -> Result<(), Error> {
        self.backend.disrupt(Disruption::Pause).await
    }

    /// Lets a paused server go on (SIGCONT).
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause).
    pub async fn resume(&self) -> Result<(), Error> {
        self.backend.disrupt(Disruption::Resume).await
    }

    /// Ends the server in good order (SIGTERM, 30 s at most, usually 2 s); nothing happens when it does
    /// not run.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`] when it does not end, [`Error::External`] when it is not ours.
    pub async fn stop(&self) -> Result<(), Error> {
        self.backend.disrupt(Disruption::Stop).await
    }

    /// Starts the server again, on the same port and the same data, and waits until it serves (90 s at
    /// most, usually 4 s). A server that still runs is stopped first.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start) and [`stop`](Self::stop).
    ///
    /// # Cancel safety
    ///
    /// The restart is carried through when the future is dropped.
    pub async fn restart(&self) -> Result<(), Error> {
        self.backend.disrupt(Disruption::Restart).await
    }

    /// Makes a topic, with Kafka's own tool: independent of any client under test, and slow (1.5 s).
    ///
    /// # Errors
    ///
    /// [`Error::Tool`] when Kafka refuses, [`Error::NotInstalled`] without Java or Kafka's jars.
    ///
    /// # Cancel safety
    ///
    /// The tool is killed when the future is dropped; the topic may then be there or not.
    pub async fn create_topic(&self, topic: &str, partitions: u32) -> Result<(), Error> {
        let partitions = partitions.to_string();
        let arguments = ["--create", "--topic", topic, "--partitions", &partitions];
        self.run_tool("org.apache.kafka.tools.TopicCommand", &arguments, "")
            .await?;
        Ok(())
    }

    /// The end offset of each partition, in the order of the partitions, as Kafka's own tool reads it:
    /// independent of any client under test, and slow (1.5 s).
    ///
    /// # Errors
    ///
    /// [`Error::Tool`] when there is no such topic, [`Error::NotInstalled`] without Java or Kafka's jars.
    ///
    /// # Cancel safety
    ///
    /// Nothing is changed; the tool is killed when the future is dropped.
    pub async fn end_offsets(&self, topic: &str) -> Result<Vec<u64>, Error> {
        let arguments = ["--topic", topic];
        let class = "org.apache.kafka.tools.GetOffsetShell";
        let text = self.run_tool(class, &arguments, "").await?;
        let mut partitions: Vec<(u32, u64)> = text.lines().filter_map(parse_offset).collect();
        partitions.sort_unstable();
        Ok(partitions.into_iter().map(|(_, offset)| offset).collect())
    }

    /// Runs one of Kafka's own tools against this server: the Java class, its arguments without
    /// `--bootstrap-server`, and what it reads on standard input. Returns what it wrote. 60 s at most.
    ///
    /// # Errors
    ///
    /// [`Error::Tool`] when it fails, [`Error::NotInstalled`] without Java or Kafka's jars.
    ///
    /// # Cancel safety
    ///
    /// The tool is killed when the future is dropped.
    pub async fn run_tool(
        &self,
        class: &str,
        arguments: &[&str],
        input: &str,
    ) -> Result<String, Error> {
        let mut all = vec!["--bootstrap-server", &self.brokers];
        all.extend(arguments);
        KafkaPrograms::find()?.run(class, &all, input).await
    }

    fn start_blocking() -> Result<Self, Error> {
        let ways = Ways {
            server: "Kafka",
            variable: VARIABLE,
            external: Self::external,
            docker: Self::docker,
            native: Self::native,
        };
        ways.take()
    }

    fn external(brokers: String) -> Result<Self, Error> {
        let addresses: Vec<_> = brokers
            .split(',')
            .map(|one| one.trim().to_owned())
            .collect();
        let server = ExternalServer::reach("Kafka", VARIABLE, &addresses)?;
        Ok(Self::new(brokers, Backend::External(server)))
    }

    fn docker() -> Result<Self, Error> {
        let server = DockerServer::start(IMAGE)?;
        let brokers = format!("127.0.0.1:{}", server.port());
        Ok(Self::new(brokers, Backend::Docker(server)))
    }

    fn native() -> Result<Self, Error> {
        let programs = KafkaPrograms::find()?;
        let options = KafkaOptions::new();
        let server = NativeServer::start("kafka", |watchdog| {
            recipe(&programs, &options, None, None, None, watchdog)
        })?;
        Ok(Self::own(server, None))
    }

    /// A process of this machine.
    pub(crate) fn own(server: NativeServer, doors: Option<Doors>) -> Self {
        let brokers = |port: u16| format!("127.0.0.1:{port}");
        Self {
            sasl_brokers: doors.map(|doors| brokers(doors.sasl)),
            mutual_tls_brokers: doors.map(|doors| brokers(doors.mutual_tls)),
            ..Self::new(brokers(server.port()), Backend::Native(server))
        }
    }

    fn new(brokers: String, backend: Backend) -> Self {
        Self {
            url: format!("kafka://{brokers}"),
            brokers,
            sasl_brokers: None,
            mutual_tls_brokers: None,
            backend: Arc::new(backend),
        }
    }
}

/// A container whose broker listens inside on the port that clients use outside: it connects to itself by
/// the address that it gives to them.
fn container(image: GenericImage, port: u16) -> ContainerRequest<GenericImage> {
    let properties = server_properties(&Node {
        listen: &format!("0.0.0.0:{port}"),
        advertise: &format!("127.0.0.1:{port}"),
        controller: "127.0.0.1:9093",
        data: Path::new("/tmp/polybus-kafka"),
    });
    image
        .with_entrypoint("sh")
        .with_cmd(["-c", CONTAINER_SCRIPT])
        .with_env_var("POLYBUS_SERVER_PROPERTIES", properties)
        .with_env_var("POLYBUS_LOG4J2", LOG4J2)
        .with_env_var("POLYBUS_CLUSTER_ID", cluster_id())
}

/// The nodes that a node is one of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quorum<'a> {
    /// The id of the cluster.
    pub(crate) cluster: &'a str,
    /// The port of each node's controller.
    pub(crate) controllers: &'a [u16],
    /// Which of them it is.
    pub(crate) index: usize,
}

impl Quorum<'_> {
    fn lines(&self) -> String {
        let voters = self.controllers.iter().enumerate();
        let voters = voters.map(|(index, port)| format!("{}@127.0.0.1:{port}", index + 1));
        let voters = voters.collect::<Vec<_>>().join(",");
        format!(
            "node.id={}\ncontroller.quorum.voters={voters}\n",
            self.index + 1
        )
    }
}

/// A server that listens behind a proxy too, and its address there.
pub(crate) fn native_behind(
    programs: &KafkaPrograms,
    options: &KafkaOptions,
    quorum: Option<&Quorum<'_>>,
    proxy: SocketAddr,
) -> Result<(KafkaServer, String), Error> {
    let proxy = proxy.to_string();
    let behind = Mutex::new(String::new());
    let server = NativeServer::start("kafka", |watchdog| {
        let listen = format!("127.0.0.1:{}", free_port());
        let proxied = Some((listen.as_str(), proxy.as_str()));
        let recipe = recipe(programs, options, None, proxied, quorum, watchdog);
        *behind.lock().unwrap_or_else(PoisonError::into_inner) = listen;
        recipe
    })?;
    let behind = behind.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((KafkaServer::own(server, None), behind))
}

/// Writes the node's files and formats its storage. `proxied` is where the node also listens, and the
/// proxy that clients are told of there.
pub(crate) fn recipe(
    programs: &KafkaPrograms,
    options: &KafkaOptions,
    doors: Option<Doors>,
    proxied: Option<(&str, &str)>,
    quorum: Option<&Quorum<'_>>,
    watchdog: &mut Watchdog,
) -> Result<Recipe, Error> {
    let directory = watchdog.directory().to_path_buf();
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let controller = quorum.map_or_else(free_port, |quorum| quorum.controllers[quorum.index]);
    let node = Node {
        listen: &listen,
        advertise: &listen,
        controller: &format!("127.0.0.1:{controller}"),
        data: &directory.join("data"),
    };
    // Of two lines for one setting Kafka takes the later.
    let mut properties = server_properties(&node) + &options.lines(&node, doors, &directory)?;
    if let Some((listen, proxy)) = proxied {
        properties.push_str(&behind_proxy(&node, listen, proxy));
    }
    properties.push_str(&quorum.map_or_else(String::new, Quorum::lines));
    write(&directory.join("server.properties"), &properties)?;
    write(&directory.join("log4j2.xml"), LOG4J2)?;

    let id = quorum.map_or_else(cluster_id, |quorum| quorum.cluster.to_owned());
    let further = options.format_arguments();
    let mut format = vec!["format", "-t", &id, "-c", "server.properties"];
    format.extend(further.iter().map(String::as_str));
    let mut format = Process::start(
        &Program {
            command: programs.command(&[], "kafka.tools.StorageTool", &format),
            log: directory.join("format.log"),
        },
        watchdog,
    )?;
    let status = format.wait(READY_DEADLINE)?;
    watchdog.release()?;
    if !status.success() {
        return Err(format.ended_early(status));
    }

    let flags = [
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-Dlog4j2.configurationFile=log4j2.xml",
    ];
    Ok(Recipe {
        program: Program {
            command: programs.command(&flags, "kafka.Kafka", &["server.properties"]),
            log: directory.join("kafka.log"),
        },
        port,
        ready_deadline: READY_DEADLINE,
        ready: is_ready,
    })
}

/// The log tells that the ports are this process's own: had they been taken, it would have ended.
fn is_ready(attempt: &Attempt) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, attempt.port));
    attempt.log.contains("Kafka Server started") && kafka_answers(address)
}

/// Sixteen bytes in the URL-safe base 64, as Kafka wants a cluster's id: hexadecimal digits are a part of
/// that alphabet, and the A leaves the bits behind the sixteenth byte zero.
pub(crate) fn cluster_id() -> String {
    let id = Uuid::new_v4().simple().to_string();
    format!("{}A", &id[..21])
}

/// A line `topic:partition:offset`; a topic's name holds no colon.
fn parse_offset(line: &str) -> Option<(u32, u64)> {
    let mut fields = line.split(':').skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(Error::io(format!("write {}", path.display())))
}
