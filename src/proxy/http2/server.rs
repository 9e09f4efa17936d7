//! The server side of HTTP/2: a connection whose streams are requests, each a task of its own on this thread.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use tokio::time::Instant;

use super::body::{Reader, Writer, cut};
use super::budgets::{Counted, Counts};
use super::head;
use crate::base::buffer::Buffer;
use crate::base::net::Stream;
use crate::base::timer::Timer;
use crate::model::OnHalfClose;
use crate::proxy::failure::Failure;
use crate::proxy::http::body::{Cut, Sink, Size, Source};
use crate::proxy::http::downstream::Downstream;
use crate::proxy::http::forward;
use crate::proxy::http::head::{Fields, ResponseHead};
use crate::proxy::http::respond;
use crate::proxy::session::Session;

/// Credit for one request's body, and for all of a connection's.
const STREAM_WINDOW: u32 = 512 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;
/// Answer bytes that wait in `h2` for the client's credit, for each stream.
const SEND_BUFFER: usize = 128 * 1024;
/// Resets that a client provokes from us before it is told to calm down.
const PROVOKED_RESETS_MAX: usize = 100;
/// After a GOAWAY the client gets so long to finish what it has begun.
const CALM_DOWN: Duration = Duration::from_secs(1);

type Connection = h2::server::Connection<Counted, Bytes>;

/// Why a connection ends.
enum End {
    Closed,
    Draining,
    Idle,
    Flood(&'static str),
}

/// Serves a connection until it ends. `before` was read already.
pub async fn serve(session: Session, stream: Stream, before: Buffer) {
    let session = Rc::new(session);
    let counts = Rc::new(Counts::default());
    let head_bytes_max = session.worker.settings.head_limits.head_bytes_max;
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(head_bytes_max).unwrap_or(u32::MAX))
        .max_frame_size(16_384)
        .max_concurrent_streams(session.worker.settings.http2_streams_max)
        .max_local_error_reset_streams(Some(PROVOKED_RESETS_MAX))
        .max_pending_accept_reset_streams(PROVOKED_RESETS_MAX)
        .max_concurrent_reset_streams(PROVOKED_RESETS_MAX);
    let handshake = builder.handshake::<_, Bytes>(Counted::server(stream, before, counts.clone()));
    let limit = session.worker.settings.header_timeout;
    let Ok(Ok(mut connection)) = tokio::time::timeout(limit, handshake).await else {
        return;
    };
    match run(&session, &mut connection, &counts).await {
        End::Closed => {}
        End::Draining | End::Idle => {
            connection.graceful_shutdown();
            finish(&session, &mut connection, &counts).await;
        }
        End::Flood(reason) => {
            tracing::warn!(peer = %session.peer, reason, "HTTP/2 connection ended");
            connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            let closed = poll_fn(|cx| connection.poll_closed(cx));
            let _ = tokio::time::timeout(CALM_DOWN, closed).await;
        }
    }
}

/// Takes requests until the connection is to end.
async fn run(session: &Rc<Session>, connection: &mut Connection, counts: &Rc<Counts>) -> End {
    let mut timer = Timer::default();
    let idle_timeout = session.worker.settings.downstream_idle_timeout;
    let mut idle_since = Instant::now();
    loop {
        let next = poll_fn(|cx| {
            if let Poll::Ready(next) = connection.poll_accept(cx) {
                return Poll::Ready(
                    next.map_or(Err(End::Closed), |next| next.map_err(|_| End::Closed)),
                );
            }
            if let Some(reason) = counts.exceeded() {
                return Poll::Ready(Err(End::Flood(reason)));
            }
            if session.worker.is_draining() {
                return Poll::Ready(Err(End::Draining));
            }
            if connection.has_streams() {
                idle_since = Instant::now();
            }
            while timer.poll(cx, idle_since + idle_timeout).is_ready() {
                if !connection.has_streams() {
                    return Poll::Ready(Err(End::Idle));
                }
                idle_since = Instant::now();
            }
            Poll::Pending
        });
        match next.await {
            Ok((request, respond)) => {
                if let Some(reason) = counts.exceeded() {
                    return End::Flood(reason);
                }
                idle_since = Instant::now();
                tokio::task::spawn_local(boxed(session.clone(), counts.clone(), request, respond));
            }
            Err(end) => return end,
        }
    }
}

