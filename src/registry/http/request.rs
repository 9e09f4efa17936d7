//! Reading requests: bodies within their bounds, JSON without typing errors.

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::routes::Content;
use crate::api::{VERSION_HEADER, WIRE_VERSION};
use crate::registry::Refusal;

/// The body of everything but documents and lines.
const BODY_BYTES_MAX: usize = 64 << 10;

/// The whole body of a request, within the bound of what it carries.
pub async fn body(
    request: Request<Incoming>,
    content: Content,
    documents_max: usize,
) -> Result<Bytes, Refusal> {
    let most = match content {
        Content::Yaml | Content::Lines(_) => documents_max,
        _ => BODY_BYTES_MAX,
    };
    match Limited::new(request.into_body(), most).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::too_large(format!(
            "the body is larger than {most} bytes"
        ))
        .hint("send it in several requests")),
        Err(error) => Err(Refusal::invalid(format!("the body broke off: {error}"))),
    }
}

/// Whether the sender speaks a newer version, whose unknown fields are not typing errors.
pub fn is_newer(headers: &HeaderMap) -> bool {
    let version = headers
        .get(VERSION_HEADER)
        .and_then(|value| value.to_str().ok());
    version
        .and_then(|version| version.parse::<u32>().ok())
        .is_some_and(|version| version > WIRE_VERSION)
}

/// Decodes JSON. `known` gives the value again without what it does not know, to find that out.
pub fn json<T: DeserializeOwned + Serialize + Clone>(
    body: &[u8],
    newer: bool,
    known: impl FnOnce(T) -> T,
) -> Result<T, Refusal> {
    let wrong = |error: serde_json::Error| {
        Refusal::invalid(format!("the body is not what is expected here: {error}"))
            .hint("GET /v1/openapi.json describes it")
    };
    let decoded: T = serde_json::from_slice(body).map_err(wrong)?;
    if newer {
        return Ok(decoded);
    }
    let given: Value = serde_json::from_slice(body).map_err(wrong)?;
    let understood = serde_json::to_value(known(decoded.clone())).map_err(wrong)?;
    let mut unknown = Vec::new();
    unknown_fields(&given, &understood, String::new(), &mut unknown);
    match unknown.is_empty() {
        true => Ok(decoded),
        false => Err(
            Refusal::invalid(format!("unknown field: {}", unknown.join(", ")))
                .hint("GET /v1/openapi.json lists the fields there are"),
        ),
    }
}

/// The paths of what was given and not understood; empty values are left out when written again, so they prove nothing.
fn unknown_fields(given: &Value, understood: &Value, path: String, unknown: &mut Vec<String>) {
    match (given, understood) {
        (Value::Object(given), Value::Object(understood)) => {
            for (key, value) in given {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                match understood.get(key) {
                    Some(understood) => unknown_fields(value, understood, path, unknown),
                    None if is_empty(value) => {}
                    None => unknown.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(understood)) => {
            for (index, (given, understood)) in given.iter().zip(understood).enumerate() {
                unknown_fields(given, understood, format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Registration;

    fn read(body: &str, newer: bool) -> Result<Registration, String> {
        let known = |registration| Registration {
            unknown: Default::default(),
            ..registration
        };
        json(body.as_bytes(), newer, known).map_err(|refusal| refusal.detail.message)
    }

    #[test]
    fn typing_errors_are_named_with_their_path() {
        let body =
            r#"{"service":"a","wieght":2,"ports":[{"address":"a:1","prot":80}],"labels":{}}"#;
        let message = read(body, false).unwrap_err();
        assert!(
            message.contains("ports[0].prot") && message.contains("wieght"),
            "{message}"
        );
    }

    #[test]
    fn a_newer_sender_may_say_more_and_it_is_kept() {
        let body = r#"{"service":"a","ports":[{"address":"a:1","lane":2}],"mood":"good"}"#;
        let registration = read(body, true).unwrap();
        assert_eq!(registration.unknown["mood"], "good");
        assert!(read(body, false).is_err());
    }

    #[test]
    fn nulls_and_empty_collections_are_no_typing_errors() {
        assert!(
            read(
                r#"{"service":"a","ports":[],"zone":null,"labels":{},"sidecar":null}"#,
                false
            )
            .is_ok()
        );
    }
}
