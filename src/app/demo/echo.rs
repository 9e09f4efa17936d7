//! The application of the demo: it knows nothing of a mesh and answers with its own name and what it was asked.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;

/// Serves until the process ends.
pub async fn serve(listen: SocketAddr, name: &str) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    let name: Arc<str> = name.into();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let name = name.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request| std::future::ready(answer(&name, &request)));
            // A client that breaks off is its own affair.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

fn answer<B>(name: &str, request: &Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = format!("{name} {} {}\n", request.method(), request.uri());
    let mut response = Response::new(Full::new(Bytes::from(body)));
    if let Ok(value) = name.parse() {
        response.headers_mut().insert("x-instance", value);
    }
    Ok(response)
}
