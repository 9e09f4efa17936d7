//! Asks another process's admin listener whether it is ready.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The reasons of `/ready` are a few lines.
const BODY_BYTES_MAX: usize = 64 * 1024;

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

/// Succeeds when the process behind this admin address says that it is ready.
pub async fn probe(address: SocketAddr, timeout: Duration) -> Result<(), ProbeError> {
    let asked = tokio::time::timeout(timeout, ask_ready(address)).await;
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

async fn ask_ready(
    address: SocketAddr,
) -> Result<(StatusCode, String), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/ready")
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
