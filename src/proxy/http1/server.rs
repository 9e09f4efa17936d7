//! The server side of HTTP/1: one request after another on a connection, answered in order.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::codec::{self, Framing, Hop, Persistence, Refusal};
use super::conn::Conn;
use crate::base::timer::Timer;
use crate::model::OnHalfClose;
use crate::proxy::failure::Failure;
use crate::proxy::http::body::{Cut, Sink, Size, Source};
use crate::proxy::http::downstream::Downstream;
use crate::proxy::http::forward::{self, Scratch, Served};
use crate::proxy::http::head::{Fields, Known, Method, ResponseHead, Version};
use crate::proxy::http::{respond, tunnel};
use crate::proxy::session::Session;

/// Protocols a client may switch a connection to.
const UPGRADES: &[&[u8]] = &[b"websocket"];
/// After the last answer the client gets so long, and may send so much, before the connection is torn down; closing at
/// once would destroy the answer on its way.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// What follows a request on its connection.
enum Next {
    Request,
    /// Close after the client has had time to read.
    Linger,
    Close,
    Tunnel(Box<tunnel::Tunnel>),
}

/// Serves a connection until it ends.
pub async fn serve(session: Session, mut conn: Conn) {
    let mut timer = Timer::default();
    loop {
        if !park(&session, &mut conn, &mut timer).await {
            return;
        }
        // The state of a request under way is large, and an idle connection should not hold it.
        match Box::pin(one(&session, &mut conn, &mut timer)).await {
            Next::Request => {}
            Next::Linger => return Box::pin(linger(&mut conn)).await,
            Next::Close => return,
            Next::Tunnel(tunnel) => {
                let (stream, before) = conn.into_parts();
                return Box::pin(tunnel.run(&session, stream, before)).await;
            }
        }
    }
}

/// Waits for the first bytes of a request, holding no buffer. False when none will come.
async fn park(session: &Session, conn: &mut Conn, timer: &mut Timer) -> bool {
    if conn.has_unread() {
        return true;
    }
    conn.rest();
    let since = Instant::now();
    let idle_at = since + session.worker.settings.downstream_idle_timeout;
    poll_fn(|cx| {
        if let Poll::Ready(filled) = conn.poll_fill(cx) {
            return Poll::Ready(filled.is_ok_and(|count| count > 0));
        }
        if session.worker.takes_shedding() {
            return Poll::Ready(false);
        }
        let quiet_at = session.worker.quiet_at(since).unwrap_or(idle_at);
        timer.poll(cx, quiet_at.min(idle_at)).map(|()| false)
    })
    .await
}

async fn one(session: &Session, conn: &mut Conn, timer: &mut Timer) -> Next {
    let mut scratch = session.worker.take_scratch();
    let next = match read_head(session, conn, timer, &mut scratch).await {
        Ok(Some(hop)) => answer(session, conn, timer, &mut scratch, hop).await,
        Ok(None) => Next::Close,
        Err(failure) => refuse(session, conn, timer, &mut scratch, failure).await,
    };
    session.worker.give_scratch(scratch);
    next
}

/// Reads a request's head. `None`: the client left before it was complete.
async fn read_head(
    session: &Session,
    conn: &mut Conn,
    timer: &mut Timer,
    scratch: &mut Scratch,
) -> Result<Option<Hop>, Failure> {
    let mut deadline = None;
    loop {
        let limits = scratch.limits;
        if conn.has_unread()
            && conn
                .parse_request(&limits, &mut scratch.request)
                .map_err(bad_request)?
        {
            break;
        }
        let deadline = *deadline
            .get_or_insert_with(|| Instant::now() + session.worker.settings.header_timeout);
        let filled = poll_fn(|cx| match conn.poll_fill(cx) {
            Poll::Ready(filled) => Poll::Ready(Some(filled)),
            Poll::Pending => timer.poll(cx, deadline).map(|()| None),
        });
        match filled.await {
            None => return Err(Failure::RequestTimeout),
            Some(Ok(0) | Err(_)) => return Ok(None),
            Some(Ok(_)) => {}
        }
    }
    let framing = codec::request_framing(&scratch.request).map_err(bad_request)?;
    let hop = codec::strip_hop_by_hop(&mut scratch.request.fields).map_err(bad_request)?;
    conn.begin_read(framing);
    Ok(Some(hop))
}

