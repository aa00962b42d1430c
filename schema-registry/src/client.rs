use std::fmt;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use polybus_core::codec::{DataSchema, SchemaFormat};
use polybus_core::registry::SchemaRegistry;
use polybus_core::{BoxError, Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::references::{self, MOST_REFERENCES, Open, Reference, Types};
use crate::{SchemaRegistryConfig, tls};

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// How long an answer may be. Schemas have some kilobytes.
const MAX_ANSWER: usize = 4 << 20;

/// How much of an answer that is none is shown.
const SHOWN: usize = 200;

/// What a registry says if it has no such schema, or no such subject.
const NOT_FOUND: [u32; 3] = [40401, 40402, 40403];

/// A client of one registry. It remembers nothing: [`Registry`](polybus_core::registry::Registry) does,
/// and bounds how long a call takes.
pub struct SchemaRegistryClient {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    config: SchemaRegistryConfig,
    authorization: Option<HeaderValue>,
}

impl SchemaRegistryClient {
    /// A client. It connects when it is first asked.
    ///
    /// # Errors
    ///
    /// [`Config`](ErrorKind::Config) for settings that are wrong, and a `ca_file` that can't be read.
    pub fn new(config: SchemaRegistryConfig) -> Result<Self> {
        config.check()?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls::client(config.ca_file.as_deref())?)
            .https_or_http()
            .enable_http1()
            .build();
        let login = config.user.as_ref().zip(config.password.as_ref());
        let authorization = login.map(|(user, password)| {
            let login = BASE64.encode(format!("{user}:{password}"));
            let header = HeaderValue::try_from(format!("Basic {login}"));
            let mut header = header.expect("base64 is visible text");
            header.set_sensitive(true);
            header
        });
        Ok(Self {
            http: Client::builder(TokioExecutor::new()).build(connector),
            config,
            authorization,
        })
    }

    async fn call<T: for<'a> Deserialize<'a>>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Posted<'_>>,
    ) -> Result<T, Failure> {
        let url = format!("{}{path}", self.config.url.trim_end_matches('/'));
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .header(ACCEPT, MEDIA_TYPE)
            .header(CONTENT_TYPE, MEDIA_TYPE);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let body = body.map(serde_json::to_vec).transpose();
        let body = body.map_err(|error| Failure::Garbage(error.to_string()))?;
        let request = request
            .body(Full::from(body.unwrap_or_default()))
            .map_err(|error| Failure::Garbage(error.to_string()))?;
        let answer = self.http.request(request).await;
        let answer = answer.map_err(|error| Failure::Unreachable(error.into()))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(unreadable)?.to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| {
                let shown = shown(&body);
                Failure::Garbage(format!(
                    "its answer is not what it should be: {error}: {shown}"
                ))
            });
        }
        let said = serde_json::from_slice(&body).unwrap_or_else(|_| Said {
            error_code: 0,
            message: shown(&body),
        });
        Err(Failure::Refused(status, said))
    }

    /// The error of a failed call. `wrong` is the kind of one that the registry refuses for what is asked.
    fn error(&self, what: &str, failure: Failure, wrong: ErrorKind) -> Error {
        let url = &self.config.url;
        let error = match failure {
            Failure::Unreachable(cause) => {
                let text = format!("the schema registry can't be reached: {}", root(&*cause));
                Error::new(ErrorKind::Connect, text).with_source(cause)
            }
            Failure::Garbage(why) => Error::new(
                ErrorKind::Transport,
                format!("the schema registry is not understood: {why}"),
            )
            .with_retryable(false),
            Failure::Refused(status, said) => refused(what, status, &said, wrong),
        };
        error.with_note(format!("schema registry {url}"))
    }
}

#[async_trait]
impl SchemaRegistry for SchemaRegistryClient {
    async fn register(&self, subject: &str, schema: &DataSchema) -> Result<u32> {
        let subject_path = encoded(subject);
        let path = if self.config.register {
            format!("/subjects/{subject_path}/versions")
        } else {
            format!("/subjects/{subject_path}")
        };
        let body = Posted {
            schema: schema.text(),
            schema_type: type_name(schema.format()),
        };
        let answer = self.call(Method::POST, &path, Some(&body)).await;
        let Registered { id } = answer.map_err(|failure| {
            let what = format!("does not take the schema as `{subject}`");
            let error = self.error(&what, failure, ErrorKind::Encode);
            if self.config.register {
                error
            } else {
                error.with_note("it is not registered by this service: `register = false`")
            }
        })?;
        Ok(id)
    }

    async fn schema(&self, id: u32) -> Result<DataSchema> {
        let path = format!("/schemas/ids/{id}");
        let answer = self.call(Method::GET, &path, None).await;
        let mut found: Found = answer.map_err(|failure| {
            self.error(&format!("has no schema {id}"), failure, ErrorKind::Decode)
        })?;
        let format = match found.schema_type.as_deref() {
            None | Some("AVRO") => SchemaFormat::Avro,
            Some("PROTOBUF") => SchemaFormat::Protobuf,
            Some("JSON") => SchemaFormat::Json,
            Some(other) => {
                let what =
                    format!("schema {id} of the schema registry is of the unknown type `{other}`");
                return Err(Error::new(ErrorKind::Decode, what));
            }
        };
        // Messages are read as their Rust types say, and JSON says itself what it is.
        if format == SchemaFormat::Avro && !found.references.is_empty() {
            found.schema = self
                .with_references(id, found.schema, found.references)
                .await?;
        }
        Ok(DataSchema::new(format, found.schema))
    }
}

