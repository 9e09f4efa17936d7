//! One HTTP/1 connection, either side: the codec between a stream and the heads and bodies on it.
//!
//! The read buffer rests in the thread's pool while nothing has arrived, and the write buffer is let go between
//! messages, so an idle connection holds its socket and little else.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::codec::{self, BodyDecoder, Framing, Limits, Parsed};
use crate::base::buffer::Buffer;
use crate::base::net::Stream;
use crate::proxy::http::body::{Cut, Sink, Size, Source};
use crate::proxy::http::head::{Fields, RequestHead, ResponseHead};

/// Body bytes up to this many are copied behind the head so that one system call sends both; longer pieces are
/// written from where they were read.
const COPY_MAX: usize = 16 * 1024;
/// Written bytes wait in the buffer until it holds this many, the source pauses or the message ends.
const WRITE_BUFFER_MAX: usize = 32 * 1024;

/// So much of a body that nobody wants is read, rather than that the connection is closed.
const SKIP_MAX: usize = 64 * 1024;

/// How the body being written is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoder {
    /// No body may be written.
    None,
    /// This many bytes are still to come.
    Length(u64),
    /// This many bytes of the announced chunk are still to come.
    Chunked {
        left: usize,
    },
    /// Until the connection closes.
    Close,
    Done,
}

pub struct Conn {
    stream: Stream,
    read: Buffer,
    write: Vec<u8>,
    written: usize,
    /// Where in `write` the head of the message begins, while nothing of what has been written since is on the wire.
    head: Option<usize>,
    decoder: BodyDecoder,
    /// Body bytes at the front of `read` that are decoded and not consumed, and what follows them up to the next undecoded byte.
    data_left: usize,
    tail: usize,
    body_ended: bool,
    encoder: Encoder,
    /// The peer has sent its FIN.
    read_closed: bool,
}

impl Conn {
    pub fn new(stream: Stream) -> Self {
        Self::with_bytes(stream, Buffer::default())
    }

    /// A connection some bytes of which were read already.
    pub fn with_bytes(stream: Stream, read: Buffer) -> Self {
        Self {
            stream,
            read,
            write: Vec::new(),
            written: 0,
            head: None,
            decoder: BodyDecoder::new(Framing::None),
            data_left: 0,
            tail: 0,
            body_ended: true,
            encoder: Encoder::Done,
            read_closed: false,
        }
    }

    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The stream and what was read ahead, for a tunnel.
    pub fn into_parts(self) -> (Stream, Buffer) {
        (self.stream, self.read)
    }

    pub fn is_read_closed(&self) -> bool {
        self.read_closed
    }

    /// What has been read and not yet claimed by a message.
    pub fn unread(&self) -> &[u8] {
        self.read.filled()
    }

    /// Bytes have been read that no message has claimed yet.
    pub fn has_unread(&self) -> bool {
        !self.read.is_empty()
    }

    /// No more can be read before a message claims some of it.
    pub fn is_read_full(&self) -> bool {
        self.read.is_full()
    }

    /// Nothing of a message is left in either direction, so the next one may begin.
    pub fn is_between_messages(&self) -> bool {
        self.body_ended
            && self.encoder == Encoder::Done
            && self.write.is_empty()
            && self.data_left + self.tail == 0
    }

    /// The message being read is complete.
    pub fn is_read_done(&self) -> bool {
        self.body_ended && self.data_left + self.tail == 0
    }

    /// Forgets what of the message's body has arrived; whether that was all of it.
    pub fn skip_body(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let mut budget = SKIP_MAX;
        while let Poll::Ready(Ok(chunk)) = self.poll_chunk(&mut cx) {
            let Some(count) = chunk.map(<[u8]>::len) else {
                return true;
            };
            if count > budget {
                return false;
            }
            budget -= count;
            self.consume(count);
        }
        false
    }

