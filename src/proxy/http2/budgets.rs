//! Budgets for frames that cost us more than their sender: counted on the bytes as they are read, before `h2` acts on them.
//!
//! Covers rapid reset (CVE-2023-44487), SETTINGS, PING, PRIORITY and empty DATA floods. Header sizes and CONTINUATION
//! frames are bounded by `h2` itself, as are resets that a peer provokes from us.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::base::buffer::Buffer;
use crate::base::net::Stream;

/// Streams that the peer may reset, as long as they outnumber half of those that ended well.
const RESETS_MAX: u64 = 100;
/// Frames of one kind that may come without an equal number of streams being opened.
const CONTROL_MAX: u64 = 200;
const PRIORITY_MAX: u64 = 1_000;

const HEADER: usize = 9;

/// What has been counted on a connection; shared between its stream and its loop.
#[derive(Default)]
pub struct Counts {
    opened: Cell<u64>,
    ended: Cell<u64>,
    resets: Cell<u64>,
    control: Cell<u64>,
    priority: Cell<u64>,
}

impl Counts {
    /// A stream got its whole answer.
    pub fn stream_ended(&self) {
        self.ended.set(self.ended.get() + 1);
    }

    /// The budget that is used up, if one is.
    pub fn exceeded(&self) -> Option<&'static str> {
        let credit = self.opened.get();
        if self.resets.get() > RESETS_MAX && self.resets.get() > self.ended.get() / 2 {
            Some("too many streams reset before their answer")
        } else if self.control.get() > CONTROL_MAX + 2 * credit {
            Some("too many SETTINGS, PING or empty DATA frames")
        } else if self.priority.get() > PRIORITY_MAX + 2 * credit {
            Some("too many PRIORITY frames")
        } else {
            None
        }
    }

    fn count(&self, header: &[u8; HEADER]) {
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let (kind, flags) = (header[3], header[4]);
        let add = |cell: &Cell<u64>| cell.set(cell.get() + 1);
        match kind {
            0x0 if length == 0 && flags & 0x1 == 0 => add(&self.control),
            0x1 => add(&self.opened),
            0x2 => add(&self.priority),
            0x3 => add(&self.resets),
            // Acknowledgements answer frames of ours.
            0x4 | 0x6 if flags & 0x1 == 0 => add(&self.control),
            _ => {}
        }
    }
}

/// A stream whose incoming frames are counted; bytes read before the protocol was known come first.
pub struct Counted {
    stream: Stream,
    before: Buffer,
    counts: Rc<Counts>,
    /// Bytes until the next frame header; the client's preface to begin with.
    skip: usize,
    header: [u8; HEADER],
    header_length: usize,
}

/// The client connection preface of RFC 9113, section 3.4.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Counted {
    /// The server's side of a connection, which begins with the client's preface.
    pub fn server(stream: Stream, before: Buffer, counts: Rc<Counts>) -> Self {
        Self {
            stream,
            before,
            counts,
            skip: PREFACE.len(),
            header: [0; HEADER],
            header_length: 0,
        }
    }

    fn scan(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let count = self.skip.min(bytes.len());
                self.skip -= count;
                bytes = &bytes[count..];
                continue;
            }
            let count = (HEADER - self.header_length).min(bytes.len());
            self.header[self.header_length..self.header_length + count]
                .copy_from_slice(&bytes[..count]);
            self.header_length += count;
            bytes = &bytes[count..];
            if self.header_length == HEADER {
                self.counts.count(&self.header);
                self.header_length = 0;
                self.skip = u32::from_be_bytes([0, self.header[0], self.header[1], self.header[2]])
                    as usize;
            }
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.counts.exceeded().is_some() {
            // The connection's loop sees the same and ends it; nothing more is read.
            return Poll::Pending;
        }
        let filled = buf.filled().len();
        if self.before.is_empty() {
            std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        } else {
            let count = buf.remaining().min(self.before.len());
            buf.put_slice(&self.before.filled()[..count]);
            self.before.consume(count);
            self.before.rest();
        }
        self.scan(&buf.filled()[filled..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 1];
        bytes.extend_from_slice(payload);
        bytes
    }

    async fn counts_after(frames: &[u8], split: usize) -> Rc<Counts> {
        let (near, far) = tokio::io::duplex(64);
        drop(near);
        let counts = Rc::new(Counts::default());
        let mut counted = Counted::server(Stream::Memory(far), Buffer::default(), counts.clone());
        for piece in [PREFACE, frames].concat().chunks(split) {
            counted.scan(piece);
        }
        drop(counted.read_u8().await);
        counts
    }

    #[tokio::test]
    async fn frames_are_counted_the_same_however_the_bytes_are_split() {
        let frames = [
            frame(1, 4, b"head"),
            frame(3, 0, &[0; 4]),
            frame(0, 0, b""),
            frame(6, 1, &[0; 8]),
        ]
        .concat();
        for split in 1..frames.len() {
            let counts = counts_after(&frames, split).await;
            assert_eq!(
                (
                    counts.opened.get(),
                    counts.resets.get(),
                    counts.control.get()
                ),
                (1, 1, 1),
                "split {split}"
            );
        }
    }

    #[test]
    fn resets_exceed_their_budget_only_while_they_outnumber_half_of_the_answers() {
        let counts = Counts::default();
        counts.resets.set(RESETS_MAX + 1);
        assert!(counts.exceeded().is_some());
        counts.ended.set(10 * RESETS_MAX);
        assert!(counts.exceeded().is_none());
    }
}
