//! The server side of HTTP/2: a connection whose streams are requests, each a task of its own on this thread.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use tokio::time::Instant;

use super::body::{Reader, Writer, cut};
use super::budgets::{Counted, Counts, InFlight};
use super::head;
use super::keepalive::{CLIENT_SILENCE, KeepAlive, Seen};
use crate::base::buffer::Buffer;
use crate::base::net::Stream;
use crate::base::timer::Timer;
use crate::model::OnHalfClose;
use crate::proxy::failure::Failure;
use crate::proxy::http::body::{Cut, Sink, Size, Source};
use crate::proxy::http::downstream::Downstream;
use crate::proxy::http::forward;
use crate::proxy::http::head::{Fields, RequestHead, ResponseHead};
use crate::proxy::http::respond;
use crate::proxy::session::Session;
use crate::proxy::settings::Settings;

/// Credit for one request's body, and for all of a connection's.
const STREAM_WINDOW: u32 = 512 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;
/// Answer bytes that wait in `h2` for the client's credit, for each stream.
const SEND_BUFFER: usize = 128 * 1024;
/// Resets that a client provokes from us before it is told to calm down.
const PROVOKED_RESETS_MAX: usize = 100;
/// After a GOAWAY the client gets so long to take note of it.
const PARTING: Duration = Duration::from_secs(1);
/// And so long to take what it has asked for before, once all of it is answered.
const TAKING: Duration = Duration::from_secs(10);

type Connection = h2::server::Connection<Counted, Bytes>;
type Incoming = (http::Request<RecvStream>, SendResponse<Bytes>);

/// Why a connection ends.
enum End {
    Closed,
    Draining,
    Idle,
    /// A head was begun and not finished.
    HeadTimeout,
    /// It answers no PING any more.
    Dead,
    Flood(&'static str),
}

/// Serves a connection until it ends. `before` was read already.
pub async fn serve(session: Session, stream: Stream, before: Buffer) {
    let session = Rc::new(session);
    let counts = Rc::new(Counts::default());
    let handshake = builder(&session.worker.settings).handshake(Counted::server(
        stream,
        before,
        counts.clone(),
    ));
    let limit = session.worker.settings.header_timeout;
    let Ok(Ok(mut connection)) = tokio::time::timeout(limit, handshake).await else {
        return;
    };
    let Some(ping) = connection.ping_pong() else {
        return;
    };
    let mut served = Served {
        keep_alive: KeepAlive::new(ping, CLIENT_SILENCE),
        session,
        connection,
        counts,
        timer: Timer::default(),
    };
    let mut end = served.run().await;
    if let End::Draining | End::Idle = end {
        end = served.finish().await;
    }
    match end {
        End::Closed => {}
        End::Dead => tracing::debug!(peer = %served.session.peer, "HTTP/2 client is gone"),
        End::Draining | End::Idle | End::HeadTimeout => served.say_goodbye(Reason::NO_ERROR).await,
        End::Flood(reason) => {
            tracing::warn!(peer = %served.session.peer, reason, "HTTP/2 connection ended");
            served.say_goodbye(Reason::ENHANCE_YOUR_CALM).await;
        }
    }
}

fn builder(settings: &Settings) -> h2::server::Builder {
    let head_bytes_max = settings.head_limits.head_bytes_max;
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(head_bytes_max).unwrap_or(u32::MAX))
        .max_frame_size(16_384)
        .max_concurrent_streams(settings.http2_streams_max)
        .max_local_error_reset_streams(Some(PROVOKED_RESETS_MAX))
        .max_pending_accept_reset_streams(PROVOKED_RESETS_MAX)
        .max_concurrent_reset_streams(PROVOKED_RESETS_MAX);
    builder
}

/// A connection, and what ends it.
struct Served {
    session: Rc<Session>,
    connection: Connection,
    counts: Rc<Counts>,
    timer: Timer,
    keep_alive: KeepAlive,
}

impl Served {
    /// Takes requests until the connection is to end.
    async fn run(&mut self) -> End {
        let mut idle = Idle::default();
        loop {
            let next = poll_fn(|cx| {
                if let Poll::Ready(next) = self.poll_request(cx) {
                    return Poll::Ready(next);
                }
                if self.session.worker.is_draining() {
                    return Poll::Ready(Err(End::Draining));
                }
                if self.counts.in_flight() > 0 {
                    idle = Idle::default();
                    return self.poll_dead(cx);
                }
                self.poll_idle(cx, &mut idle)
            });
            match next.await {
                Ok(incoming) => self.begin(incoming),
                Err(end) => return end,
            }
        }
    }

    /// Serves what was begun before the GOAWAY. A client that never answers the PING that comes with it, and so is never told
    /// which stream was the last, can neither hold the connection nor go on using it.
    async fn finish(&mut self) -> End {
        self.connection.graceful_shutdown();
        let late_at = Instant::now() + PARTING;
        let mut is_late = false;
        let mut last_at = None;
        loop {
            let next = poll_fn(|cx| {
                if let Poll::Ready(next) = self.poll_request(cx) {
                    return Poll::Ready(next);
                }
                if !is_late && self.timer.poll(cx, late_at).is_pending() {
                    return self.poll_dead(cx);
                }
                is_late = true;
                if self.counts.in_flight() > 0 {
                    return self.poll_dead(cx);
                }
                if !self.connection.has_streams() {
                    return Poll::Ready(Err(End::Idle));
                }
                // All is answered, and waits for the client to take it.
                let last_at = *last_at.get_or_insert_with(|| Instant::now() + TAKING);
                self.timer.poll(cx, last_at).map(|()| Err(End::Idle))
            });
            match next.await {
                Ok((_, mut respond)) if is_late => respond.send_reset(Reason::REFUSED_STREAM),
                Ok(incoming) => self.begin(incoming),
                Err(end) => return end,
            }
        }
    }