    /// Reads once. `Ok(0)` is the peer's FIN. While nothing comes, an empty buffer gives its memory back.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.read_closed {
            return Poll::Ready(Ok(0));
        }
        let room = self.read.room();
        let offered = room.len();
        let mut buf = ReadBuf::new(room);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) => {
                let count = buf.filled().len();
                self.read.advance(count);
                if count == offered && offered > 1024 && !self.body_ended {
                    self.read.grow();
                }
                self.read_closed = count == 0;
                if count == 0 {
                    self.read.rest();
                }
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => {
                self.read_closed = true;
                Poll::Ready(Err(error))
            }
            Poll::Pending => {
                self.read.rest();
                Poll::Pending
            }
        }
    }

    /// Tries to read a request's head from what has arrived.
    pub fn parse_request(
        &mut self,
        limits: &Limits,
        head: &mut RequestHead,
    ) -> Result<bool, codec::Refusal> {
        match codec::parse_request(self.read.filled(), limits, head)? {
            Parsed::Partial => Ok(false),
            Parsed::Complete(consumed) => {
                self.read.consume(consumed);
                Ok(true)
            }
        }
    }

    /// Tries to read an answer's head from what has arrived.
    pub fn parse_response(
        &mut self,
        limits: &Limits,
        head: &mut ResponseHead,
    ) -> Result<bool, codec::BadResponse> {
        match codec::parse_response(self.read.filled(), limits, head)? {
            Parsed::Partial => Ok(false),
            Parsed::Complete(consumed) => {
                self.read.consume(consumed);
                Ok(true)
            }
        }
    }

    pub fn unread_is_empty(&self) -> bool {
        self.read.is_empty()
    }

    /// The size of the body being read, as far as its head told; before any of it is read.
    pub fn body_size(&self) -> Size {
        match self.decoder.remaining() {
            _ if self.body_ended => Size::None,
            Some(length) => Size::Exact(length),
            None => Size::Unknown,
        }
    }

    /// What follows in the read direction is a body framed so.
    pub fn begin_read(&mut self, framing: Framing) {
        self.body_ended = framing.is_empty();
        self.decoder = BodyDecoder::new(framing);
    }

    /// What is written next is a body framed so, after the head that `encode` appends to the write buffer.
    pub fn begin_write(&mut self, framing: Framing, encode: impl FnOnce(&mut Vec<u8>)) {
        if self.write.capacity() == 0 {
            self.write.reserve(2048);
        }
        self.head = Some(self.write.len());
        encode(&mut self.write);
        self.encoder = match framing {
            Framing::None => Encoder::None,
            Framing::Length(length) => Encoder::Length(length),
            Framing::Chunked => Encoder::Chunked { left: 0 },
            Framing::UntilClose => Encoder::Close,
        };
    }

    /// Takes the message being written back. False when some of it may be on the wire already.
    pub fn take_back(&mut self) -> bool {
        let Some(head) = self.head.take() else {
            return false;
        };
        self.write.truncate(head);
        self.encoder = Encoder::Done;
        true
    }

    /// Appends bytes that stand between messages, such as an informational answer.
    pub fn queue(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(&mut self.write);
    }

    /// Lets the write buffer's memory go, if nothing is in it.
    pub fn rest(&mut self) {
        if self.write.is_empty() {
            self.write = Vec::new();
        }
        self.read.rest();
    }

    /// Reads and forgets; how many bytes came, 0 at the peer's FIN.
    pub fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let unread = self.read.len();
        if unread > 0 {
            self.read.consume(unread);
            return Poll::Ready(Ok(unread));
        }
        let count = ready!(self.poll_fill(cx))?;
        self.read.consume(count);
        Poll::Ready(Ok(count))
    }

    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// Sends the write buffer and then, as far as it goes at once, `bytes`; how many of those were taken.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.head = None;
        loop {
            let queued = &self.write[self.written..];
            if queued.is_empty() {
                self.write.clear();
                self.written = 0;
                if bytes.is_empty() {
                    return Poll::Ready(Ok(0));
                }
                let count = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
                return if count == 0 {
                    Poll::Ready(Err(io::ErrorKind::WriteZero.into()))
                } else {
                    Poll::Ready(Ok(count))
                };
            }
            let count = if bytes.is_empty() {
                ready!(Pin::new(&mut self.stream).poll_write(cx, queued))?
            } else {
                let slices = [IoSlice::new(queued), IoSlice::new(bytes)];
                ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let queued_length = queued.len();
            if count >= queued_length {
                self.write.clear();
                self.written = 0;
                if count > queued_length || bytes.is_empty() {
                    return Poll::Ready(Ok(count - queued_length));
                }
            } else {
                self.written += count;
            }
        }
    }

    /// Takes `bytes` into the write buffer or onto the wire.
    fn poll_put(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let waiting = self.write.len() - self.written;
        if bytes.len() <= COPY_MAX && waiting + bytes.len() <= WRITE_BUFFER_MAX {
            self.write.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        self.poll_send(cx, bytes)
    }
}

