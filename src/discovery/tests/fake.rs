//! A registry that says what a test tells it to, and remembers what it was told. It speaks the real wire.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame as BodyFrame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use crate::api::{ClientOptions, Frame, Registration, WatchFrame};

type Body = StreamBody<BoxStream<'static, Result<BodyFrame<Bytes>, Infallible>>>;

pub struct FakeRegistry {
    pub address: SocketAddr,
    told: Arc<Mutex<Told>>,
    server: Option<JoinHandle<()>>,
}

/// What it was told, and what it answers.
#[derive(Default)]
pub struct Told {
    /// Sent at the beginning of each watch.
    pub greeting: Vec<String>,
    /// The paths, with their queries, of the watches begun.
    pub watches: Vec<String>,
    pub frames: Vec<Frame>,
    pub registered: BTreeMap<String, Registration>,
    pub registrations: usize,
    pub revision: u64,
    /// Who has not acknowledged anything yet.
    pub missing: Vec<String>,
    /// Every registration is refused with this status.
    pub refuse: Option<StatusCode>,
    stream: Option<mpsc::UnboundedSender<String>>,
}

impl FakeRegistry {
    pub async fn start() -> Self {
        let mut registry = Self {
            address: ([127, 0, 0, 1], 0).into(),
            told: Arc::default(),
            server: None,
        };
        registry.open().await;
        registry
    }

    /// Listens again where it did before.
    pub async fn open(&mut self) {
        let listener = TcpListener::bind(self.address)
            .await
            .expect("a loopback port");
        self.address = listener.local_addr().expect("a bound listener");
        self.server = Some(tokio::spawn(serve(listener, self.told.clone())));
    }

    /// Is gone, with all of its connections.
    pub async fn kill(&mut self) {
        self.told().stream = None;
        if let Some(server) = self.server.take() {
            server.abort();
            let _ = server.await;
        }
    }

    pub fn options(&self) -> ClientOptions {
        ClientOptions::new(&format!("http://{}", self.address))
    }

    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.told
            .lock()
            .expect("no test panics while it holds this")
    }

    pub fn greet(&self, frames: &[WatchFrame]) {
        self.told().greeting = frames.iter().map(line).collect();
    }

    pub fn send(&self, frame: &WatchFrame) {
        self.send_line(&line(frame));
    }

    pub fn send_line(&self, line: &str) {
        let told = self.told();
        let stream = told.stream.as_ref().expect("a watch is open");
        stream.send(format!("{line}\n")).expect("a watch is open");
    }

    pub fn last_frame(&self) -> Option<Frame> {
        self.told().frames.last().cloned()
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

fn line(frame: &WatchFrame) -> String {
    serde_json::to_string(frame).expect("a frame")
}

async fn serve(listener: TcpListener, told: Arc<Mutex<Told>>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let told = told.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, told.clone()));
            let _ = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    told: Arc<Mutex<Told>>,
) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let mut told = told.lock().expect("no test panics while it holds this");
    let path = parts.uri.path();
    let id = path.strip_prefix("/v1/instances/").unwrap_or_default();
    Ok(match (&parts.method, path) {
        (&Method::GET, "/v1/watch") => told.watch(parts.uri.to_string()),
        (&Method::POST, path) if path.ends_with("/frames") => told.frame(&body),
        (&Method::PUT, _) if !id.is_empty() => told.register(id, &body),
        (&Method::DELETE, _) if !id.is_empty() => told.deregister(id),
        (&Method::GET, path) if path.ends_with("/acknowledged") => told.acknowledged(),
        _ => status(StatusCode::NOT_FOUND, json!({})),
    })
}

impl Told {
    fn watch(&mut self, path: String) -> Response<Body> {
        let (sender, receiver) = mpsc::unbounded_channel();
        for line in &self.greeting {
            sender
                .send(format!("{line}\n"))
                .expect("the receiver is here");
        }
        self.watches.push(path);
        self.stream = Some(sender);
        let lines = futures_util::stream::unfold(receiver, |mut receiver| async move {
            let line: String = receiver.recv().await?;
            Some((Ok(BodyFrame::data(Bytes::from(line))), receiver))
        });
        Response::new(StreamBody::new(lines.boxed()))
    }

    fn frame(&mut self, body: &[u8]) -> Response<Body> {
        let frame: Frame = serde_json::from_slice(body).expect("a frame");
        let ids = frame.instances.iter().map(|instance| instance.id.clone());
        let unknown: Vec<String> = ids.filter(|id| !self.registered.contains_key(id)).collect();
        self.frames.push(frame);
        status(
            StatusCode::OK,
            json!({"revision": self.revision, "unknown": unknown}),
        )
    }

    fn register(&mut self, id: &str, body: &[u8]) -> Response<Body> {
        self.registrations += 1;
        if let Some(code) = self.refuse {
            return status(
                code,
                json!({"error": {"code": "no", "message": "refused by the test"}}),
            );
        }
        self.registered.insert(
            id.to_owned(),
            serde_json::from_slice(body).expect("a registration"),
        );
        self.revision += 1;
        status(StatusCode::OK, json!({"id": id, "revision": self.revision}))
    }

    fn deregister(&mut self, id: &str) -> Response<Body> {
        match self.registered.remove(id) {
            Some(_) => {
                self.revision += 1;
                status(StatusCode::OK, json!({"id": id, "revision": self.revision}))
            }
            None => status(StatusCode::NOT_FOUND, json!({})),
        }
    }

    fn acknowledged(&self) -> Response<Body> {
        let answer = json!({
            "revision": self.revision, "complete": self.missing.is_empty(), "acknowledged": 1,
            "missing": self.missing, "rejected": [],
        });
        status(StatusCode::OK, answer)
    }
}

fn status(status: StatusCode, body: Value) -> Response<Body> {
    let body = BodyFrame::data(Bytes::from(body.to_string()));
    let once = futures_util::stream::once(async { Ok(body) });
    let mut response = Response::new(StreamBody::new(once.boxed()));
    *response.status_mut() = status;
    response
}
