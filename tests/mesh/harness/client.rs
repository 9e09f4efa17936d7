use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HOST, HeaderMap};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A request that takes longer has failed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Where requests go and whom they ask for.
#[derive(Clone, Debug)]
pub struct Target {
    /// What the client connects to.
    pub address: SocketAddr,
    pub host: String,
    /// A sidecar's outbound listener is asked as a proxy, in absolute form.
    pub as_proxy: bool,
}

impl Target {
    /// A server, or a gateway.
    pub fn direct(address: SocketAddr, host: &str) -> Self {
        Self {
            address,
            host: host.to_owned(),
            as_proxy: false,
        }
    }

    /// A service through the sidecar of its caller.
    pub fn through(address: SocketAddr, host: &str) -> Self {
        Self {
            address,
            host: host.to_owned(),
            as_proxy: true,
        }
    }
}

/// An HTTP/1.1 client with one kept connection, opened again when the last answer ended it.
pub struct Client {
    target: Target,
    connection: Option<SendRequest<Full<Bytes>>>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Client {
    pub fn new(target: Target) -> Self {
        Self {
            target,
            connection: None,
        }
    }

    pub async fn get(&mut self, path: &str) -> Result<Answer, String> {
        self.send(Method::GET, path, "").await
    }

    /// A GET with these header fields.
    pub async fn get_with(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, String> {
        self.send_with(Method::GET, path, headers, "").await
    }

    pub async fn send(&mut self, method: Method, path: &str, body: &str) -> Result<Answer, String> {
        self.send_with(method, path, &[], body).await
    }

    pub async fn send_with(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Answer, String> {
        let uri = match self.target.as_proxy {
            true => format!("http://{}{path}", self.target.host),
            false => path.to_owned(),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(HOST, &self.target.host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::from(body.to_owned()))
            .expect("a valid request");
        match tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                self.connection = None;
                Err(error)
            }
            Err(_) => {
                self.connection = None;
                Err(format!("no answer within {ANSWER_TIMEOUT:?}"))
            }
        }
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let connection = self.connected().await?;
        let response = connection
            .send_request(request)
            .await
            .map_err(|error| format!("no answer: {}", explained(&error)))?;
        let (head, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .map_err(|error| format!("answer cut short: {}", explained(&error)))?;
        let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        })
    }

    async fn connected(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, String> {
        let usable = match &mut self.connection {
            Some(connection) => connection.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            let stream = TcpStream::connect(self.target.address)
                .await
                .map_err(|error| format!("connect: {error}"))?;
            let (sender, connection) = handshake(TokioIo::new(stream))
                .await
                .map_err(|error| explained(&error))?;
            tokio::spawn(connection);
            self.connection = Some(sender);
        }
        Ok(self.connection.as_mut().expect("opened above"))
    }
}

/// With its causes, which hyper keeps apart.
fn explained(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text += &format!(": {inner}");
        cause = inner.source();
    }
    text
}