fn bad_request(refusal: Refusal) -> Failure {
    Failure::BadRequest {
        status: refusal.status,
        reason: refusal.reason,
    }
}

async fn answer(
    session: &Session,
    conn: &mut Conn,
    timer: &mut Timer,
    scratch: &mut Scratch,
    hop: Hop,
) -> Next {
    let version = scratch.request.version;
    if let Some(protocol) = allowed_upgrade(&hop, version) {
        scratch
            .request
            .fields
            .push_known(Known::Upgrade, b"Upgrade", protocol);
    }
    // After a CONNECT that opens no tunnel, what follows may be bytes for the tunnel and not a request.
    let keep_alive = hop.is_persistent(version) && scratch.request.method != Method::Connect;
    let mut down = Request::new(session, conn, timer, scratch, keep_alive);
    let served = forward::serve(session, &mut down, scratch).await;
    let (head_sent, keep_alive) = (down.head_sent, down.keep_alive);
    match served {
        Served::Tunnel(tunnel) => Next::Tunnel(tunnel),
        Served::Broken => Next::Close,
        Served::Done if keep_alive && head_sent && conn.is_between_messages() => Next::Request,
        Served::Done => Next::Linger,
    }
}

/// An upgrade that is allowed here; any other is ignored (RFC 9110, section 7.8).
fn allowed_upgrade(hop: &Hop, version: Version) -> Option<&[u8]> {
    let protocol = hop
        .upgrade
        .as_deref()
        .filter(|_| version == Version::Http11)?;
    UPGRADES
        .iter()
        .any(|allowed| protocol.eq_ignore_ascii_case(allowed))
        .then_some(protocol)
}

/// Answers bytes that are no request.
async fn refuse(
    session: &Session,
    conn: &mut Conn,
    timer: &mut Timer,
    scratch: &mut Scratch,
    failure: Failure,
) -> Next {
    let mut exchange = session.begin();
    let answer = failure.answer();
    exchange.status = answer.status;
    exchange.flag(answer.flag);
    exchange.details = answer.message;
    let mut down = Request::new(session, conn, timer, scratch, false);
    down.is_head = false;
    let limit = Instant::now() + LINGER;
    if let Ok(Ok(bytes)) = tokio::time::timeout_at(
        limit,
        respond::refuse(session, &mut down, &scratch.request, &failure, None),
    )
    .await
    {
        exchange.bytes_out = bytes;
    }
    session.finish(&exchange, &scratch.request);
    Next::Linger
}

/// Closes our half, and reads a little of what the client still sends, so that its answer is not lost to a reset.
async fn linger(conn: &mut Conn) {
    let mut budget = LINGER_BYTES_MAX;
    let drained = poll_fn(|cx| -> Poll<io::Result<()>> {
        ready!(conn.poll_flush(cx)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        ready!(conn.poll_shutdown(cx))?;
        loop {
            let count = ready!(conn.poll_discard(cx))?;
            if count == 0 || count > budget {
                return Poll::Ready(Ok(()));
            }
            budget -= count;
        }
    });
    let _ = timeout(LINGER, drained).await;
}

/// One request on an HTTP/1 connection, as the path of a request sees it.
struct Request<'a> {
    session: &'a Session,
    conn: &'a mut Conn,
    timer: &'a mut Timer,
    version: Version,
    is_head: bool,
    is_connect: bool,
    keep_alive: bool,
    /// The client sends its body when it is told to, if that is at all.
    awaits_continue: bool,
    head_sent: bool,
}

impl<'a> Request<'a> {
    fn new(
        session: &'a Session,
        conn: &'a mut Conn,
        timer: &'a mut Timer,
        scratch: &Scratch,
        keep_alive: bool,
    ) -> Self {
        Self {
            session,
            conn,
            timer,
            version: scratch.request.version,
            is_head: scratch.request.method == Method::Head,
            is_connect: scratch.request.method == Method::Connect,
            keep_alive,
            awaits_continue: codec::expects_continue(&scratch.request.fields),
            head_sent: false,
        }
    }

