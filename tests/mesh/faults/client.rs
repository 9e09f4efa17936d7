//! A client that tells apart what can become of a request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::application::{ID, LARGE};
use crate::harness::HANG_GUARD;

/// A request of the walk that is taken past each fault.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub method: &'static str,
    pub path: &'static str,
    pub body: usize,
    /// The body's length is not said in advance.
    pub streamed: bool,
    /// It carries an idempotency key.
    pub keyed: bool,
}

impl Step {
    /// Sent again it does no harm.
    pub fn is_repeatable(&self) -> bool {
        self.keyed || self.method != "POST"
    }

    fn answer(&self) -> usize {
        match self.path {
            "/large" => LARGE,
            _ => self.body.to_string().len(),
        }
    }
}

/// What became of a request, as its client sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    Answered,
    /// The proxy said that it failed.
    Refused(u16),
    /// The answer had begun and broke off, visibly.
    Cut,
    /// The connection ended before an answer.
    Lost,
}

pub enum Client {
    Http1(Option<http1::SendRequest<Payload>>),
    Http2(Option<http2::SendRequest<Payload>>),
}

impl Client {
    pub async fn asks(&mut self, gateway: SocketAddr, step: &Step, id: &str) -> End {
        let end = tokio::time::timeout(HANG_GUARD, self.exchange(gateway, step, id)).await;
        end.unwrap_or_else(|_| panic!("{step:?} {id} has no end"))
    }

    async fn exchange(&mut self, gateway: SocketAddr, step: &Step, id: &str) -> End {
        let response = match self.send(gateway, step, id).await {
            Ok(response) => response,
            Err(_) => return End::Lost,
        };
        let status = response.status();
        let ours = response.headers().contains_key("proxy-status");
        let body = match response.into_body().collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => return End::Cut,
        };
        if ours {
            return End::Refused(status.as_u16());
        }
        assert_eq!(status, 200, "{step:?} {id}");
        assert_eq!(body.len(), step.answer(), "{step:?} {id}");
        End::Answered
    }

    async fn send(
        &mut self,
        gateway: SocketAddr,
        step: &Step,
        id: &str,
    ) -> Result<Response<Incoming>, hyper::Error> {
        let request = request(step, id);
        match self {
            Client::Http1(connection) => {
                let mut sender = match connection.take() {
                    Some(kept) if !kept.is_closed() => kept,
                    _ => {
                        let (sender, driver) = http1::handshake(connect(gateway).await).await?;
                        tokio::spawn(driver);
                        sender
                    }
                };
                sender.ready().await?;
                connection.insert(sender).send_request(request).await
            }
            Client::Http2(connection) => {
                let mut sender = match connection.take() {
                    Some(kept) if !kept.is_closed() => kept,
                    _ => {
                        let stream = connect(gateway).await;
                        let (sender, driver) =
                            http2::handshake(TokioExecutor::new(), stream).await?;
                        tokio::spawn(driver);
                        sender
                    }
                };
                sender.ready().await?;
                connection.insert(sender).send_request(request).await
            }
        }
    }
}

async fn connect(gateway: SocketAddr) -> TokioIo<TcpStream> {
    let stream = TcpStream::connect(gateway).await;
    let stream = stream.expect("the proxy listens");
    stream.set_nodelay(true).expect("an open socket");
    TokioIo::new(stream)
}

fn request(step: &Step, id: &str) -> Request<Payload> {
    let mut request = Request::builder()
        .method(step.method)
        .uri(format!("http://shop.test{}", step.path))
        .header("host", "shop.test")
        .header(ID, id);
    if step.keyed {
        request = request.header("idempotency-key", id);
    }
    let payload = Payload {
        left: step.body,
        streamed: step.streamed,
    };
    request.body(payload).expect("a valid request")
}

/// So many bytes in pieces.
pub struct Payload {
    left: usize,
    streamed: bool,
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        const PIECE: [u8; 8 * 1024] = [b'y'; 8 * 1024];
        let len = self.left.min(PIECE.len());
        if len == 0 {
            return Poll::Ready(None);
        }
        self.left -= len;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&PIECE[..len])))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        match self.streamed {
            true => SizeHint::default(),
            false => SizeHint::with_exact(self.left as u64),
        }
    }
}
