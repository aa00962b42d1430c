//! A server that runs in a container.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use testcontainers::core::IntoContainerPort;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerRequest, GenericImage, ImageExt};
use tokio::process::Command;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::error::Error;
use crate::names::{free_port, unique_name};
use crate::native::{in_path, new_directory, retry_on_clash};
use crate::process::poll;
use crate::watchdog::{Ward, Watchdog};

/// How long a container may take to be made, its image pulled first when it is not there. What a pull
/// that is cut off has fetched stays with the engine.
const START_DEADLINE: Duration = Duration::from_secs(90);

/// How long an engine may take for one order. Stopping a container takes ten seconds when its process
/// does not listen to SIGTERM.
const ORDER_DEADLINE: Duration = Duration::from_secs(30);

/// testcontainers keeps one connection to the engine for the whole process, which must not depend on the
/// runtime of the test that came first.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("the system has a thread for the containers' runtime")
});

/// How to run a server in a container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Image {
    /// The name of the image.
    pub(crate) name: &'static str,
    /// Its tag.
    pub(crate) tag: &'static str,
    /// The program, its arguments and variables, for a server that listens on the given port.
    pub(crate) request: fn(GenericImage, u16) -> ContainerRequest<GenericImage>,
    /// How long it may take until it is ready.
    pub(crate) ready_deadline: Duration,
    /// Whether the server at the address serves. The engine's own proxy takes connections for it before
    /// it does.
    pub(crate) ready: fn(SocketAddr) -> bool,
}

/// A container of our own.
#[derive(Debug)]
pub(crate) struct DockerServer {
    image: Image,
    name: String,
    port: u16,
    engine: Mutex<Engine>,
}

impl DockerServer {
    /// Starts a container and waits until its server is ready.
    pub(crate) fn start(image: Image) -> Result<Self, Error> {
        retry_on_clash(|| Self::start_once(image))
    }

    /// The port that clients use, on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The directory of the watchdog.
    pub(crate) fn directory(&self) -> PathBuf {
        self.with(|engine| engine.watchdog.directory().to_path_buf())
    }

    /// Ends the server with SIGKILL.
    pub(crate) fn kill(&self) -> Result<(), Error> {
        self.end("kill")
    }

    /// Ends the server with SIGTERM.
    pub(crate) fn stop(&self) -> Result<(), Error> {
        self.end("stop")
    }

    /// Freezes the server where it is.
    pub(crate) fn pause(&self) -> Result<(), Error> {
        self.with(|engine| match self.state(engine)?.as_str() {
            "running" => engine.order(&["pause", &self.name]).map(drop),
            "paused" => Ok(()),
            _ => Err(self.not_running("pause")),
        })
    }

    /// Lets a frozen server go on.
    pub(crate) fn resume(&self) -> Result<(), Error> {
        self.with(|engine| match self.state(engine)?.as_str() {
            "paused" => engine.order(&["unpause", &self.name]).map(drop),
            "running" => Ok(()),
            _ => Err(self.not_running("resume")),
        })
    }

    /// Starts the container again, with its files, and waits until its server is ready.
    pub(crate) fn restart(&self) -> Result<(), Error> {
        self.end("stop")?;
        self.with(|engine| {
            engine.order(&["start", &self.name])?;
            self.wait_ready(engine)
        })
    }

    fn start_once(image: Image) -> Result<Self, Error> {
        let name = unique_name(&format!("polybus-{}", image.name.replace('/', "-")));
        let mut engine = Engine::find()?;
        engine.watchdog.guard(Ward::Container(&name))?;
        let port = free_port();
        create(image, &name, port)?;
        // testcontainers made the container and the watchdog will remove it: both must mean the same
        // engine.
        engine.order(&["inspect", &name])?;
        let server = Self {
            image,
            name,
            port,
            engine: Mutex::new(engine),
        };
        server.with(|engine| server.wait_ready(engine))?;
        Ok(server)
    }

    fn end(&self, order: &str) -> Result<(), Error> {
        self.with(|engine| {
            let state = self.state(engine)?;
            if state == "paused" {
                // An engine refuses to end a paused container.
                engine.order(&["unpause", &self.name])?;
            }
            if matches!(state.as_str(), "paused" | "running") {
                engine.order(&[order, &self.name])?;
            }
            Ok(())
        })
    }

