//! A message's body on its way through: where it comes from, where it goes, and the copy between them.
//!
//! Poll functions rather than futures, because an exchange moves two bodies in opposite directions over the same two
//! connections within one task. Bytes are lent, not handed over: a source shows what it has, the sink takes what it
//! can, and only then are they consumed, so that back-pressure needs no buffer of its own.

use std::io;
use std::task::{Context, Poll, ready};

use super::head::Fields;

/// How long a body is, as far as its message's head tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// There is no body.
    None,
    Exact(u64),
    Unknown,
}

/// Why a body ended before its end.
#[derive(Debug)]
pub enum Cut {
    /// The peer closed, or the connection broke.
    Gone(io::Error),
    /// The peer reset this message but not the connection (HTTP/2).
    Reset(h2::Reason),
    /// The peer closes the connection, and has not seen this message (GOAWAY; RFC 9113, section 6.8).
    Unseen,
    /// The peer's framing is invalid.
    Malformed(&'static str),
    /// It is longer than it may be.
    TooLarge { max: u64 },
}

impl Cut {
    /// The peer took the message back deliberately, rather than closing in the ordinary way.
    pub fn is_reset(&self) -> bool {
        match self {
            Cut::Gone(error) => error.kind() == io::ErrorKind::ConnectionReset,
            Cut::Reset(_) | Cut::Unseen => true,
            Cut::Malformed(_) | Cut::TooLarge { .. } => false,
        }
    }
}

impl From<io::Error> for Cut {
    fn from(error: io::Error) -> Self {
        Cut::Gone(error)
    }
}

/// A body that is being read.
pub trait Source {
    /// The bytes at hand, never empty; `None` at the end. They stay until [`Self::consume`]d.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, Cut>>;
    fn consume(&mut self, count: usize);
    /// What followed the body; only meaningful at the end.
    fn trailers(&self) -> Option<&Fields>;
}

/// A body that is being written.
pub trait Sink {
    /// Takes some of `bytes`, at least one; they may wait in a buffer until [`Self::poll_flush`].
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Cut>>;
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>>;
    /// Ends the body and flushes. May be called again until it is ready.
    fn poll_finish(
        &mut self,
        cx: &mut Context<'_>,
        trailers: Option<&Fields>,
    ) -> Poll<Result<(), Cut>>;
}

/// Which side cut a copy short.
#[derive(Debug)]
pub enum CopyError {
    Source(Cut),
    Sink(Cut),
}

/// One body's way from a source to a sink.
#[derive(Debug, Default)]
pub struct Copy {
    pub bytes: u64,
    done: bool,
}

impl Copy {
    /// The copy of a body that is not there.
    pub fn nothing() -> Self {
        Self {
            bytes: 0,
            done: true,
        }
    }

    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Moves what can be moved. Whenever the source pauses, everything written so far is flushed, so that streams flow at once.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
        sink: &mut impl Sink,
    ) -> Poll<Result<(), CopyError>> {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        loop {
            match source.poll_chunk(cx) {
                Poll::Ready(Ok(Some(chunk))) => {
                    let count = ready!(sink.poll_write(cx, chunk)).map_err(CopyError::Sink)?;
                    source.consume(count);
                    self.bytes += count as u64;
                }
                Poll::Ready(Ok(None)) => {
                    ready!(sink.poll_finish(cx, source.trailers())).map_err(CopyError::Sink)?;
                    self.done = true;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(cut)) => return Poll::Ready(Err(CopyError::Source(cut))),
                Poll::Pending => {
                    ready!(sink.poll_flush(cx)).map_err(CopyError::Sink)?;
                    return Poll::Pending;
                }
            }
        }
    }
}
