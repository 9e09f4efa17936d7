//! A small client of the registry's HTTP API, for sidecars and the command line: one kept connection (HTTP/2 over TLS or with prior
//! knowledge), a timeout on every answer, errors that say what to do. Retrying and choosing another registry are the caller's.

mod connect;
mod watch;

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    Acknowledged, ErrorBody, ErrorDetail, Frame, FrameAnswer, Registered, Registration,
    VERSION_HEADER, WIRE_VERSION, WatchQuery,
};
use connect::Connector;
pub use watch::WatchStream;

/// An answer larger than this is refused; a watch is a stream and has no such end.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Where the registry is and how to be let in.
#[derive(Clone)]
pub struct ClientOptions {
    /// `http://host:port` or `https://host:port`; the port is 15010 when absent.
    pub url: String,
    pub token: Option<String>,
    /// PEM; None trusts the system's roots.
    pub ca: Option<Vec<u8>>,
    pub connect_timeout: Duration,
    /// For every answer's head and body but the watch's.
    pub timeout: Duration,
}

impl ClientOptions {
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            token: None,
            ca: None,
            connect_timeout: Duration::from_secs(3),
            timeout: Duration::from_secs(10),
        }
    }
}

impl std::fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientOptions")
            .field("url", &self.url)
            .field("token", &self.token.as_ref().map(|_| "<redacted>"))
            .finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{0}")]
    Options(String),
    #[error("registry {url} does not answer: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("registry {url} did not answer within {} s", timeout.as_secs_f32())]
    Timeout { url: String, timeout: Duration },
    /// The registry said no; `error` is its explanation.
    #[error("{} ({status})", error.message)]
    Refused {
        status: StatusCode,
        error: Box<ErrorDetail>,
    },
    #[error("registry {url} sent what is not understood: {reason}")]
    Garbled { url: String, reason: String },
    /// A watch's stream ended.
    #[error("the watch ended: {0}")]
    Ended(String),
}

impl ClientError {
    /// The registry's answer, where there was one.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct Client {
    hyper: HyperClient<Connector, Full<Bytes>>,
    /// `scheme://host:port`.
    base: String,
    authorization: Option<HeaderValue>,
    timeout: Duration,
}

impl Client {
    pub fn new(options: &ClientOptions) -> Result<Self, ClientError> {
        let base = base_url(&options.url)?;
        let tls = base
            .starts_with("https:")
            .then(|| connect::tls(options.ca.as_deref()))
            .transpose()?;
        let authorization = options.token.as_deref().map(bearer).transpose()?;
        let hyper = HyperClient::builder(TokioExecutor::new())
            .http2_only(true)
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            // A registry that vanished without a word is noticed by the watch within 20 s.
            .http2_keep_alive_interval(Duration::from_secs(10))
            .http2_keep_alive_timeout(Duration::from_secs(10))
            .build(Connector {
                tls,
                timeout: options.connect_timeout,
            });
        Ok(Self {
            hyper,
            base,
            authorization,
            timeout: options.timeout,
        })
    }

    /// `scheme://host:port`, for messages.
    pub fn url(&self) -> &str {
        &self.base
    }

    pub async fn register(
        &self,
        id: &str,
        registration: &Registration,
    ) -> Result<Registered, ClientError> {
        self.put(&format!("/v1/instances/{}", segment(id)), registration)
            .await
    }

    /// Removes an instance for good; the answer's revision is what peers acknowledge.
    pub async fn deregister(&self, id: &str) -> Result<Registered, ClientError> {
        self.delete(&format!("/v1/instances/{}", segment(id))).await
    }

    pub async fn send_frame(
        &self,
        sidecar: &str,
        frame: &Frame,
    ) -> Result<FrameAnswer, ClientError> {
        self.post(&format!("/v1/sidecars/{}/frames", segment(sidecar)), frame)
            .await
    }

    /// Waits until every watching sidecar but `except` has `revision` in effect, at most `wait`; then says how it stands.
    pub async fn acknowledged(
        &self,
        revision: u64,
        except: Option<&str>,
        wait: Duration,
    ) -> Result<Acknowledged, ClientError> {
        let mut path = format!(
            "/v1/revisions/{revision}/acknowledged?wait={}ms",
            wait.as_millis()
        );
        if let Some(sidecar) = except {
            path.push_str("&except=");
            path.push_str(&segment(sidecar));
        }
        let request = self.request(Method::GET, &path, Bytes::new())?;
        json(
            &self.base,
            &self.exchange(request, self.timeout + wait).await?.1,
        )
    }

