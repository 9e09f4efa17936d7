//! The application behind the faulty network: it notes how often each request has reached it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// Names a request, so that what became of it can be followed.
pub const ID: &str = "x-request-id";

/// Of the answer to `/large`.
pub const LARGE: usize = 300 * 1024;

/// How often each request came, by its id.
pub type Seen = Arc<Mutex<HashMap<String, u32>>>;

/// Answers `/large` with that many bytes, everything else with the number of bytes that came, and ends the connection after `/last`.
pub async fn start(seen: &Seen) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(serve(listener, seen.clone()));
    address
}

async fn serve(listener: TcpListener, seen: Seen) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let seen = seen.clone();
        // A connection that has broken already is met below.
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let last = Arc::new(Notify::new());
            let told = last.clone();
            let answer = service_fn(move |request| answer(request, seen.clone(), told.clone()));
            let server = auto::Builder::new(TokioExecutor::new());
            let mut connection = pin!(server.serve_connection(TokioIo::new(stream), answer));
            // That connections break is what this is about.
            tokio::select! {
                _ = connection.as_mut() => {}
                () = last.notified() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: Seen,
    last: Arc<Notify>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let id = request.headers().get(ID).and_then(|id| id.to_str().ok());
    let id = id.expect("the client gives every request an id").to_owned();
    *seen
        .lock()
        .expect("no holder panics")
        .entry(id)
        .or_default() += 1;
    let (head, body) = request.into_parts();
    let mut response = Response::default();
    let Ok(body) = body.collect().await else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    };
    *response.body_mut() = match head.uri.path() {
        "/large" => Full::from(vec![b'x'; LARGE]),
        _ => Full::from(body.to_bytes().len().to_string()),
    };
    if head.uri.path() == "/last" {
        last.notify_one();
    }
    Ok(response)
}
