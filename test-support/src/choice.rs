//! Which way of getting a server is taken.

use crate::error::Error;

/// The variable that forces one way.
const VARIABLE: &str = "POLYBUS_TEST_SERVERS";

/// The ways of getting a server that [`VARIABLE`] allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Auto,
    External,
    Docker,
    Native,
}

/// A server's ways of coming into being, in the order of choice.
pub(crate) struct Ways<S> {
    /// `Redis` or `Kafka`.
    pub(crate) server: &'static str,
    /// The variable that names an external server.
    pub(crate) variable: &'static str,
    /// Uses the external server of the variable's value.
    pub(crate) external: fn(String) -> Result<S, Error>,
    /// Starts a container.
    pub(crate) docker: fn() -> Result<S, Error>,
    /// Starts a process.
    pub(crate) native: fn() -> Result<S, Error>,
}

impl<S> Ways<S> {
    /// Takes the first way that works, or the one that the environment forces.
    pub(crate) fn take(&self) -> Result<S, Error> {
        let named = std::env::var(self.variable).ok();
        let forced = std::env::var(VARIABLE).unwrap_or_default();
        self.take_with(named.filter(|value| !value.is_empty()), &forced)
    }

    fn take_with(&self, named: Option<String>, forced: &str) -> Result<S, Error> {
        match (parse(forced)?, named) {
            (Choice::Auto | Choice::External, Some(named)) => (self.external)(named),
            (Choice::External, None) => Err(Error::Setting {
                variable: self.variable,
                value: String::new(),
                problem: "POLYBUS_TEST_SERVERS=external wants an external server, and none is named",
            }),
            (Choice::Docker, _) => (self.docker)(),
            (Choice::Native, _) => (self.native)(),
            (Choice::Auto, None) => {
                let docker = match (self.docker)() {
                    Ok(server) => return Ok(server),
                    Err(reason) => Box::new(reason),
                };
                (self.native)().map_err(|reason| Error::NoServer {
                    server: self.server,
                    docker,
                    native: Box::new(reason),
                })
            }
        }
    }
}

/// Whether the environment insists on containers. For servers that are a process otherwise.
pub(crate) fn docker_is_forced() -> Result<bool, Error> {
    let forced = std::env::var(VARIABLE).unwrap_or_default();
    Ok(parse(&forced)? == Choice::Docker)
}

fn parse(value: &str) -> Result<Choice, Error> {
    match value {
        "" | "auto" => Ok(Choice::Auto),
        "external" => Ok(Choice::External),
        "docker" => Ok(Choice::Docker),
        "native" => Ok(Choice::Native),
        _ => Err(Error::Setting {
            variable: VARIABLE,
            value: value.to_owned(),
            problem: "must be auto, external, docker or native",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISSING: fn() -> Result<&'static str, Error> = || {
        Err(Error::NotInstalled {
            server: "Redis",
            missing: "the thing".to_owned(),
            install: "install the thing",
        })
    };

    const ALL: Ways<&str> = Ways {
        server: "Redis",
        variable: "POLYBUS_TEST_REDIS_URL",
        external: |_| Ok("external"),
        docker: || Ok("docker"),
        native: || Ok("native"),
    };

    fn check(ways: &Ways<&'static str>, named: Option<&str>, forced: &str, wanted: &str) {
        let taken = ways.take_with(named.map(str::to_owned), forced).unwrap();
        assert_eq!(taken, wanted, "{named:?} {forced:?}");
    }

    #[test]
    fn the_environment_comes_before_docker_and_docker_before_native() {
        let no_docker = Ways {
            docker: MISSING,
            ..ALL
        };
        check(&ALL, Some("redis://host"), "", "external");
        check(&ALL, None, "", "docker");
        check(&no_docker, None, "auto", "native");
    }

    #[test]
    fn one_way_can_be_forced() {
        check(&ALL, Some("redis://host"), "native", "native");
        check(&ALL, Some("redis://host"), "docker", "docker");
        check(&ALL, Some("redis://host"), "external", "external");
    }

    #[test]
    fn a_forced_way_that_fails_is_not_replaced_by_another() {
        let no_docker = Ways {
            docker: MISSING,
            ..ALL
        };
        let failed = no_docker.take_with(None, "docker").unwrap_err();
        assert!(matches!(failed, Error::NotInstalled { .. }), "{failed}");
        let failed = ALL.take_with(None, "external").unwrap_err();
        assert!(
            failed.to_string().contains("POLYBUS_TEST_REDIS_URL"),
            "{failed}"
        );
    }

    #[test]
    fn nothing_found_is_an_error_that_tells_every_reason_and_what_to_install() {
        let none = Ways {
            docker: MISSING,
            native: MISSING,
            ..ALL
        };
        let text = none.take_with(None, "").unwrap_err().to_string();
        assert!(
            text.contains("docker: Redis: the thing was not found"),
            "{text}"
        );
        assert!(
            text.contains("native: Redis: the thing was not found; install the thing"),
            "{text}"
        );
    }

    #[test]
    fn an_unknown_way_is_refused_by_name() {
        let text = ALL.take_with(None, "podman").unwrap_err().to_string();
        assert!(text.contains("POLYBUS_TEST_SERVERS=\"podman\""), "{text}");
    }
}