    /// Drives the connection; the next request, as long as fewer than the limit are being worked on. `h2` itself forgets
    /// a stream as soon as it is reset, although its upstream request may still be there.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, End>> {
        self.counts.wait(cx.waker());
        let streams_max = self.session.worker.settings.http2_streams_max as usize;
        let next = if self.counts.in_flight() < streams_max {
            self.connection.poll_accept(cx)
        } else {
            self.connection.poll_closed(cx).map(|_| None)
        };
        match (self.counts.exceeded(), next) {
            (_, Poll::Ready(None | Some(Err(_)))) => Poll::Ready(Err(End::Closed)),
            (Some(reason), _) => Poll::Ready(Err(End::Flood(reason))),
            (None, Poll::Ready(Some(Ok(incoming)))) => Poll::Ready(Ok(incoming)),
            (None, Poll::Pending) => Poll::Pending,
        }
    }

    fn poll_dead(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, End>> {
        let seen = Seen {
            reads: self.counts.reads(),
            // A client on a thin line may have megabytes to take before it comes to our PING.
            written: self.counts.written(),
        };
        self.keep_alive.poll(cx, seen).map(|()| Err(End::Dead))
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>, idle: &mut Idle) -> Poll<Result<Incoming, End>> {
        let settings = &self.session.worker.settings;
        let since = idle.since(self.counts.written());
        let idle_at = since + settings.downstream_idle_timeout;
        let head_at = self
            .counts
            .head_since()
            .map(|at| at + settings.header_timeout);
        let deadline = head_at.map_or(idle_at, |head_at| head_at.min(idle_at));
        self.timer.poll(cx, deadline).map(|()| {
            Err(if head_at == Some(deadline) {
                End::HeadTimeout
            } else {
                End::Idle
            })
        })
    }

    fn begin(&self, (request, respond): Incoming) {
        let in_flight = InFlight::new(&self.counts);
        let (session, counts) = (self.session.clone(), self.counts.clone());
        // The state of a request is large; on the heap it is moved once, not at every step of becoming a task.
        tokio::task::spawn_local(Box::pin(async move {
            stream(session, counts, request, respond).await;
            drop(in_flight);
        }));
    }

    /// Tells the client why, and does not wait for it.
    async fn say_goodbye(mut self, reason: Reason) {
        self.connection.abrupt_shutdown(reason);
        let closed = poll_fn(|cx| self.connection.poll_closed(cx));
        let _ = tokio::time::timeout(PARTING, closed).await;
    }
}

/// Since when nothing has been worked on, and nothing of an answer has gone out.
#[derive(Default)]
struct Idle {
    since: Option<Instant>,
    written: u64,
}

impl Idle {
    fn since(&mut self, written: u64) -> Instant {
        if written != self.written {
            self.written = written;
            self.since = None;
        }
        *self.since.get_or_insert_with(Instant::now)
    }
}

async fn stream(
    session: Rc<Session>,
    counts: Rc<Counts>,
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let begun = Instant::now();
    counts.stream_begun(begun);
    let (parts, body) = request.into_parts();
    let mut scratch = session.worker.take_scratch();
    let read = head::read_request(&parts, &mut scratch.request);
    drop(parts);
    let mut reader = Reader::new(body);
    let mut down = Request {
        size: reader.expect(&scratch.request.fields),
        reader,
        respond,
        writer: None,
        timer: Timer::default(),
        prior_knowledge: !session.tls,
        counts,
        was_cut: false,
    };
    match read {
        Ok(()) => {
            forward::serve(&session, &mut down, &mut scratch).await;
        }
        Err(reason) => refuse(&session, &mut down, &scratch.request, reason).await,
    }
    if down.writer.as_ref().is_some_and(Writer::is_whole) {
        down.counts.stream_ended();
    } else if !down.was_cut && down.is_gone() {
        down.counts.stream_reset(begun);
    }
    session.worker.give_scratch(scratch);
}

/// Answers a request that is malformed in a way that `h2` does not look for.
async fn refuse(
    session: &Session,
    down: &mut Request,
    request: &RequestHead,
    reason: &'static str,
) {
    let mut exchange = session.begin();
    let failure = Failure::BadRequest {
        status: 400,
        reason,
    };
    exchange.status = 400;
    exchange.flag(failure.answer().flag);
    exchange.details = reason.to_owned();
    let _ = respond::refuse(session, down, request, &failure, None).await;
    down.decline_body();
    session.finish(&exchange, request);
}

/// One stream, as the path of a request sees it.
struct Request {
    reader: Reader,
    size: Size,
    respond: SendResponse<Bytes>,
    writer: Option<Writer>,
    timer: Timer,
    prior_knowledge: bool,
    counts: Rc<Counts>,
    /// We cut the answer short while the client was still there.
    was_cut: bool,
}

impl Request {
    /// The stream was reset, or the connection is gone.
    fn is_gone(&mut self) -> bool {
        self.poll_reset(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    }
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
        self.poll_reset(cx)
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Cut> {
        match &mut self.writer {
            Some(writer) => writer.poll_reset(cx),
            None => self.respond.poll_reset(cx).map(|result| match result {
                Ok(reason) => Cut::Reset(reason),
                Err(error) => cut(error),
            }),
        }
    }

    fn take_back(&mut self) -> bool {
        false
    }

    fn cut(&mut self) {
        self.was_cut |= !self.is_gone();
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
        let Some(writer) = &mut self.writer else {
            return Poll::Ready(Err(Cut::Malformed("a body before its head")));
        };
        let count = ready!(writer.poll_write(cx, bytes))?;
        self.counts.piece_sent(count);
        Poll::Ready(Ok(count))
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
