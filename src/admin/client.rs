//! Asks another process's admin listener whether it is ready.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The largest page that is read: clusters and metrics of a large mesh.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(
        "nothing answers on {address}: {reason}; is the process running, and is its admin address this one?"
    )]
    Unreachable { address: SocketAddr, reason: String },
    #[error("{address} did not answer within {timeout:?}")]
    Slow {
        address: SocketAddr,
        timeout: Duration,
    },
    #[error("{0}")]
    NotReady(String),
}

/// Succeeds when the process behind this admin address says that it is ready: `/ready`, or `/started`.
pub async fn probe(address: SocketAddr, path: &str, timeout: Duration) -> Result<(), ProbeError> {
    let asked = tokio::time::timeout(timeout, ask(address, Method::GET, path)).await;
    let (status, body) = asked
        .map_err(|_| ProbeError::Slow { address, timeout })?
        .map_err(|error| ProbeError::Unreachable {
            address,
            reason: error.to_string(),
        })?;
    match status {
        StatusCode::OK => Ok(()),
        _ => Err(ProbeError::NotReady(format!(
            "{}: {}",
            status.as_u16(),
            body.trim_end()
        ))),
    }
}

/// One admin page as text.
pub async fn get(
    address: SocketAddr,
    path: &str,
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    get_page(address, path).await.map(|(_, body)| body)
}

/// The same, with its status.
pub async fn get_page(
    address: SocketAddr,
    path: &str,
) -> Result<(StatusCode, String), Box<dyn std::error::Error + Send + Sync>> {
    ask(address, Method::GET, path).await
}

/// Steers the process by one of its admin pages.
pub async fn post(
    address: SocketAddr,
    path: &str,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (status, body) = ask(address, Method::POST, path).await?;
    match status.is_success() {
        true => Ok(()),
        false => Err(format!("{}: {}", status.as_u16(), body.trim_end()).into()),
    }
}

async fn ask(
    address: SocketAddr,
    method: Method,
    path: &str,
) -> Result<(StatusCode, String), Box<dyn std::error::Error + Send + Sync>> {
    let address = reachable(address);
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX)
            .collect()
            .await?
            .to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::pin!(connection, exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // The connection may end as soon as the answer is read off the wire; the answer is then at hand.
        _ = &mut connection => exchange.await,
    }
}

/// A listener on every address is asked on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
        _ => address,
    }
}
