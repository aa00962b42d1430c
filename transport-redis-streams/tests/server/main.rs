//! The transport on a real Redis: what the conformance suite, which knows no server, can't show.

#[cfg(test)]
mod claiming;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod connecting;
#[cfg(test)]
mod disruption;
#[cfg(test)]
mod entries;
#[cfg(test)]
mod following;
#[cfg(test)]
mod forwarding;
mod idempotency;
#[cfg(test)]
mod moving;
#[cfg(test)]
mod publishing;
#[cfg(test)]
mod securing;
#[cfg(test)]
mod support;
#[cfg(test)]
mod transactions;
#[cfg(test)]
mod writing;