    /// How the answer's body is delimited for this client.
    fn framing(&mut self, head: &ResponseHead, size: Size) -> Framing {
        let has_no_body = self.is_head
            || matches!(head.status, 100..200 | 204 | 304)
            || (self.is_connect && (200..300).contains(&head.status));
        match size {
            _ if has_no_body => Framing::None,
            Size::None => Framing::Length(0),
            Size::Exact(length) => Framing::Length(length),
            Size::Unknown if self.version == Version::Http10 => {
                self.keep_alive = false;
                Framing::UntilClose
            }
            Size::Unknown => Framing::Chunked,
        }
    }
}

impl Downstream for Request<'_> {
    fn size(&self) -> Size {
        self.conn.body_size()
    }

    fn timer(&mut self) -> &mut Timer {
        self.timer
    }

    fn has_prior_knowledge(&self) -> bool {
        false
    }

    fn send_interim(&mut self, head: &ResponseHead) -> Result<(), Cut> {
        self.awaits_continue &= head.status != 100;
        // HTTP/1.0 knows no informational answers (RFC 9110, section 15.2).
        if self.version != Version::Http10 {
            let encode = |out: &mut Vec<u8>| {
                codec::encode_response(head, &Framing::None, Persistence::KeepAlive, out);
            };
            self.conn.queue(encode);
        }
        Ok(())
    }

    fn send_head(&mut self, head: &ResponseHead, size: Size) -> Result<(), Cut> {
        let framing = self.framing(head, size);
        self.keep_alive &= !self.session.worker.is_draining();
        if self.awaits_continue && !self.conn.is_read_done() && !self.conn.has_unread() {
            // Whether the body comes now is the client's choice, so no request can be told from it (RFC 9110, section 10.1.1).
            self.keep_alive = false;
        }
        let opens_tunnel =
            head.status == 101 || (self.is_connect && (200..300).contains(&head.status));
        let persistence = match (self.keep_alive, self.version) {
            (false, _) if !opens_tunnel => Persistence::Close,
            (true, Version::Http10) => Persistence::KeepAliveExplicit,
            _ => Persistence::KeepAlive,
        };
        self.head_sent = true;
        self.conn.begin_write(framing, |out| {
            codec::encode_response(head, &framing, persistence, out)
        });
        Ok(())
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>, on_half_close: OnHalfClose) -> Poll<Cut> {
        let cancel = on_half_close == OnHalfClose::Cancel;
        // Pipelined bytes tell nothing. A FIN may stand behind them, so where it counts they are read, as far as there is room.
        while !self.conn.is_read_closed()
            && (!self.conn.has_unread() || (cancel && !self.conn.is_read_full()))
        {
            if let Err(error) = ready!(self.conn.poll_fill(cx)) {
                return Poll::Ready(Cut::Gone(error));
            }
        }
        match cancel && self.conn.is_read_closed() {
            true => Poll::Ready(Cut::Gone(io::ErrorKind::UnexpectedEof.into())),
            // A FIN may be a half-close: the client may still be reading.
            false => Poll::Pending,
        }
    }

    fn poll_reset(&mut self, _: &mut Context<'_>) -> Poll<Cut> {
        Poll::Pending
    }

    fn take_back(&mut self) -> bool {
        self.conn.take_back()
    }

    fn cut(&mut self) {
        self.keep_alive = false;
        self.conn.stream().reset_on_close();
    }

    fn decline_body(&mut self) {
        self.keep_alive &= self.conn.skip_body();
    }
}

impl Source for Request<'_> {
    #[inline]
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, Cut>> {
        self.conn.poll_chunk(cx).map_err(|cut| match cut {
            Cut::Gone(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Cut::Malformed("the request's body is incomplete")
            }
            cut => cut,
        })
    }

    fn consume(&mut self, count: usize) {
        self.awaits_continue = false;
        self.conn.consume(count);
    }

    fn trailers(&self) -> Option<&Fields> {
        self.conn.trailers()
    }
}

impl Sink for Request<'_> {
    #[inline]
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Cut>> {
        self.conn.poll_write(cx, bytes)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        self.conn.poll_flush(cx)
    }

    fn poll_finish(
        &mut self,
        cx: &mut Context<'_>,
        trailers: Option<&Fields>,
    ) -> Poll<Result<(), Cut>> {
        self.conn.poll_finish(cx, trailers)
    }
}
