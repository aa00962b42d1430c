//! A service in memory: users on one transport, mails on another.

use polybus::testing::TestBus;
use polybus::{Bus, Config};

/// The name of the service, and its group.
pub(crate) const GROUP: &str = "accounts";

/// A bus of it. `settings` are those of the subscription `mailer`.
pub(crate) async fn test_bus(settings: &str) -> TestBus {
    let config = format!(
        r#"
        [service]
        name = "{GROUP}"
        [transports.one]
        kind = "memory"
        [transports.two]
        kind = "memory"
        [[routes]]
        pattern = "user.*"
        transport = "one"
        topic = "users"
        [[routes]]
        pattern = "mail.*"
        transport = "two"
        topic = "mails"
        [subscriptions.mailer]
        {settings}
        "#
    );
    let config = Config::parse(&config, "test.toml").unwrap();
    TestBus::on(Bus::builder().config(config)).await.unwrap()
}