impl SchemaRegistryClient {
    /// An Avro schema with the declarations that it refers to.
    async fn with_references(
        &self,
        id: u32,
        schema: String,
        references: Vec<Reference>,
    ) -> Result<String> {
        let unusable = |why: &str| {
            let what = format!("schema {id} of the schema registry can't be used: {why}");
            Error::new(ErrorKind::Decode, what)
                .with_note(format!("schema registry {}", self.config.url))
        };
        let too_many = || unusable(&format!("it refers to more than {MOST_REFERENCES} others"));
        let mut open = Open::default();
        let mut types = Types::new();
        let mut few = open.add(references);
        while let Some(Reference {
            name,
            subject,
            version,
        }) = open.next()
        {
            if !few {
                return Err(too_many());
            }
            let path = format!("/subjects/{}/versions/{version}", encoded(&subject));
            let answer = self.call(Method::GET, &path, None).await;
            let found: Found = answer.map_err(|failure| {
                let what =
                    format!("has not what schema {id} refers to, version {version} of `{subject}`");
                self.error(&what, failure, ErrorKind::Decode)
            })?;
            let declared = references::declaration(&found.schema)
                .map_err(|error| unusable(&format!("`{subject}` is no Avro schema: {error}")))?;
            types.insert(name, declared);
            few = open.add(found.references);
        }
        references::stand_alone(&schema, types)
            .map_err(|error| unusable(&format!("it is no Avro schema: {error}")))
    }
}

impl fmt::Debug for SchemaRegistryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchemaRegistryClient")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// How a call failed.
enum Failure {
    /// There was no answer.
    Unreachable(BoxError),
    /// There was one that is none.
    Garbage(String),
    /// The registry said no.
    Refused(StatusCode, Said),
}

#[derive(Serialize)]
struct Posted<'a> {
    schema: &'a str,
    #[serde(rename = "schemaType", skip_serializing_if = "Option::is_none")]
    schema_type: Option<&'static str>,
}

#[derive(Deserialize)]
struct Registered {
    id: u32,
}

#[derive(Deserialize)]
struct Found {
    schema: String,
    #[serde(rename = "schemaType")]
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    error_code: u32,
    #[serde(default)]
    message: String,
}

/// Avro is what a registry takes a schema for that says nothing.
fn type_name(format: SchemaFormat) -> Option<&'static str> {
    match format {
        SchemaFormat::Protobuf => Some("PROTOBUF"),
        SchemaFormat::Json => Some("JSON"),
        _ => None,
    }
}

fn refused(what: &str, status: StatusCode, said: &Said, wrong: ErrorKind) -> Error {
    let message = &said.message;
    let text = format!("the schema registry {what}: {status}: {message}");
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Error::new(ErrorKind::Unauthorized, text)
                .with_note("`user` and `password` under [schema_registry] are the login")
        }
        StatusCode::NOT_FOUND if !NOT_FOUND.contains(&said.error_code) => {
            Error::new(ErrorKind::Transport, text)
                .with_retryable(false)
                .with_note("is `url` under [schema_registry] that of a registry?")
        }
        StatusCode::CONFLICT => Error::new(wrong, text)
            .with_note("it is not compatible with the one that is registered"),
        StatusCode::NOT_FOUND | StatusCode::UNPROCESSABLE_ENTITY => Error::new(wrong, text),
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            Error::new(ErrorKind::Transport, text)
        }
        _ => Error::new(ErrorKind::Transport, text).with_retryable(false),
    }
}

fn unreadable(error: BoxError) -> Failure {
    if error.is::<LengthLimitError>() {
        return Failure::Garbage(format!("its answer has more than {MAX_ANSWER} bytes"));
    }
    Failure::Unreachable(error)
}

fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(SHOWN)]);
    format!("`{}`", text.escape_debug())
}

/// The first cause: what wraps it says less.
fn root<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    std::iter::successors(Some(error), |error| error.source())
        .last()
        .expect("there is at least the error itself")
}

/// A segment of a path.
fn encoded(segment: &str) -> String {
    let mut out = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_stays_one_segment() {
        assert_eq!(encoded("orders-value"), "orders-value");
        assert_eq!(encoded("a/b?c ü"), "a%2Fb%3Fc%20%C3%BC");
    }

    #[test]
    fn what_goes_away_by_itself_may_be_asked_again_and_nothing_else() {
        let said = |error_code| Said {
            error_code,
            message: "m".to_owned(),
        };
        for (status, code, kind, retryable) in [
            (401, 401, ErrorKind::Unauthorized, false),
            (403, 403, ErrorKind::Unauthorized, false),
            (404, 40403, ErrorKind::Decode, false),
            (404, 404, ErrorKind::Transport, false),
            (409, 409, ErrorKind::Decode, false),
            (422, 42201, ErrorKind::Decode, false),
            (429, 0, ErrorKind::Transport, true),
            (500, 50001, ErrorKind::Transport, true),
            (503, 0, ErrorKind::Transport, true),
            (302, 0, ErrorKind::Transport, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let error = refused("x", status, &said(code), ErrorKind::Decode);
            assert_eq!(
                (error.kind(), error.retryable()),
                (kind, retryable),
                "{status}"
            );
        }
    }
}
