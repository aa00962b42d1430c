//! A typed event from publisher to handler, in memory: `cargo run --example quickstart`.

use polybus::{Bus, Config, Context, Event, Payload, State};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[derive(Event, Serialize, Deserialize)]
#[event(type = "user.created", version = "1.0.0", key = user_id)]
struct UserCreated {
    user_id: String,
    email: String,
}

#[derive(Clone)]
struct Mailer {
    sent: mpsc::Sender<String>,
}

async fn welcome(
    Payload(user): Payload<UserCreated>,
    State(mailer): State<Mailer>,
    context: Context,
) -> Result<(), mpsc::error::SendError<String>> {
    println!(
        "welcome, {} ({} {})",
        user.email,
        context.topic(),
        context.position()
    );
    mailer.sent.send(user.email).await
}

const CONFIG: &str = r#"
    [service]
    name = "accounts"

    [transports.local]
    kind = "memory"

    [[routes]]
    pattern   = "user.*"
    transport = "local"
    topic     = "user-events"
"#;

#[tokio::main]
async fn main() -> polybus::Result<()> {
    let config = Config::parse(CONFIG, "quickstart.toml")?;
    let bus = Bus::builder().config(config).build().await?;
    let (sent, mut mails) = mpsc::channel(16);

    bus.subscribe("welcome-mails")
        .state(Mailer { sent })
        .on(welcome)
        .start()
        .await?;
    for (user_id, email) in [("u1", "ada@example.com"), ("u2", "grace@example.com")] {
        bus.publish(UserCreated {
            user_id: user_id.into(),
            email: email.into(),
        })
        .await?;
    }

    let both = [mails.recv().await, mails.recv().await];
    println!("{} mails sent", both.iter().flatten().count());
    bus.close("10s").await?.into_result()
}
