use std::collections::VecDeque;

use super::*;
use crate::codec::SchemaFormat;

/// A registry that answers as it is told, and counts.
#[derive(Debug, Default)]
struct Told {
    answers: Mutex<VecDeque<Result<u32, ErrorKind>>>,
    calls: Mutex<u32>,
}

impl Told {
    fn new(answers: impl IntoIterator<Item = Result<u32, ErrorKind>>) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new(answers.into_iter().collect()),
            calls: Mutex::default(),
        })
    }

    fn calls(&self) -> u32 {
        *self.calls.lock().unwrap()
    }
}

#[async_trait]
impl SchemaRegistry for Told {
    async fn register(&self, _: &str, _: &DataSchema) -> Result<u32> {
        *self.calls.lock().unwrap() += 1;
        let answer = self.answers.lock().unwrap().pop_front();
        match answer {
            Some(answer) => answer.map_err(|kind| Error::new(kind, "told so")),
            None => std::future::pending().await,
        }
    }

    async fn schema(&self, id: u32) -> Result<DataSchema> {
        let text = self
            .register("", &DataSchema::new(SchemaFormat::Avro, ""))
            .await?;
        Ok(DataSchema::new(SchemaFormat::Avro, format!("{id} {text}")))
    }
}

fn registry(told: &Arc<Told>) -> Registry {
    let told: Arc<dyn SchemaRegistry> = Arc::<Told>::clone(told);
    Registry::shared(told, SubjectName::Topic, Duration::from_secs(5))
}

fn schema() -> &'static DataSchema {
    Box::leak(Box::new(DataSchema::new(SchemaFormat::Avro, "\"int\"")))
}

#[tokio::test(start_paused = true)]
async fn what_never_changes_is_asked_for_once() {
    let told = Told::new([Ok(7), Ok(8), Ok(9)]);
    let registry = registry(&told);
    let (orders, users) = (Topic::new("orders"), Topic::new("users"));
    for _ in 0..3 {
        assert_eq!(registry.id(&orders, schema()).await.unwrap(), 7);
        assert_eq!(registry.id(&users, schema()).await.unwrap(), 8);
        assert_eq!(registry.schema(1).await.unwrap().text(), "1 9");
    }
    assert_eq!(told.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_can_not_be_reached_is_asked_again_and_then_left_alone() {
    let down = Err(ErrorKind::Connect);
    let told = Told::new([down, down, Ok(7), down, down, down, Ok(8)]);
    let registry = registry(&told);
    assert_eq!(registry.id(&Topic::new("a"), schema()).await.unwrap(), 7);
    let topic = Topic::new("b");
    for _ in 0..10 {
        let error = registry.id(&topic, schema()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect);
        assert!(error.retryable());
    }
    assert_eq!(told.calls(), 6);
    sleep(LEFT_ALONE).await;
    assert_eq!(registry.id(&topic, schema()).await.unwrap(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_asked_again_and_holds_up_nobody() {
    let told = Told::new([Err(ErrorKind::Decode), Ok(7)]);
    let registry = registry(&told);
    let error = registry.schema(1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert_eq!(registry.schema(2).await.unwrap().text(), "2 7");
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_does_not_answer_is_given_up() {
    let told = Told::new([]);
    let registry = registry(&told);
    let error = registry.schema(1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("5s"), "{error}");
    assert_eq!(told.calls(), 3);
}

#[test]
fn a_subject_is_made_of_topic_and_record() {
    let topic = Topic::new("orders");
    let named = DataSchema::of_message("package shop; message Order {}", "Order");
    let nameless = DataSchema::new(SchemaFormat::Json, "{}");
    for (name, expected, without) in [
        (SubjectName::Topic, "orders-value", "orders-value"),
        (SubjectName::Record, "shop.Order", "orders-value"),
        (
            SubjectName::TopicRecord,
            "orders-shop.Order",
            "orders-value",
        ),
    ] {
        assert_eq!(name.subject(&topic, &named), expected);
        assert_eq!(name.subject(&topic, &nameless), without);
    }
}