    /// Opens a watch; its frames come from [`WatchStream::next`].
    pub async fn watch(&self, query: &WatchQuery) -> Result<WatchStream, ClientError> {
        let request = self.request(Method::GET, &watch::path(query), Bytes::new())?;
        let response = self.head(request, self.timeout).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(response).await);
        }
        Ok(WatchStream::new(response.into_body(), self.base.clone()))
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::GET, path, Bytes::new()).await
    }

    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::DELETE, path, Bytes::new()).await
    }

    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.send(Method::PUT, path, encode(body)?).await
    }

    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.send(Method::POST, path, encode(body)?).await
    }

    /// Sends `body` as it is and reads a JSON answer.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let request = self.request(method, path, body)?;
        json(&self.base, &self.exchange(request, self.timeout).await?.1)
    }

    /// A request of this API to `path` (with its query), to which a caller may add headers.
    pub fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let uri: Uri = format!("{}{path}", self.base)
            .parse()
            .map_err(|_| ClientError::Options(format!("{}{path} is not a URL", self.base)))?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(VERSION_HEADER, HeaderValue::from(WIRE_VERSION));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }

    /// Sends a request and reads the whole answer; anything but a success is [`ClientError::Refused`].
    pub async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        timeout: Duration,
    ) -> Result<(http::HeaderMap, Bytes), ClientError> {
        let whole = async {
            let response = self.head(request, timeout).await?;
            if !response.status().is_success() {
                return Err(self.refusal(response).await);
            }
            let headers = response.headers().clone();
            Ok((headers, self.collect(response).await?))
        };
        tokio::time::timeout(timeout, whole)
            .await
            .unwrap_or_else(|_| Err(self.timed_out(timeout)))
    }

    async fn head(
        &self,
        request: Request<Full<Bytes>>,
        timeout: Duration,
    ) -> Result<Response<Incoming>, ClientError> {
        let answer = tokio::time::timeout(timeout, self.hyper.request(request)).await;
        let answer = answer.map_err(|_| self.timed_out(timeout))?;
        answer.map_err(|error| ClientError::Unreachable {
            url: self.base.clone(),
            reason: innermost(&error),
        })
    }

    async fn refusal(&self, response: Response<Incoming>) -> ClientError {
        let status = response.status();
        match self.collect(response).await {
            Ok(body) => ClientError::Refused {
                status,
                error: Box::new(explanation(status, &body)),
            },
            Err(error) => error,
        }
    }

    async fn collect(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        match body.collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) => Err(ClientError::Garbled {
                url: self.base.clone(),
                reason: error.to_string(),
            }),
        }
    }

    fn timed_out(&self, timeout: Duration) -> ClientError {
        ClientError::Timeout {
            url: self.base.clone(),
            timeout,
        }
    }
}

/// What a refusal says, also when it is not the registry's but some proxy's on the way.
fn explanation(status: StatusCode, body: &[u8]) -> ErrorDetail {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) => body.error,
        Err(_) => ErrorDetail {
            code: "unknown".to_owned(),
            message: format!("the answer is {status} without an explanation"),
            hint: Some("is this address really a Pillion registry?".to_owned()),
            problems: Vec::new(),
        },
    }
}

fn base_url(url: &str) -> Result<String, ClientError> {
    let wrong = |why: &str| {
        ClientError::Options(format!(
            "registry URL {url:?} {why}; write it as http://host:15010"
        ))
    };
    let uri: Uri = url
        .trim_end_matches('/')
        .parse()
        .map_err(|_| wrong("is not a URL"))?;
    let scheme = match uri.scheme_str() {
        Some(scheme @ ("http" | "https")) => scheme,
        _ => return Err(wrong("needs the scheme http or https")),
    };
    if uri.path() != "/" && !uri.path().is_empty() || uri.query().is_some() {
        return Err(wrong("must not have a path"));
    }
    let authority = uri.authority().ok_or_else(|| wrong("has no host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("must not have a user; use a token"));
    }
    let port = authority.port_u16().unwrap_or(super::DEFAULT_PORT);
    Ok(format!("{scheme}://{}:{port}", authority.host()))
}

fn bearer(token: &str) -> Result<HeaderValue, ClientError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim())).map_err(|_| {
        ClientError::Options(
            "the registry token has characters that a header cannot carry".to_owned(),
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// A value made safe as one path segment or query value.
pub fn segment(text: &str) -> String {
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    utf8_percent_encode(text, KEPT).to_string()
}

fn encode(body: &impl Serialize) -> Result<Bytes, ClientError> {
    let body = serde_json::to_vec(body).map_err(|error| ClientError::Options(error.to_string()))?;
    Ok(Bytes::from(body))
}

fn json<T: DeserializeOwned>(url: &str, body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| ClientError::Garbled {
        url: url.to_owned(),
        reason: error.to_string(),
    })
}

/// The cause at the bottom, which is the one a human can act on ("Connection refused").
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_port_gets_the_registrys() {
        assert_eq!(
            base_url("http://registry").unwrap(),
            "http://registry:15010"
        );
        assert_eq!(base_url("https://[::1]:9/").unwrap(), "https://[::1]:9");
    }

    #[test]
    fn a_wrong_url_says_how_to_write_it() {
        for url in [
            "registry:15010",
            "ftp://x",
            "http://a/b",
            "",
            "http://user@host",
        ] {
            let error = base_url(url).unwrap_err().to_string();
            assert!(error.contains("http://host:15010"), "{url}: {error}");
        }
    }

    #[test]
    fn a_token_never_shows_in_debug_output() {
        let mut options = ClientOptions::new("http://x");
        options.token = Some("s3cret".to_owned());
        assert!(!format!("{options:?}").contains("s3cret"));
        assert!(!format!("{:?}", bearer("s3cret").unwrap()).contains("s3cret"));
    }
}
