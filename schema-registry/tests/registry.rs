//! The client against a registry by other authors, started by the tests.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use polybus_core::ErrorKind;
use polybus_core::codec::{DataSchema, SchemaFormat};
use polybus_core::registry::SchemaRegistry;
use polybus_schema_registry::{SchemaRegistryClient, SchemaRegistryConfig};
use polybus_test_support::{Certificates, SchemaRegistryOptions, SchemaRegistryServer};

const USER: &str = r#"{"type":"record","name":"User","fields":[{"name":"id","type":"string"}]}"#;

fn avro(text: &str) -> DataSchema {
    DataSchema::new(SchemaFormat::Avro, text)
}

fn client(url: &str) -> SchemaRegistryClient {
    SchemaRegistryClient::new(SchemaRegistryConfig::new(url)).unwrap()
}

#[tokio::test]
async fn a_schema_is_registered_once_and_fetched_by_its_id() {
    let server = SchemaRegistryServer::start().await.unwrap();
    let client = client(&server.url());
    let id = client.register("users-value", &avro(USER)).await.unwrap();
    assert_eq!(
        client.register("users-value", &avro(USER)).await.unwrap(),
        id
    );
    let found = client.schema(id).await.unwrap();
    assert_eq!(found.format(), SchemaFormat::Avro);
    let [found, expected]: [serde_json::Value; 2] =
        [found.text(), USER].map(|text| serde_json::from_str(text).unwrap());
    assert_eq!(found, expected);
    let other = client.register("a/b c", &avro("\"int\"")).await.unwrap();
    assert_ne!(other, id);
}

#[tokio::test]
async fn protobuf_keeps_its_type() {
    let server = SchemaRegistryServer::start().await.unwrap();
    let client = client(&server.url());
    let file = "syntax = \"proto3\";\nmessage User { string id = 1; }\n";
    let schema = DataSchema::of_message(file, "User");
    let id = client.register("users-value", &schema).await.unwrap();
    let found = client.schema(id).await.unwrap();
    assert_eq!(found.format(), SchemaFormat::Protobuf);
    assert!(found.text().contains("message User"), "{}", found.text());
}

#[tokio::test]
async fn an_id_that_is_not_there_is_an_error_of_decoding() {
    let server = SchemaRegistryServer::start().await.unwrap();
    let error = client(&server.url()).schema(99).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode, "{error}");
    assert!(!error.retryable());
    assert!(error.to_string().contains("has no schema 99"), "{error}");
    assert!(error.to_string().contains(&server.url()), "{error}");
}

#[tokio::test]
async fn without_registering_a_schema_has_to_be_there() {
    let server = SchemaRegistryServer::start().await.unwrap();
    let mut config = SchemaRegistryConfig::new(server.url());
    config.register = false;
    let reader = SchemaRegistryClient::new(config).unwrap();
    let error = reader
        .register("users-value", &avro(USER))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encode, "{error}");
    assert!(error.to_string().contains("register = false"), "{error}");
    let id = client(&server.url())
        .register("users-value", &avro(USER))
        .await
        .unwrap();
    assert_eq!(
        reader.register("users-value", &avro(USER)).await.unwrap(),
        id
    );
}

#[tokio::test]
async fn a_bad_schema_is_refused() {
    let server = SchemaRegistryServer::start().await.unwrap();
    let error = client(&server.url())
        .register("u", &avro("{"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encode, "{error}");
}

#[tokio::test]
async fn a_login_is_demanded_and_given_and_never_shown() {
    let options = SchemaRegistryOptions::new().login("bus", "top-secret");
    let server = options.start().await.unwrap();
    let mut config = SchemaRegistryConfig::new(server.url());
    let error = SchemaRegistryClient::new(config.clone())
        .unwrap()
        .schema(1)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    config.user = Some("bus".into());
    config.password = Some("wrong-secret".into());
    let error = SchemaRegistryClient::new(config.clone())
        .unwrap()
        .schema(1)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    config.password = Some("top-secret".into());
    let client = SchemaRegistryClient::new(config).unwrap();
    client.register("users-value", &avro(USER)).await.unwrap();
    assert!(!format!("{client:?}").contains("secret"));
}

#[tokio::test]
async fn tls_takes_the_authority_of_the_file_and_no_other() {
    let certificates = Certificates::generate().unwrap();
    let server = SchemaRegistryOptions::new()
        .tls(&certificates)
        .start()
        .await
        .unwrap();
    let mut config = SchemaRegistryConfig::new(server.url());
    let error = SchemaRegistryClient::new(config.clone())
        .unwrap()
        .schema(1)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    config.ca_file = Some(certificates.authority());
    let trusting = SchemaRegistryClient::new(config.clone()).unwrap();
    trusting.register("users-value", &avro(USER)).await.unwrap();
    config.ca_file = Some("nowhere.pem".into());
    let error = SchemaRegistryClient::new(config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
}

#[tokio::test]
async fn a_registry_that_is_gone_is_an_error_that_may_go_away() {
    let server = SchemaRegistryServer::start().await.unwrap();
    let client = client(&server.url());
    client.register("users-value", &avro(USER)).await.unwrap();
    server.kill().await.unwrap();
    let error = client.schema(1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    assert!(error.retryable());
    server.restart().await.unwrap();
    client.register("users-value", &avro(USER)).await.unwrap();
}

#[tokio::test]
async fn what_is_no_registry_is_told_apart() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for (answer, kind) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            ErrorKind::Transport,
        ),
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            ErrorKind::Transport,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{",
            ErrorKind::Connect,
        ),
        ("hello\r\n\r\n", ErrorKind::Connect),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stranger = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let _ = socket.read(&mut asked).await.unwrap();
            socket.write_all(answer.as_bytes()).await.unwrap();
        };
        let client = client(&url);
        let (error, ()) = tokio::join!(client.schema(1), stranger);
        let error = error.unwrap_err();
        assert_eq!(error.kind(), kind, "{answer}: {error}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stranger = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut asked = [0; 1024];
        let _ = socket.read(&mut asked).await.unwrap();
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
        socket.write_all(head.as_bytes()).await.unwrap();
        // Ends when the client hangs up.
        while socket.write_all(&[b' '; 65_536]).await.is_ok() {}
    };
    let client = client(&url);
    let (error, ()) = tokio::join!(client.schema(1), stranger);
    let error = error.unwrap_err();
    assert!(
        error.to_string().contains("more than 4194304 bytes"),
        "{error}"
    );
}

