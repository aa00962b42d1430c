//! Kafka's own programs, run from the jars in the cache.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::error::Error;
use crate::native::in_path;

const INSTALL: &str = "run scripts/install, which needs a JRE of Java 17 or later and Maven \
                       (apt-get install openjdk-17-jre-headless maven)";

/// The version whose jars `scripts/install` fetches.
const VERSION: &str = "4.3.0";

/// A JVM's start takes a second; this is for a machine that is busy with everything else.
const TOOL_DEADLINE: Duration = Duration::from_secs(60);

/// A Java and Kafka's jars.
#[derive(Clone, Debug)]
pub(crate) struct KafkaPrograms {
    java: PathBuf,
    jars: PathBuf,
}

impl KafkaPrograms {
    /// Finds both.
    pub(crate) fn find() -> Result<Self, Error> {
        let java = java().ok_or_else(|| missing("java in JAVA_HOME or PATH".to_owned()))?;
        let jars = cache().join(format!("kafka-{VERSION}")).join("libs");
        let server = jars.join(format!("kafka_2.13-{VERSION}.jar"));
        if !server.is_file() {
            return Err(missing(server.display().to_string()));
        }
        Ok(Self { java, jars })
    }

    /// The command that runs `class`. The first compiler alone starts quickest.
    pub(crate) fn command(
        &self,
        options: &[&str],
        class: &str,
        arguments: &[&str],
    ) -> Vec<OsString> {
        let mut command = vec![self.java.clone().into_os_string()];
        command.push("-XX:TieredStopAtLevel=1".into());
        command.extend(options.iter().map(OsString::from));
        command.extend(["-cp".into(), self.jars.join("*").into_os_string()]);
        command.push(class.into());
        command.extend(arguments.iter().map(OsString::from));
        command
    }

    /// Runs the tool `class`, gives it `input` to read and returns what it wrote to standard output.
    pub(crate) async fn run(
        &self,
        class: &str,
        arguments: &[&str],
        input: &str,
    ) -> Result<String, Error> {
        let command = self.command(&["-Xmx128m"], class, arguments);
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(Error::io(format!("start {class}")))?;
        let mut pipe = child.stdin.take().expect("standard input is a pipe");
        let run = async {
            pipe.write_all(input.as_bytes()).await?;
            drop(pipe);
            child.wait_with_output().await
        };
        let late = |_| Error::Deadline {
            program: class.to_owned(),
            wanted: "done",
            deadline: TOOL_DEADLINE,
            log: String::new(),
        };
        let output = timeout(TOOL_DEADLINE, run).await.map_err(late)?;
        let output = output.map_err(Error::io(format!("run {class}")))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        Err(Error::Tool {
            tool: class.to_owned(),
            status: output.status,
            output: text + &String::from_utf8_lossy(&output.stderr),
        })
    }
}

fn missing(missing: String) -> Error {
    Error::NotInstalled {
        server: "Kafka",
        missing,
        install: INSTALL,
    }
}

fn java() -> Option<PathBuf> {
    let home = std::env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java"));
    home.filter(|java| java.is_file())
        .or_else(|| in_path("java"))
}

/// The folder of fetched files: `POLYBUS_CACHE`, else `.cache` of the repository.
pub(crate) fn cache() -> PathBuf {
    let named = std::env::var_os("POLYBUS_CACHE").filter(|folder| !folder.is_empty());
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let repository = repository.expect("this crate lies in a folder of the repository");
    named.map_or_else(|| repository.join(".cache"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::VERSION;

    /// The scripts take the version from there.
    #[test]
    fn the_version_is_the_one_that_is_fetched() {
        let pom = include_str!("../../scripts/kafka/pom.xml");
        assert!(pom.contains(&format!("<kafka.version>{VERSION}</kafka.version>")));
    }
}
