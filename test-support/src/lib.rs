//! Real servers for the tests of polybus.
//!
//! [`RedisServer`] and [`KafkaServer`] start a server of their own, on ports and in a directory of
//! their own, and can disrupt it: kill, pause, resume, stop, restart. `shared()` gives one server to
//! all tests of a test binary; `start()` gives one that nobody else uses, for tests that disrupt it.
//!
//! ```no_run
//! # async fn example() {
//! use polybus_test_support::{RedisServer, unique_name};
//!
//! let redis = RedisServer::shared().await;
//! let stream = unique_name("orders");
//! println!("{} {stream}", redis.url());
//! # }
//! ```
//!
//! [`TcpProxy`] stands in front of a server and breaks connections when a test tells it to. A client
//! of Kafka stays behind it if the broker was started by [`KafkaServer::start_behind`].
//!
//! # Which server is started
//!
//! In this order, the first that there is:
//!
//! 1. the server that `POLYBUS_TEST_REDIS_URL` or `POLYBUS_TEST_KAFKA_BROKERS` names. It is not ours,
//!    so it cannot be disrupted: the methods that would do so return [`Error::External`].
//! 2. a container, where a Docker engine answers and the image is there or can be pulled
//!    (`redis`, `apache/kafka`).
//! 3. a process: `redis-server` from `PATH`, and Apache Kafka from the jars that `scripts/install`
//!    fetches into `.cache` of the repository (`POLYBUS_CACHE` names another folder), run by
//!    `java` from `JAVA_HOME` or `PATH`.
//!
//! `POLYBUS_TEST_SERVERS` forces one way: `external`, `docker` or `native` (`auto` is the order
//! above). A [schema registry](SchemaRegistryServer) is a process unless `docker` is forced. Nothing found is an error that says what was tried and what to install; a test never
//! passes because a server is missing.
//!
//! # When it ends
//!
//! A server ends when its value is dropped and when the test process ends, however it ends: return,
//! panic, Ctrl-C or SIGKILL. A small watchdog process (`sh`) holds the reading end of a pipe; when
//! the test process is gone the pipe closes, and the watchdog kills the server and removes its
//! directory. Needs a Unix system.

#![forbid(unsafe_code)]

mod backend;
mod certificates;
mod choice;
mod docker;
mod error;
mod external;
mod kafka;
mod kafka_cluster;
mod kafka_files;
mod kafka_options;
mod kafka_tools;
mod names;
mod native;
mod probe;
mod process;
mod proxy;
mod proxy_strike;
mod redis;
mod redis_cluster;
mod redis_options;
mod redis_sentinels;
mod schema_registry;
mod watchdog;

pub use certificates::Certificates;
pub use error::Error;
pub use kafka::KafkaServer;
pub use kafka_options::KafkaOptions;
pub use names::{free_port, unique_name};
pub use proxy::{Request, Strike, Struck, TcpProxy, Then};
pub use redis::RedisServer;
pub use redis_cluster::RedisCluster;
pub use redis_options::RedisOptions;
pub use redis_sentinels::RedisSentinels;
pub use schema_registry::{SchemaRegistryOptions, SchemaRegistryServer};