/// Registers a schema that refers to others, as another program would.
async fn register_referring(url: &str, subject: &str, schema: &str, references: &str) -> u32 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let schema = serde_json::Value::from(schema);
    let body = format!(r#"{{"schema":{schema},"references":{references}}}"#);
    let host = url.strip_prefix("http://").unwrap();
    let request = format!(
        "POST /subjects/{subject}/versions HTTP/1.0\r\nhost: {host}\r\n\
         content-type: application/vnd.schemaregistry.v1+json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut connection = tokio::net::TcpStream::connect(host).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    u32::try_from(body["id"].as_u64().expect(&answer)).unwrap()
}

#[tokio::test]
async fn types_under_subjects_of_their_own_are_read_where_they_are_referred_to() {
    let server = SchemaRegistryServer::start().await.unwrap();
    let client = client(&server.url());
    let country = r#"{"type":"enum","name":"shop.Country","symbols":["DE","FR"]}"#;
    let country = avro(country);
    client.register("shop.Country", &country).await.unwrap();
    let address = r#"{"type":"record","name":"Address","namespace":"shop",
        "fields":[{"name":"country","type":"Country"}]}"#;
    let references = r#"[{"name":"shop.Country","subject":"shop.Country","version":1}]"#;
    register_referring(&server.url(), "shop.Address", address, references).await;
    let order = r#"{"type":"record","name":"shop.Order",
        "fields":[{"name":"from","type":"shop.Address"},{"name":"to","type":"Address"}]}"#;
    let references = r#"[{"name":"shop.Address","subject":"shop.Address","version":1}]"#;
    let id = register_referring(&server.url(), "orders-value", order, references).await;

    let found = client.schema(id).await.unwrap();
    assert_eq!(found.name(), Some("shop.Order"), "it is whole");
    let found: serde_json::Value = serde_json::from_str(found.text()).unwrap();
    let from = &found["fields"][0]["type"];
    assert_eq!(from["fields"][0]["type"]["symbols"][1], "FR");
    assert_eq!(found["fields"][1]["type"], "Address");
}

/// A registry that answers by what is asked for: a schema that refers to subjects without end.
async fn endless(listener: tokio::net::TcpListener) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for version in 1.. {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut asked = [0; 1024];
        let _ = socket.read(&mut asked).await.unwrap();
        let reference = format!(r#"{{"name":"N","subject":"s","version":{version}}}"#);
        let body = format!(r#"{{"schema":"\"int\"","references":[{reference}]}}"#);
        let head = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all((head + &body).as_bytes()).await.unwrap();
    }
}

#[tokio::test]
async fn references_without_end_are_an_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let client = client(&url);
    let error = tokio::select! {
        found = client.schema(7) => found.unwrap_err(),
        () = endless(listener) => unreachable!("it answers for good"),
    };
    assert_eq!(error.kind(), ErrorKind::Decode, "{error}");
    assert!(
        error.to_string().contains("more than 100 others"),
        "{error}"
    );
}

#[tokio::test]
async fn a_reference_that_is_not_there_is_an_error_that_names_it() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let client = client(&url);
    let answers = async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let referring =
            r#"{"schema":"\"N\"","references":[{"name":"N","subject":"s","version":3}]}"#;
        let none = r#"{"error_code":40402,"message":"Version 3 not found."}"#;
        for (status, body) in [("200 OK", referring), ("404 Not Found", none)] {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let _ = socket.read(&mut asked).await.unwrap();
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
            );
            socket.write_all((head + body).as_bytes()).await.unwrap();
        }
    };
    let (found, ()) = tokio::join!(client.schema(7), answers);
    let error = found.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode, "{error}");
    assert!(error.to_string().contains("version 3 of `s`"), "{error}");
}
