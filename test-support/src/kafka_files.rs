//! The files that a Kafka node is started with. `scripts/servers` starts one with the same.

use std::path::Path;

/// A log on standard output at INFO, where the line stands that says that the server is started.
pub(crate) const LOG4J2: &str = include_str!("../../scripts/kafka/log4j2.xml");

const SERVER_PROPERTIES: &str = include_str!("../../scripts/kafka/server.properties");

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

/// `server.properties` of a single node that is broker and controller.
pub(crate) fn server_properties(node: &Node<'_>) -> String {
    SERVER_PROPERTIES
        .replace("@LISTEN@", node.listen)
        .replace("@ADVERTISE@", node.advertise)
        .replace("@CONTROLLER@", node.controller)
        .replace("@DATA@", &node.data.display().to_string())
}

/// The lines that give a node one more listener, behind a proxy whose address clients are told. The
/// last line of a name is the one that counts.
pub(crate) fn behind_proxy(node: &Node<'_>, listen: &str, proxy: &str) -> String {
    let Node {
        listen: direct,
        advertise,
        controller,
        ..
    } = node;
    format!(
        "
listeners=PLAINTEXT://{direct},PROXIED://{listen},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{advertise},PROXIED://{proxy}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_and_the_folder_are_put_in() {
        let text = server_properties(&Node {
            listen: "0.0.0.0:1",
            advertise: "127.0.0.1:1",
            controller: "127.0.0.1:2",
            data: Path::new("/tmp/data"),
        });
        let lines: Vec<_> = text.lines().collect();
        for line in [
            "controller.quorum.voters=1@127.0.0.1:2",
            "listeners=PLAINTEXT://0.0.0.0:1,CONTROLLER://127.0.0.1:2",
            "advertised.listeners=PLAINTEXT://127.0.0.1:1",
            "log.dirs=/tmp/data",
        ] {
            assert!(lines.contains(&line), "{line} is not in\n{text}");
        }
        let settings = lines.iter().filter(|line| !line.starts_with('#'));
        for setting in settings {
            assert!(!setting.contains("@L") && !setting.contains("@C") && !setting.contains("@D"));
        }
    }
}
