//! The files that a Kafka node is started with.

use std::path::Path;

/// What differs between a node that runs as a process and one in a container.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    /// Where clients come in, as `host:port`.
    pub(crate) listen: &'a str,
    /// What clients are told to connect to, as `host:port`.
    pub(crate) advertise: &'a str,
    /// Where the controller listens, as `host:port`.
    pub(crate) controller: &'a str,
    /// The directory of the data.
    pub(crate) data: &'a Path,
}

/// A log on standard output at INFO, where the line stands that says that the server is started.
pub(crate) const LOG4J2: &str = r#"<Configuration status="WARN">
  <Appenders><Console name="C" target="SYSTEM_OUT"><PatternLayout pattern="%d %p %c{1} - %m%n"/></Console></Appenders>
  <Loggers><Root level="info"><AppenderRef ref="C"/></Root></Loggers>
</Configuration>
"#;

/// Internal topics with one partition and one replica: there is one node, and fifty partitions of
/// each cost seconds at every start.
const INTERNAL_TOPICS: [&str; 8] = [
    "offsets.topic.replication.factor",
    "offsets.topic.num.partitions",
    "transaction.state.log.replication.factor",
    "transaction.state.log.min.isr",
    "transaction.state.log.num.partitions",
    "share.coordinator.state.topic.replication.factor",
    "share.coordinator.state.topic.min.isr",
    "share.coordinator.state.topic.num.partitions",
];

/// `server.properties` of a single node that is broker and controller.
pub(crate) fn server_properties(node: &Node<'_>) -> String {
    let Node {
        listen,
        advertise,
        controller,
        data,
    } = node;
    let data = data.display();
    // A topic appears only when a test makes it. The short session lets a killed broker come back after
    // four seconds in place of twelve. The small dedupe buffer lets the heap be small.
    let mut text = format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{controller}
listeners=PLAINTEXT://{listen},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{advertise}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs={data}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=2097152
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=300
"
    );
    for setting in INTERNAL_TOPICS {
        text.push_str(setting);
        text.push_str("=1\n");
    }
    text
}
