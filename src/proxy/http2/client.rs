//! The client side of HTTP/2: one connection carries the requests of its worker to one endpoint.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};

use super::body::{Reader, Writer, cut};
use super::head;
use super::keepalive::{Heard, KeepAlive, SERVER_SILENCE, Seen};
use crate::base::net::Stream;
use crate::proxy::cluster::ConnectionPermit;
use crate::proxy::http::body::{Cut, Sink, Size, Source};
use crate::proxy::http::head::{Fields, RequestHead, ResponseHead, Scheme};

/// Credit for one answer's body, and for all of a connection's.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Body bytes that wait in `h2` for the peer's credit, for each stream.
const SEND_BUFFER: usize = 128 * 1024;
const HEADER_LIST_MAX: u32 = 64 * 1024;

/// A connection that takes requests until it is closed or told to go away.
#[derive(Clone)]
pub struct Connection {
    send: SendRequest<Bytes>,
    scheme: Scheme,
    closed: Rc<Cell<bool>>,
    in_use: Rc<Cell<usize>>,
}

impl Connection {
    /// Speaks HTTP/2 on `stream` and keeps driving it on this thread until it closes; the permit is held as long.
    pub async fn open(stream: Stream, permit: ConnectionPermit) -> io::Result<Self> {
        let scheme = if stream.is_tls() {
            Scheme::Https
        } else {
            Scheme::Http
        };
        let reads = Rc::default();
        let (send, mut connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(HEADER_LIST_MAX)
            .enable_push(false)
            .handshake::<_, Bytes>(Heard::new(stream, Rc::clone(&reads)))
            .await
            .map_err(io::Error::other)?;
        let closed = Rc::new(Cell::new(false));
        let in_use = Rc::default();
        let (seen, used) = (closed.clone(), Rc::clone(&in_use));
        let keep_alive = connection
            .ping_pong()
            .map(|ping| KeepAlive::new(ping, SERVER_SILENCE));
        tokio::task::spawn_local(async move {
            drive(connection, keep_alive, &reads, &used).await;
            seen.set(true);
            drop(permit);
        });
        Ok(Self {
            send,
            scheme,
            closed,
            in_use,
        })
    }

    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    pub fn in_use(&self) -> usize {
        self.in_use.get()
    }

    /// Another stream may be opened now.
    pub fn has_room(&self) -> bool {
        !self.is_closed() && self.in_use.get() < self.send.current_max_send_streams()
    }

    /// Opens a stream with this head; the body, if any, follows by the returned exchange.
    pub async fn request(&self, head: &RequestHead, size: Size) -> Result<Exchange, Cut> {
        let request = head::write_request(head, self.scheme).map_err(Cut::Malformed)?;
        let mut ready = self.send.clone().ready().await.map_err(cut)?;
        let (response, stream) = ready
            .send_request(request, size == Size::None)
            .map_err(cut)?;
        Ok(Exchange {
            response: Some(response),
            reader: None,
            writer: Writer::new(stream, size),
            _in_use: InUse::new(&self.in_use),
        })
    }
}

/// Drives a connection until it closes, or is found dead while streams wait for it. Why it ended reaches the streams on
/// it, each of which reports it.
async fn drive(
    mut connection: h2::client::Connection<Heard, Bytes>,
    mut keep_alive: Option<KeepAlive>,
    reads: &Cell<u64>,
    in_use: &Cell<usize>,
) {
    poll_fn(|cx| {
        if Pin::new(&mut connection).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match &mut keep_alive {
            Some(keep_alive) if in_use.get() > 0 => keep_alive.poll(
                cx,
                Seen {
                    reads: reads.get(),
                    // New requests go out to a dead server just as well.
                    written: 0,
                },
            ),
            _ => Poll::Pending,
        }
    })
    .await;
}

/// Counts a stream on its connection until dropped.
struct InUse(Rc<Cell<usize>>);

impl InUse {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(count.clone())
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// One request and its answer. Dropping it before the end resets the stream.
pub struct Exchange {
    response: Option<ResponseFuture>,
    reader: Option<Reader>,
    writer: Writer,
    _in_use: InUse,
}

impl Exchange {
    /// The next head of the answer: informational ones first, then the final one.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut ResponseHead,
    ) -> Poll<Result<(), Cut>> {
        let Some(response) = &mut self.response else {
            return Poll::Ready(Err(Cut::Malformed("an answer after the answer")));
        };
        if let Poll::Ready(Some(interim)) = response.poll_informational(cx) {
            let (parts, ()) = interim.map_err(cut)?.into_parts();
            head::read_response(&parts, head);
            return Poll::Ready(Ok(()));
        }
        let (parts, body) = ready!(Pin::new(response).poll(cx))
            .map_err(cut)?
            .into_parts();
        head::read_response(&parts, head);
        self.response = None;
        self.reader = Some(Reader::new(body));
        Poll::Ready(Ok(()))
    }

    /// The size of the answer's body, once its final head has come.
    pub fn size(&self, head: &ResponseHead) -> Size {
        self.reader
            .as_ref()
            .map_or(Size::None, |reader| reader.size(&head.fields))
    }

    /// Cuts the request, so that what was sent of it cannot pass as whole.
    pub fn reset(&mut self, reason: h2::Reason) {
        self.writer.reset(reason);
    }
}

impl Source for Exchange {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, Cut>> {
        match &mut self.reader {
            Some(reader) => reader.poll_chunk(cx),
            None => Poll::Ready(Ok(None)),
        }
    }

    fn consume(&mut self, count: usize) {
        if let Some(reader) = &mut self.reader {
            reader.consume(count);
        }
    }

    fn trailers(&self) -> Option<&Fields> {
        self.reader.as_ref()?.trailers()
    }
}

impl Sink for Exchange {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Cut>> {
        self.writer.poll_write(cx, bytes)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        self.writer.poll_flush(cx)
    }

    fn poll_finish(
        &mut self,
        cx: &mut Context<'_>,
        trailers: Option<&Fields>,
    ) -> Poll<Result<(), Cut>> {
        self.writer.poll_finish(cx, trailers)
    }
}
