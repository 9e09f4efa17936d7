//! Bodies on an HTTP/2 stream: the `h2` crate's receive and send halves as a [`Source`] and a [`Sink`].

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use http::HeaderMap;

use super::head;
use crate::proxy::http::body::{Cut, Sink, Size, Source};
use crate::proxy::http::head::Fields;

/// Bytes handed to `h2` at once; it copies nothing, so this bounds what a slow peer makes us hold for a stream.
const WRITE_MAX: usize = 64 * 1024;

/// The body that arrives on a stream.
pub struct Reader {
    stream: RecvStream,
    chunk: Bytes,
    trailers: Option<Fields>,
    /// Bytes still to come, where the head promised a number and it matters.
    left: Option<u64>,
    ended: bool,
}

impl Reader {
    pub fn new(stream: RecvStream) -> Self {
        let ended = stream.is_end_stream();
        Self {
            stream,
            chunk: Bytes::new(),
            trailers: None,
            left: None,
            ended,
        }
    }

    /// The size that a request's head promises. Its last byte is then held back until the stream has ended as well, since
    /// to a server it would make whole what still may turn out too long.
    pub fn expect(&mut self, fields: &Fields) -> Size {
        let size = self.size(fields);
        if let Size::Exact(length) = size {
            self.left = Some(length);
        }
        size
    }

    /// Bytes of the chunk at hand that may go on.
    fn offered(&self) -> usize {
        let is_last = self.left == Some(self.chunk.len() as u64);
        let held = is_last && !self.ended && !self.stream.is_end_stream();
        self.chunk.len().saturating_sub(usize::from(held))
    }

    pub fn is_ended(&self) -> bool {
        self.ended && self.chunk.is_empty()
    }

    /// What the head says of the body: ended with it, a content-length, or neither.
    pub fn size(&self, fields: &Fields) -> Size {
        if self.ended {
            return Size::None;
        }
        fields.content_length().map_or(Size::Unknown, Size::Exact)
    }
}

impl Source for Reader {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, Cut>> {
        while !self.ended && self.offered() == 0 {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(bytes)) if self.chunk.is_empty() => self.chunk = bytes,
                // The end of the stream, in a frame of its own; `h2` lets no more bytes pass than were promised.
                Some(Ok(_)) => self.ended = self.stream.is_end_stream(),
                Some(Err(error)) => return Poll::Ready(Err(cut(error))),
                None => {
                    let trailers = ready!(self.stream.poll_trailers(cx)).map_err(cut)?;
                    self.trailers = trailers.as_ref().map(head::fields_of_trailers);
                    self.ended = true;
                }
            }
        }
        let offered = self.offered();
        Poll::Ready(Ok((offered > 0).then(|| &self.chunk[..offered])))
    }

    fn consume(&mut self, count: usize) {
        self.chunk.advance(count);
        if let Some(left) = &mut self.left {
            *left -= count as u64;
        }
        // Fails only for more than was received, which the caller's contract excludes.
        let _ = self.stream.flow_control().release_capacity(count);
    }

    fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_ref()
    }
}

/// The body that leaves on a stream.
pub struct Writer {
    stream: SendStream<Bytes>,
    /// Bytes still to come, where the head promised a number.
    left: Option<u64>,
    /// The last piece, held back until it is known whether it ends the body: one frame less in the common case.
    held: Bytes,
    ended: bool,
    was_reset: bool,
}

impl Writer {
    /// `ended` when the head went out with END_STREAM.
    pub fn new(stream: SendStream<Bytes>, size: Size) -> Self {
        let left = if let Size::Exact(length) = size {
            Some(length)
        } else {
            None
        };
        Self {
            stream,
            left,
            held: Bytes::new(),
            ended: size == Size::None,
            was_reset: false,
        }
    }

    /// Ends the stream at once, so that what was sent cannot pass as whole.
    pub fn reset(&mut self, reason: h2::Reason) {
        self.stream.send_reset(reason);
        self.was_reset = !self.ended;
        self.ended = true;
    }

    /// The body went out to its end.
    pub fn is_whole(&self) -> bool {
        self.ended && !self.was_reset
    }

    /// Ready when the peer reset the stream or the connection is gone.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Cut> {
        self.stream.poll_reset(cx).map(|result| match result {
            Ok(reason) => Cut::Reset(reason),
            Err(error) => cut(error),
        })
    }

    /// Sends what is held back, if anything.
    fn release(&mut self) -> Result<(), Cut> {
        if self.held.is_empty() {
            return Ok(());
        }
        let held = std::mem::take(&mut self.held);
        self.stream.send_data(held, false).map_err(cut)
    }
}

impl Sink for Writer {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Cut>> {
        if self.ended {
            return Poll::Ready(Ok(bytes.len()));
        }
        let mut allowed = bytes.len().min(WRITE_MAX);
        if let Some(left) = self.left {
            allowed = allowed.min(usize::try_from(left).unwrap_or(usize::MAX));
            if allowed == 0 {
                return Poll::Ready(Err(Cut::Malformed("body longer than its content-length")));
            }
        }
        self.release()?;
        self.stream.reserve_capacity(allowed);
        let mut capacity = self.stream.capacity();
        while capacity == 0 {
            capacity = match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(capacity)) => capacity,
                Some(Err(error)) => return Poll::Ready(Err(cut(error))),
                None => return Poll::Ready(Err(Cut::Gone(io::ErrorKind::BrokenPipe.into()))),
            };
        }
        let count = allowed.min(capacity);
        if let Some(left) = &mut self.left {
            *left -= count as u64;
        }
        self.held = Bytes::copy_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        // The connection's own task writes; it has been woken.
        Poll::Ready(self.release())
    }

    fn poll_finish(
        &mut self,
        _: &mut Context<'_>,
        trailers: Option<&Fields>,
    ) -> Poll<Result<(), Cut>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        if self.left.is_some_and(|left| left > 0) {
            return Poll::Ready(Err(Cut::Malformed("body shorter than its content-length")));
        }
        let trailers = trailers.map(head::header_map_of_trailers);
        match trailers.filter(|map: &HeaderMap| !map.is_empty()) {
            Some(map) => {
                self.release()?;
                self.stream.send_trailers(map).map_err(cut)?;
            }
            None => {
                let last = std::mem::take(&mut self.held);
                self.stream.send_data(last, true).map_err(cut)?;
            }
        }
        self.ended = true;
        Poll::Ready(Ok(()))
    }
}

/// What an `h2` error says of the message it cut.
pub fn cut(error: h2::Error) -> Cut {
    if error.is_io() {
        return Cut::Gone(
            error
                .into_io()
                .unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()),
        );
    }
    if error.is_go_away() && error.is_remote() {
        // The streams that the peer has seen go on, and end in their own way.
        return Cut::Unseen;
    }
    match error.reason() {
        Some(reason) if error.is_reset() || error.is_go_away() => Cut::Reset(reason),
        Some(_) => Cut::Malformed("HTTP/2 protocol error"),
        None => Cut::Gone(io::Error::other(error)),
    }
}
