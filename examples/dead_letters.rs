//! Events that fail, and what becomes of them: tried again, put away, looked at, sent on their way
//! again once the fault is mended, and deleted.
//!
//! ```sh
//! cargo run --example dead_letters                                # in memory
//! ./scripts/servers up
//! cargo run --features full --example dead_letters examples/polybus.toml
//! ./scripts/servers down
//! ```

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use polybus::{Bus, Config, ErrorClass, Event, Payload, Purge, Replay, State, Subscription};
use serde::{Deserialize, Serialize};

/// Without a server.
const IN_MEMORY: &str = r#"
    [service]
    name = "accounts"
    [transports.local]
    kind = "memory"
    [[routes]]
    pattern   = "user.*"
    transport = "local"
    topic     = "user-events"
"#;

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.created", key = user_id)]
struct UserCreated {
    user_id: String,
    email: String,
}

/// Why a mail was not sent.
#[derive(Debug)]
enum MailError {
    ServerIsDown,
    NoSuchAddress(String),
}

impl fmt::Display for MailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServerIsDown => f.write_str("the mail server is down"),
            Self::NoSuchAddress(address) => write!(f, "`{address}` is no address"),
        }
    }
}

impl std::error::Error for MailError {}

/// Trying again won't mend an address.
fn class(error: &MailError) -> ErrorClass {
    match error {
        MailError::ServerIsDown => ErrorClass::Transient,
        MailError::NoSuchAddress(_) => ErrorClass::Permanent,
    }
}

async fn welcome(
    Payload(user): Payload<UserCreated>,
    State(is_up): State<Arc<AtomicBool>>,
) -> Result<(), MailError> {
    if !user.email.contains('@') {
        return Err(MailError::NoSuchAddress(user.email));
    }
    if !is_up.load(Ordering::Relaxed) {
        return Err(MailError::ServerIsDown);
    }
    println!("welcome, {}", user.email);
    Ok(())
}

#[tokio::main]
async fn main() -> polybus::Result<()> {
    let config = match std::env::args().nth(1) {
        Some(path) => Config::from_file(path)?,
        None => Config::parse(IN_MEMORY, "in memory")?,
    };
    let bus = Bus::builder().config(config).build().await?;
    bus.topics().ensure().await?;
    let server_is_up = Arc::new(AtomicBool::new(false));
    let mails = bus.subscribe("welcome-mails").group("welcome-mails");
    let mails = mails.state(Arc::clone(&server_is_up)).classify(class);
    let mails = mails.on(welcome).start().await?;

    for (user_id, email) in [
        ("u1", "ada@example.com"),
        ("u2", "nobody"),
        ("u3", "bob@example.com"),
    ] {
        let (user_id, email) = (user_id.to_owned(), email.to_owned());
        bus.publish(UserCreated { user_id, email }).await?;
    }
    until(&mails, |mails| mails.counts().dead_lettered >= 3).await;

    let letters = bus.dead_letters("user-events.dlq");
    for letter in letters.list().await? {
        let from = letter.provenance();
        let user: UserCreated = letter.payload()?;
        println!(
            "{} failed {} times: {}",
            user.user_id, from.attempts, from.reason
        );
    }

    // The server is mended. The wrong address is not.
    server_is_up.store(true, Ordering::Relaxed);
    let mendable = Replay::to_origin().filter("server-was-down", |letter| {
        letter.provenance().reason.contains("server is down")
    });
    let report = letters.replay(mendable).await?;
    println!(
        "{} replayed, {} left out",
        report.replayed, report.passed_over
    );
    until(&mails, |mails| mails.counts().handled >= 2).await;
    println!("{} purged", letters.purge(Purge::all()).await?);
    bus.close("10s").await?.into_result()
}

/// A program would have better to do than to wait.
async fn until(mails: &Subscription, holds: impl Fn(&Subscription) -> bool) {
    while !holds(mails) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