impl Source for Conn {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, Cut>> {
        loop {
            if self.data_left > 0 {
                return Poll::Ready(Ok(Some(&self.read.filled()[..self.data_left])));
            }
            if self.tail > 0 {
                self.read.consume(std::mem::take(&mut self.tail));
            }
            if self.body_ended {
                return Poll::Ready(Ok(None));
            }
            if !self.read.is_empty() {
                let piece = match self.decoder.decode(self.read.filled()) {
                    Ok(piece) => piece,
                    Err(error) => return Poll::Ready(Err(Cut::Malformed(error.reason))),
                };
                self.body_ended = piece.end;
                if piece.consumed > 0 || piece.end {
                    self.read.consume(piece.data.start);
                    self.data_left = piece.data.len();
                    self.tail = piece.consumed - piece.data.end;
                    continue;
                }
            }
            if ready!(self.poll_fill(cx))? == 0 {
                if let Err(error) = self.decoder.eof() {
                    return Poll::Ready(Err(Cut::Gone(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        error.reason,
                    ))));
                }
                self.body_ended = true;
            }
        }
    }

    fn consume(&mut self, count: usize) {
        self.read.consume(count);
        self.data_left -= count;
    }

    fn trailers(&self) -> Option<&Fields> {
        self.decoder.trailers()
    }
}

impl Sink for Conn {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Cut>> {
        match self.encoder {
            // Bytes where none belong are swallowed: the answer to HEAD, or a peer that sends more than it said.
            Encoder::None | Encoder::Done => Poll::Ready(Ok(bytes.len())),
            Encoder::Close => Poll::Ready(Ok(ready!(self.poll_put(cx, bytes))?)),
            Encoder::Length(left) => {
                let allowed = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                if allowed == 0 {
                    return Poll::Ready(Err(Cut::Malformed("body longer than its content-length")));
                }
                let count = ready!(self.poll_put(cx, &bytes[..allowed]))?;
                self.encoder = Encoder::Length(left - count as u64);
                Poll::Ready(Ok(count))
            }
            Encoder::Chunked { left } => {
                let left = if left == 0 {
                    codec::encode_chunk_head(bytes.len(), &mut self.write);
                    bytes.len()
                } else {
                    left
                };
                self.encoder = Encoder::Chunked { left };
                let count = ready!(self.poll_put(cx, &bytes[..bytes.len().min(left)]))?;
                if count == left {
                    self.write.extend_from_slice(codec::CHUNK_END);
                }
                self.encoder = Encoder::Chunked { left: left - count };
                Poll::Ready(Ok(count))
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        if self.written < self.write.len() {
            ready!(self.poll_send(cx, &[]))?;
        }
        if self.stream.is_tls() {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_finish(
        &mut self,
        cx: &mut Context<'_>,
        trailers: Option<&Fields>,
    ) -> Poll<Result<(), Cut>> {
        match self.encoder {
            Encoder::Chunked { .. } => {
                match trailers {
                    Some(trailers) => codec::encode_trailers(trailers, &mut self.write),
                    None => self.write.extend_from_slice(codec::LAST_CHUNK),
                }
                self.encoder = Encoder::Done;
            }
            Encoder::Length(left) if left > 0 => {
                return Poll::Ready(Err(Cut::Malformed("body shorter than its content-length")));
            }
            _ => self.encoder = Encoder::Done,
        }
        self.poll_flush(cx)
    }
}
