//! The application behind the lane: `/work/MICROSECONDS` takes so long; `/limited/MICROSECONDS` too, but it does only so many at once.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// On a thread of its own, so that it does not wait behind those who ask.
pub fn start() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener
        .local_addr()
        .expect("a bound socket has an address");
    listener.set_nonblocking(true).expect("a socket option");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(serve(listener));
    });
    address
}

async fn serve(listener: std::net::TcpListener) {
    let listener = TcpListener::from_std(listener).expect("a runtime is here");
    let turns = Arc::new(Semaphore::new(super::SLOTS));
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let turns = turns.clone();
        let answer = service_fn(move |request| answer(request, turns.clone()));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

async fn answer(
    request: Request<Incoming>,
    turns: Arc<Semaphore>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut parts = request.uri().path().split('/').skip(1);
    let kind = parts.next().unwrap_or_default();
    let time = parts.next().and_then(|time| time.parse().ok()).unwrap_or(0);
    let _turn = match kind {
        "limited" => Some(turns.acquire().await.expect("it is never closed")),
        _ => None,
    };
    tokio::time::sleep(Duration::from_micros(time)).await;
    Ok(Response::new(Full::from("done")))
}
