//! The admission webhook as a process: TLS, a few connections, bounded questions; what it answers is `inject`'s business.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::renewal::look_after;
use crate::identity::{ALPN_HTTP, ServerTls, TlsError};
use crate::inject::{self, Settings};
use crate::model::Certificate;

/// Connections at once; the next ones wait in the listen queue. One API server keeps a handful.
const CONNECTIONS_MAX: usize = 256;
/// A pod is at most what etcd takes, 1.5 MiB, and a review holds it once, or twice for an update.
const BODY_BYTES_MAX: usize = 4 << 20;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long open requests may go on once the webhook stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// After an accept that failed, for want of file descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    #[error("cannot listen on {address}: {error}")]
    Listen {
        address: SocketAddr,
        error: io::Error,
    },
}

/// A webhook that is ready to serve.
pub struct Webhook {
    listener: TcpListener,
    address: SocketAddr,
    tls: Arc<ServerTls>,
    settings: Arc<Settings>,
}

type Answer = Response<Full<Bytes>>;

impl Webhook {
    pub async fn open(
        address: SocketAddr,
        certificate: Certificate,
        settings: Settings,
    ) -> Result<Self, StartError> {
        let tls = Arc::new(ServerTls::new(&[certificate], ALPN_HTTP)?);
        let listen = |error| StartError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        Ok(Self {
            address: listener.local_addr().map_err(listen)?,
            listener,
            tls,
            settings: Arc::new(settings),
        })
    }

    /// Where it listens; the port is the real one when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is over, then lets requests finish.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let (stopping, stopped) = watch::channel(false);
        let open = TaskTracker::new();
        tokio::select! {
            _ = self.accept(&open, &stopped) => {}
            () = look_after(Some(self.tls.clone())) => {}
            () = stop => {}
        }
        stopping.send_replace(true);
        open.close();
        let _ = timeout(DRAIN_TIMEOUT, open.wait()).await;
    }

    async fn accept(&self, open: &TaskTracker, stopped: &watch::Receiver<bool>) -> Infallible {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let acceptor = TlsAcceptor::from(self.tls.config().clone());
        loop {
            let permit = permits.clone().acquire_owned().await;
            let permit = permit.expect("the semaphore is never closed");
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let serving = serve(
                        stream,
                        acceptor.clone(),
                        self.settings.clone(),
                        stopped.clone(),
                    );
                    open.spawn(async move {
                        serving.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!(%error, "Accepting a connection failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    settings: Arc<Settings>,
    mut stopped: watch::Receiver<bool>,
) {
    let stream = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%error, "A TLS handshake failed"),
        Err(_) => return debug!("A TLS handshake took too long"),
    };
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    builder.http2().timer(TokioTimer::new());
    let service = service_fn(|request| {
        let settings = settings.clone();
        async move { Ok::<_, Infallible>(answer(request, &settings).await) }
    });
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = told(&mut stopped) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "A connection ended");
    }
}

async fn told(stopped: &mut watch::Receiver<bool>) {
    // A sender that is gone is a stop as well.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

async fn answer(request: Request<Incoming>, settings: &Settings) -> Answer {
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/healthz") => text(StatusCode::OK, "ok"),
        (&Method::POST, "/mutate") => mutate(request, settings).await.unwrap_or_else(|refusal| {
            info!(status = %refusal.status(), "A request was refused");
            refusal
        }),
        (_, "/healthz" | "/mutate") => text(
            StatusCode::METHOD_NOT_ALLOWED,
            "GET /healthz, or POST an AdmissionReview to /mutate",
        ),
        (_, path) => text(
            StatusCode::NOT_FOUND,
            format!("no {path} here; there are /mutate and /healthz"),
        ),
    }
}

async fn mutate(request: Request<Incoming>, settings: &Settings) -> Result<Answer, Answer> {
    if !is_json(request.headers()) {
        return Err(text(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "an AdmissionReview comes as application/json",
        ));
    }
    let body = read(request.into_body()).await?;
    let review = inject::review(&body, settings)
        .map_err(|error| text(StatusCode::BAD_REQUEST, error.to_string()))?;
    let mut answer = Response::new(Full::from(review.to_string()));
    let json = "application/json".parse().expect("it is a valid value");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    Ok(answer)
}

/// Also with parameters, such as a character set.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let kind = value.and_then(|value| value.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

async fn read(body: Incoming) -> Result<Bytes, Answer> {
    let collected = Limited::new(body, BODY_BYTES_MAX).collect();
    match timeout(BODY_TIMEOUT, collected).await {
        Err(_) => Err(text(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not arrive in time",
        )),
        Ok(Err(_)) => Err(text(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a body has at most {BODY_BYTES_MAX} bytes"),
        )),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
    }
}

fn text(status: StatusCode, text: impl Into<String>) -> Answer {
    let mut answer = Response::new(Full::from(text.into() + "\n"));
    *answer.status_mut() = status;
    answer
}
