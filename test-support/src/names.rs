//! Names and ports that nothing else uses.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::{LazyLock, Mutex, PoisonError};

use uuid::Uuid;

/// Ports to choose from. They lie below the range from which systems take the local port of an
/// outgoing connection (32768 and up on Linux, 49152 and up elsewhere), so that nobody's connection can
/// sit on the port of a killed server when it is started again.
const PORTS: Range<u16> = 20_000..32_000;

static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// A TCP port on 127.0.0.1 that is free now, and that this process is not given a second time.
///
/// Another process may still take it before it is used; who starts a server on it must be ready to try
/// another.
///
/// # Panics
///
/// When none of the 12,000 ports between 20000 and 32000 is free.
#[must_use]
pub fn free_port() -> u16 {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let width = PORTS.end - PORTS.start;
    // Every process begins elsewhere, so that test binaries that run side by side do not meet.
    let begin = (Uuid::new_v4().as_u128() % u128::from(width)) as u16;
    (0..width)
        .map(|step| PORTS.start + (begin + step) % width)
        .find(|port| !given.contains(port) && is_free(*port) && given.insert(*port))
        .expect("one of 12,000 ports is free")
}

/// `prefix`, a hyphen and 12 characters that are different at each call, on every machine.
///
/// Topics, streams, groups and keys named so let tests share a server without seeing one another.
#[must_use]
pub fn unique_name(prefix: &str) -> String {
    let id = Uuid::new_v4().simple().to_string();
    format!("{prefix}-{}", &id[..12])
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_and_can_be_bound() {
        let ports: HashSet<u16> = (0..50).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 50);
        for port in ports {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }

    #[test]
    fn a_port_in_use_is_not_free() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = held.local_addr().unwrap().port();
        assert!(!is_free(port));
        drop(held);
        assert!(is_free(port));
    }

    #[test]
    fn names_keep_their_prefix_and_differ() {
        let (one, two) = (unique_name("orders"), unique_name("orders"));
        assert!(one.starts_with("orders-") && two.starts_with("orders-"));
        assert_ne!(one, two);
    }
}