    fn wait_ready(&self, engine: &Engine) -> Result<(), Error> {
        let deadline = self.image.ready_deadline;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let ready = poll(deadline, || {
            if (self.image.ready)(address) {
                return Ok(true);
            }
            match self.state(engine)?.as_str() {
                "running" => Ok(false),
                state => Err(Error::Docker {
                    doing: format!("run {}: the container is {state}", self.image.name),
                    reason: engine.log(&self.name),
                }),
            }
        })?;
        if ready {
            return Ok(());
        }
        Err(Error::Deadline {
            program: self.image.name.to_owned(),
            wanted: "ready",
            deadline,
            log: engine.log(&self.name),
        })
    }

    /// `running`, `paused`, `exited` and so on.
    fn state(&self, engine: &Engine) -> Result<String, Error> {
        let state = engine.order(&["inspect", "--format", "{{.State.Status}}", &self.name])?;
        Ok(state.trim().to_owned())
    }

    fn not_running(&self, operation: &'static str) -> Error {
        Error::NotRunning {
            operation,
            program: self.image.name.to_owned(),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&Engine) -> T) -> T {
        work(&self.engine.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Makes and starts the container.
fn create(image: Image, name: &str, port: u16) -> Result<(), Error> {
    let request = (image.request)(GenericImage::new(image.name, image.tag), port)
        .with_container_name(name)
        .with_mapped_port(port, port.tcp())
        .with_host_config_modifier(|host| {
            let bindings = host
                .port_bindings
                .iter_mut()
                .flat_map(|ports| ports.values_mut());
            for binding in bindings.flatten().flatten() {
                binding.host_ip = Some(Ipv4Addr::LOCALHOST.to_string());
            }
        });
    let doing = format!("start a container of {}:{}", image.name, image.tag);
    let started = RUNTIME.block_on(async { timeout(START_DEADLINE, request.start()).await });
    match started {
        // The watchdog removes the container. Dropped, this value would do so too, and only inside of a
        // runtime.
        Ok(Ok(container)) => std::mem::forget(container),
        Ok(Err(error)) => {
            let reason = error.to_string();
            return Err(Error::Docker { doing, reason });
        }
        Err(_) => {
            let reason = format!("not done after {} s", START_DEADLINE.as_secs());
            return Err(Error::Docker { doing, reason });
        }
    }
    Ok(())
}

/// The engine, by its command line: what the watchdog has too.
#[derive(Debug)]
struct Engine {
    docker: PathBuf,
    watchdog: Watchdog,
}

impl Engine {
    /// Finds an engine that answers.
    fn find() -> Result<Self, Error> {
        let docker = in_path("docker").ok_or_else(|| Error::NotInstalled {
            server: "Docker",
            missing: "docker in PATH".to_owned(),
            install: "install the Docker engine with its command line (apt-get install docker.io)",
        })?;
        let watchdog = Watchdog::start(new_directory("docker"))?;
        let engine = Self { docker, watchdog };
        engine.order(&["version", "--format", "{{.Server.Version}}"])?;
        Ok(engine)
    }

    /// Gives the engine an order and returns what it answers.
    fn order(&self, words: &[&str]) -> Result<String, Error> {
        let (done, answer) = self.run(words)?;
        if done {
            return Ok(answer);
        }
        Err(Error::Docker {
            doing: format!("docker {}", words.join(" ")),
            reason: answer.trim().to_owned(),
        })
    }

    /// The last lines that the server in the container has written.
    fn log(&self, container: &str) -> String {
        match self.run(&["logs", "--tail", "25", container]) {
            Ok((_, log)) => log,
            Err(error) => error.to_string(),
        }
    }

    fn run(&self, words: &[&str]) -> Result<(bool, String), Error> {
        let mut docker = Command::new(&self.docker);
        docker.args(words).stdin(Stdio::null()).kill_on_drop(true);
        let doing = || format!("docker {}", words.join(" "));
        let output = RUNTIME.block_on(async { timeout(ORDER_DEADLINE, docker.output()).await });
        let output = output.map_err(|_| Error::Docker {
            doing: doing(),
            reason: format!("no answer after {} s", ORDER_DEADLINE.as_secs()),
        })?;
        let output = output.map_err(Error::io(doing()))?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok((output.status.success(), text))
    }
}
