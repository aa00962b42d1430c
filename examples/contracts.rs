//! The Rust type is the contract: derived, validated, migrated, and documented as AsyncAPI.
//! `cargo run --example contracts --features schema,garde,asyncapi`

use polybus::testing::GoldenSchemas;
use polybus::version::{Compatibility, compare_schemas};
use polybus::{Bus, Config, Event, EventData, Payload, Result, shutdown_signal};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Version 1, which old services still write.
#[derive(Event, Serialize, Deserialize, JsonSchema)]
#[event(type = "user.created", version = "1.0.0", schema)]
struct UserCreatedV1 {
    name: String,
}

/// Version 2 took the name apart.
#[derive(Event, Serialize, Deserialize, JsonSchema)]
#[event(type = "user.created", version = "2.0.0", schema, from = UserCreatedV1)]
struct UserCreatedV2 {
    first: String,
    last: String,
}

impl From<UserCreatedV1> for UserCreatedV2 {
    fn from(old: UserCreatedV1) -> Self {
        let (first, last) = old.name.split_once(' ').unwrap_or((&old.name, ""));
        Self {
            first: first.to_owned(),
            last: last.to_owned(),
        }
    }
}

/// What handlers take, whatever version came.
#[derive(Debug, Event, Serialize, Deserialize, JsonSchema, garde::Validate)]
#[event(type = "user.created", version = "3.0.0", key = last, schema, garde, from = UserCreatedV2)]
#[garde(allow_unvalidated)]
struct UserCreated {
    first: String,
    last: String,
    #[garde(inner(email))]
    email: Option<String>,
    #[schemars(range(max = 150))]
    age: Option<u8>,
}

impl From<UserCreatedV2> for UserCreated {
    fn from(old: UserCreatedV2) -> Self {
        Self {
            first: old.first,
            last: old.last,
            email: None,
            age: None,
        }
    }
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
    validate  = "strict"
"#;

async fn welcome(Payload(user): Payload<UserCreated>) {
    println!("welcome, {} {}", user.first, user.last);
}

#[tokio::main]
async fn main() -> Result<()> {
    let config = Config::parse(CONFIG, "contracts.toml")?;
    let bus = Bus::builder().config(config).build().await?;
    bus.subscribe("welcome-mails").on(welcome).start().await?;

    // Validated: the error lists every fault, by the schema and by the rules.
    let wrong = UserCreated {
        first: "Ada".into(),
        last: "Lovelace".into(),
        email: Some("nowhere".into()),
        age: Some(200),
    };
    if let Err(error) = bus.publish(wrong).await {
        println!("not published:\n{error}\n");
    }

    // Migrated: version 1 reaches the handler as version 3.
    let name = "Grace Hopper".to_owned();
    bus.publish(UserCreatedV1 { name }).await?;

    // Told to others: the AsyncAPI document of the service has its channels and these schemas.
    let document = bus.asyncapi().version("3.0.0").publishes::<UserCreated>();
    println!("{}", document.to_yaml()?);

    // Compared: what a change of the schema does to readers.
    let schema = UserCreated::schema_of("user.created").unwrap_or_default();
    let mut stricter = schema.clone();
    stricter["required"] = json!(["first", "last", "email"]);
    println!("{}", compare_schemas(&schema, &stricter));

    // Kept: in a test, this fails when a change breaks a reader.
    let folder = std::env::temp_dir().join("polybus-contracts");
    let golden = GoldenSchemas::in_folder(folder).compatible(Compatibility::Full);
    golden.check::<UserCreated>();

    bus.run_until(async {
        tokio::select! {
            () = shutdown_signal() => {}
            () = tokio::time::sleep(std::time::Duration::from_millis(200)) => {}
        }
    })
    .await
}
