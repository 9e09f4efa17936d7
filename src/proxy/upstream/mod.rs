//! Upstream connections: making them, keeping them per worker, and one exchange on either version of HTTP.

pub(super) mod connect;
mod pool;

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

pub use connect::{Connected, Guise, connect};
pub use pool::{OpenError, Pool, Wanted};

use crate::base::buffer::Buffer;
use crate::base::net::Stream;

use super::cluster::{Cluster, ConnectionPermit};
use super::http::body::{Cut, Sink, Size, Source};
use super::http::head::{Fields, Known, Method, RequestHead, ResponseHead};
use super::http1::codec::{self, Framing, Limits};
use super::http1::conn::Conn;
use super::http2::client as http2;

/// One request on its way to an endpoint, and its answer.
pub enum Upstream {
    Http1(Http1),
    Http2(http2::Exchange),
}

/// An HTTP/1 connection leased for one request.
pub struct Http1 {
    conn: Box<Conn>,
    permit: ConnectionPermit,
    cluster: Arc<Cluster>,
    key: pool::Key,
    /// It has carried a request before, so its peer may be closing it right now.
    pub reused: bool,
    answered: bool,
    /// The final head has come, and the connection may be used again once its body has.
    keep_alive: bool,
    keep_alive_timeout: Option<Duration>,
}

impl Http1 {
    /// Queues the head; the copy of the body flushes it.
    fn begin(&mut self, head: &RequestHead, size: Size) {
        let framing = match size {
            // RFC 9110, section 8.6: where a body could be, its absence is said; and what the client said stays.
            Size::None if head.method.expects_content() => Framing::Length(0),
            Size::None if head.fields.contains(Known::ContentLength) => Framing::Length(0),
            Size::None => Framing::None,
            Size::Exact(length) => Framing::Length(length),
            Size::Unknown => Framing::Chunked,
        };
        self.answered = false;
        self.keep_alive = false;
        self.conn
            .begin_write(framing, |out| codec::encode_request(head, &framing, out));
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        limits: &Limits,
        method: &Method,
        head: &mut ResponseHead,
    ) -> Poll<Result<(), Cut>> {
        loop {
            if !self.conn.unread_is_empty() {
                match self.conn.parse_response(limits, head) {
                    Ok(true) => break,
                    Ok(false) => {}
                    Err(error) => return Poll::Ready(Err(Cut::Malformed(error.reason))),
                }
            }
            if ready!(self.conn.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(Cut::Gone(std::io::ErrorKind::UnexpectedEof.into())));
            }
        }
        let hop = match codec::strip_hop_by_hop(&mut head.fields) {
            Ok(hop) => hop,
            Err(refusal) => return Poll::Ready(Err(Cut::Malformed(refusal.reason))),
        };
        if !head.is_interim() {
            let framing = match codec::response_framing(head, method) {
                Ok(framing) => framing,
                Err(error) => return Poll::Ready(Err(Cut::Malformed(error.reason))),
            };
            self.answered = true;
            self.keep_alive = framing != Framing::UntilClose && hop.is_persistent(head.version);
            self.keep_alive_timeout = hop
                .keep_alive_seconds
                .map(|seconds| Duration::from_secs(seconds.into()));
            if let (101, Some(protocol)) = (head.status, &hop.upgrade) {
                head.fields.push_known(Known::Upgrade, b"Upgrade", protocol);
            }
            self.conn.begin_read(framing);
        }
        Poll::Ready(Ok(()))
    }
}

impl Upstream {
    /// No byte of an answer has arrived.
    pub fn is_unanswered(&self) -> bool {
        match self {
            Upstream::Http1(http1) => !http1.answered && http1.conn.unread_is_empty(),
            Upstream::Http2(_) => true,
        }
    }

    pub fn is_reused(&self) -> bool {
        matches!(self, Upstream::Http1(http1) if http1.reused)
    }

    /// The next head of the answer: informational ones first, then the final one.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        limits: &Limits,
        method: &Method,
        head: &mut ResponseHead,
    ) -> Poll<Result<(), Cut>> {
        match self {
            Upstream::Http1(http1) => http1.poll_head(cx, limits, method, head),
            Upstream::Http2(http2) => http2.poll_head(cx, head),
        }
    }

    /// The size of the answer's body, once its final head has come.
    pub fn size(&self, head: &ResponseHead) -> Size {
        match self {
            Upstream::Http1(http1) => http1.conn.body_size(),
            Upstream::Http2(http2) => http2.size(head),
        }
    }

    /// The raw stream and what was read ahead, after the upstream switched protocols.
    pub fn into_tunnel(self) -> Option<(Stream, Buffer, ConnectionPermit)> {
        let Upstream::Http1(http1) = self else {
            return None;
        };
        let (stream, before) = http1.conn.into_parts();
        Some((stream, before, http1.permit))
    }

    /// Cuts the request short: its upstream must not take what it got for the whole.
    pub fn cut(&mut self) {
        match self {
            Upstream::Http1(http1) => http1.conn.stream().reset_on_close(),
            Upstream::Http2(http2) => http2.reset(h2::Reason::CANCEL),
        }
    }
}

impl Source for Upstream {
    #[inline]
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, Cut>> {
        match self {
            Upstream::Http1(http1) => http1.conn.poll_chunk(cx),
            Upstream::Http2(http2) => http2.poll_chunk(cx),
        }
    }

    fn consume(&mut self, count: usize) {
        match self {
            Upstream::Http1(http1) => http1.conn.consume(count),
            Upstream::Http2(http2) => http2.consume(count),
        }
    }

    fn trailers(&self) -> Option<&Fields> {
        match self {
            Upstream::Http1(http1) => http1.conn.trailers(),
            Upstream::Http2(http2) => http2.trailers(),
        }
    }
}

impl Sink for Upstream {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Cut>> {
        match self {
            Upstream::Http1(http1) => http1.conn.poll_write(cx, bytes),
            Upstream::Http2(http2) => http2.poll_write(cx, bytes),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        match self {
            Upstream::Http1(http1) => http1.conn.poll_flush(cx),
            Upstream::Http2(http2) => http2.poll_flush(cx),
        }
    }

    fn poll_finish(
        &mut self,
        cx: &mut Context<'_>,
        trailers: Option<&Fields>,
    ) -> Poll<Result<(), Cut>> {
        match self {
            Upstream::Http1(http1) => http1.conn.poll_finish(cx, trailers),
            Upstream::Http2(http2) => http2.poll_finish(cx, trailers),
        }
    }
}
