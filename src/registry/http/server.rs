//! Accepting connections and answering their requests until told to stop.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tower::limit::ConcurrencyLimit;
use tower::load_shed::LoadShed;
use tower::load_shed::error::Overloaded;
use tower::timeout::Timeout;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tracing::{debug, warn};

use super::answer::{self, Body, Format};
use super::connection::StallGuard;
use super::operations::{self, Call};
use super::query::Query;
use super::routes::{self, Operation};
use super::{Security, request};
use crate::registry::{Refusal, Registry};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long open requests may go on once the registry stops; watches and waits end at once.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// After an accept that failed, for want of file descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every connection shares.
struct Front {
    registry: Arc<Registry>,
    security: Security,
    stopping: watch::Receiver<bool>,
    quick: Stage,
    waiting: Stage,
}

/// Requests of one sort, at most so many at once; beyond, they are refused rather than queued.
type Stage = LoadShed<ConcurrencyLimit<Timeout<Runner>>>;

/// Serves until `stopping` becomes true, then lets open requests end.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    registry: Arc<Registry>,
    security: Security,
    mut stopping: watch::Receiver<bool>,
) {
    let limits = registry.limits.clone();
    let connections = Arc::new(Semaphore::new(limits.connections_max));
    // A wait has its own end; this one is only behind it.
    let longest = Duration::from_secs(3_600 * 24 * 365);
    let front = Arc::new(Front {
        quick: stage(&registry, limits.requests_max, limits.request_timeout),
        waiting: stage(&registry, limits.waits_max + limits.watches_max, longest),
        registry,
        security,
        stopping: stopping.clone(),
    });
    let open = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stopping) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "Accepting a connection failed");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = connections.clone().try_acquire_owned() else {
            warn!(
                connections_max = limits.connections_max,
                "Too many connections; a new one is closed"
            );
            continue;
        };
        let (front, tls) = (front.clone(), tls.clone());
        open.spawn(async move {
            connection(stream, tls, front).await;
            drop(permit);
        });
    }
    drop(listener);
    open.close();
    let _ = timeout(DRAIN_TIMEOUT, open.wait()).await;
}

/// Waits until the registry is to stop.
pub async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // A sender that is gone will not say it any more: that is a stop as well.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, front: Arc<Front>) {
    let _ = stream.set_nodelay(true);
    match tls {
        None => converse(stream, front).await,
        Some(tls) => match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => converse(stream, front).await,
            Ok(Err(error)) => debug!(%error, "A TLS handshake failed"),
            Err(_) => debug!("A TLS handshake took too long"),
        },
    }
}

async fn converse<S>(stream: S, front: Arc<Front>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut stopping = front.stopping.clone();
    let stream = StallGuard::new(stream, front.registry.limits.stall_timeout);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(64 << 10)
        .half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(128)
        .max_header_list_size(32 << 10)
        .max_send_buf_size(64 << 10)
        // A sidecar that vanished without a word is noticed, and its watch ends.
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    let service = service_fn(move |request| {
        let front = front.clone();
        async move { Ok::<_, Infallible>(respond(&front, request).await) }
    });
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stopped(&mut stopping) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "A connection ended");
    }
}

async fn respond(front: &Front, request: Request<Incoming>) -> Response<Body> {
    let format = Format::of(request.headers());
    let answered = answer(front, request).await;
    let response = answered.unwrap_or_else(|refusal| answer::refusal(format, &refusal));
    front.registry.metrics.answered(response.status());
    response
}

/// Lets a request in, reads it, and runs it on its stage.
async fn answer(front: &Front, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let matched = routes::find(request.method(), request.uri().path())?;
    let route = matched.route;
    let caller = match route.operation {
        Operation::Health => None,
        _ => front
            .security
            .admit(request.method(), request.headers())?
            .map(str::to_owned),
    };
    let allowed: Vec<&str> = route.query.iter().map(|(name, _)| *name).collect();
    let query = Query::parse(request.uri().query(), &allowed)?;
    let headers = request.headers().clone();
    let limits = &front.registry.limits;
    let body = request::body(request, route.body, limits.body_bytes_max);
    let body = timeout(limits.request_timeout, body)
        .await
        .map_err(|_| too_slow())??;
    let call = Call {
        matched,
        query,
        headers,
        body,
        caller,
        stopping: front.stopping.clone(),
    };
    let stage = if route.waits {
        &front.waiting
    } else {
        &front.quick
    };
    match stage.clone().oneshot(call).await {
        Ok(response) => Ok(response),
        Err(error) => Err(refusal(error)),
    }
}

fn stage(registry: &Arc<Registry>, at_once_max: usize, timeout: Duration) -> Stage {
    ServiceBuilder::new()
        .load_shed()
        .concurrency_limit(at_once_max)
        .timeout(timeout)
        .service(Runner {
            registry: registry.clone(),
        })
}

fn refusal(error: BoxError) -> Refusal {
    match error.downcast::<Refusal>() {
        Ok(refusal) => *refusal,
        Err(error) if error.is::<Overloaded>() => {
            Refusal::unavailable("too many requests at once").hint("try again in a moment")
        }
        Err(_) => too_slow(),
    }
}

fn too_slow() -> Refusal {
    Refusal::unavailable("it took too long")
        .hint("try again; the change may have been made, so look first")
}

/// The innermost service: runs one call.
#[derive(Clone)]
struct Runner {
    registry: Arc<Registry>,
}

impl Service<Call> for Runner {
    type Response = Response<Body>;
    type Error = Refusal;
    type Future = futures_util::future::BoxFuture<'static, Result<Response<Body>, Refusal>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Refusal>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let registry = self.registry.clone();
        Box::pin(async move { operations::run(&registry, call).await })
    }
}
