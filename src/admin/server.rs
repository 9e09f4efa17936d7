//! The admin listener: a few connections, small requests, answers built off the control thread.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::respond::{self, Answer};
use super::{State, guard, pages};

/// Connections at once; the next ones wait in the listen queue.
const CONNECTIONS_MAX: usize = 64;
/// A request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// A request's body.
const BODY_BYTES_MAX: usize = 4 * 1024;
/// From a connection's first byte, or the last answer, to the end of the next head; also bounds idle connections.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed accept (no descriptors left), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the admin pages on this listener for as long as it is polled.
pub async fn serve(listener: TcpListener, state: Arc<State>) -> Infallible {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = permits
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let state = state.clone();
                tokio::spawn(async move {
                    serve_connection(stream, state).await;
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(%error, "Cannot accept an admin connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, state: Arc<State>) {
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let service = service_fn(|request| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(answer(request, state, local).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "Admin connection ended");
    }
}

async fn answer(request: Request<Incoming>, state: Arc<State>, local: SocketAddr) -> Answer {
    let (parts, body) = request.into_parts();
    if let Some(reason) = guard::refusal(&parts.method, &parts.headers, local) {
        return respond::text(StatusCode::FORBIDDEN, reason);
    }
    let body = match read(body).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let request = pages::Request { parts, body };
    let answered = tokio::task::spawn_blocking(move || pages::answer(&state, &request)).await;
    answered.unwrap_or_else(|error| {
        warn!(%error, "An admin page failed");
        respond::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "this page failed; the log says why",
        )
    })
}

async fn read(body: Incoming) -> Result<String, Answer> {
    let collected =
        tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect());
    let bytes: Bytes = match collected.await {
        Err(_) => {
            return Err(respond::text(
                StatusCode::REQUEST_TIMEOUT,
                "the body did not arrive in time",
            ));
        }
        Ok(Err(_)) => {
            return Err(respond::text(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("a body has at most {BODY_BYTES_MAX} bytes"),
            ));
        }
        Ok(Ok(collected)) => collected.to_bytes(),
    };
    String::from_utf8(bytes.into())
        .map_err(|_| respond::text(StatusCode::BAD_REQUEST, "the body is not UTF-8"))
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