/// Serves what was begun before the GOAWAY.
async fn finish(session: &Rc<Session>, connection: &mut Connection, counts: &Rc<Counts>) {
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::task::spawn_local(boxed(session.clone(), counts.clone(), request, respond));
    }
}

/// The state of a request is large; on the heap it is moved once, not at every step of becoming a task.
fn boxed(
    session: Rc<Session>,
    counts: Rc<Counts>,
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
) -> Pin<Box<impl Future<Output = ()>>> {
    Box::pin(stream(session, counts, request, respond))
}

async fn stream(
    session: Rc<Session>,
    counts: Rc<Counts>,
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let (parts, body) = request.into_parts();
    let mut scratch = session.worker.take_scratch();
    let read = head::read_request(&parts, &mut scratch.request);
    drop(parts);
    let reader = Reader::new(body);
    let mut down = Request {
        size: reader.size(&scratch.request.fields),
        reader,
        respond,
        writer: None,
        timer: Timer::default(),
        prior_knowledge: !session.tls,
    };
    match read {
        Ok(()) => {
            forward::serve(&session, &mut down, &mut scratch).await;
        }
        Err(reason) => {
            let mut exchange = session.begin();
            let failure = Failure::BadRequest {
                status: 400,
                reason,
            };
            exchange.status = 400;
            exchange.flag(failure.answer().flag);
            exchange.details = reason.to_owned();
            let _ = respond::refuse(&mut down, &scratch.request, &failure).await;
            down.decline_body();
            session.finish(&exchange, &scratch.request);
        }
    }
    if down.writer.as_ref().is_some_and(Writer::is_whole) {
        counts.stream_ended();
    }
    session.worker.give_scratch(scratch);
}

/// One stream, as the path of a request sees it.
struct Request {
    reader: Reader,
    size: Size,
    respond: SendResponse<Bytes>,
    writer: Option<Writer>,
    timer: Timer,
    prior_knowledge: bool,
}

impl Downstream for Request {
    fn size(&self) -> Size {
        self.size
    }

    fn timer(&mut self) -> &mut Timer {
        &mut self.timer
    }

    fn has_prior_knowledge(&self) -> bool {
        self.prior_knowledge
    }

    fn send_interim(&mut self, head: &ResponseHead) -> Result<(), Cut> {
        self.respond
            .send_informational(head::write_response(head))
            .map_err(cut)
    }

    fn send_head(&mut self, head: &ResponseHead, size: Size) -> Result<(), Cut> {
        let ends = size == Size::None;
        let stream = self
            .respond
            .send_response(head::write_response(head), ends)
            .map_err(cut)?;
        self.writer = Some(Writer::new(stream, size));
        Ok(())
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>, _: OnHalfClose) -> Poll<Cut> {
        match &mut self.writer {
            Some(writer) => writer.poll_reset(cx),
            None => self.respond.poll_reset(cx).map(|result| match result {
                Ok(reason) => Cut::Reset(reason),
                Err(error) => cut(error),
            }),
        }
    }

    fn cut(&mut self) {
        match &mut self.writer {
            Some(writer) => writer.reset(Reason::INTERNAL_ERROR),
            None => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }

    fn decline_body(&mut self) {
        // Dropping an unread body makes `h2` send RST_STREAM(NO_ERROR) once the answer is out (RFC 9113, section 8.1); a
        // reset from here would overtake the answer.
    }
}

impl Source for Request {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, Cut>> {
        self.reader.poll_chunk(cx)
    }

    fn consume(&mut self, count: usize) {
        self.reader.consume(count);
    }

    fn trailers(&self) -> Option<&Fields> {
        self.reader.trailers()
    }
}

impl Sink for Request {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Cut>> {
        match &mut self.writer {
            Some(writer) => writer.poll_write(cx, bytes),
            None => Poll::Ready(Err(Cut::Malformed("a body before its head"))),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        self.writer
            .as_mut()
            .map_or(Poll::Ready(Ok(())), |writer| writer.poll_flush(cx))
    }

    fn poll_finish(
        &mut self,
        cx: &mut Context<'_>,
        trailers: Option<&Fields>,
    ) -> Poll<Result<(), Cut>> {
        self.writer.as_mut().map_or(Poll::Ready(Ok(())), |writer| {
            writer.poll_finish(cx, trailers)
        })
    }
}
