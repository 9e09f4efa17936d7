//! Budgets for frames that cost us more than their sender: counted on the bytes as they are read, before `h2` acts on them.
//!
//! Covers rapid reset (CVE-2023-44487) and its sibling that provokes the resets from us (CVE-2025-8671), and floods of
//! SETTINGS, PING, PRIORITY, WINDOW_UPDATE, RST_STREAM, unknown frames and empty DATA. Header sizes, CONTINUATION frames
//! and DATA frames that are all padding are bounded by `h2` itself.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::base::buffer::Buffer;
use crate::base::net::Stream;

/// Budgets are for so long: what a connection does at leisure over hours, such as its keep-alive PINGs, is no flood.
const PERIOD: Duration = Duration::from_secs(60);
/// Streams that may end by a premature reset, as long as they outnumber half of those that ended well.
const PREMATURE_MAX: u64 = 100;
/// A stream that has lived for longer was not opened in order to be reset: a watch that is given up, or a deadline.
const PREMATURE_AGE: Duration = Duration::from_secs(1);
/// SETTINGS, PING and empty DATA frames beyond the credit.
const CONTROL_MAX: u64 = 200;
/// Frames beyond the credit that we do not answer.
const OTHER_MAX: u64 = 1_000;
/// An honest client sends a few frames for each stream (its window, its priority) and for each piece of an answer (its
/// window, and the connection's, and a PING to measure the path).
const CREDIT_FOR_STREAM: u64 = 4;
/// A piece of an answer may be consumed in parts of this size.
const CREDITED_BYTES: usize = 512;

const HEADER: usize = 9;
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const CONTINUATION: u8 = 0x9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// What has been counted on a connection; shared between its stream, its loop and its requests.
pub struct Counts {
    period: Cell<Instant>,
    credit: Cell<u64>,
    control: Cell<u64>,
    other: Cell<u64>,
    premature: Cell<u64>,
    whole: Cell<u64>,
    /// The budget that was used up; it stays so.
    exceeded: Cell<Option<&'static str>>,
    /// The highest stream that was opened.
    newest: Cell<u32>,
    /// Since when a request's head has been coming.
    head_since: Cell<Option<Instant>>,
    reads: Cell<u64>,
    written: Cell<u64>,
    in_flight: Cell<usize>,
    waiting: RefCell<Option<Waker>>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            period: Cell::new(Instant::now()),
            credit: Cell::default(),
            control: Cell::default(),
            other: Cell::default(),
            premature: Cell::default(),
            whole: Cell::default(),
            exceeded: Cell::default(),
            newest: Cell::default(),
            head_since: Cell::default(),
            reads: Cell::default(),
            written: Cell::default(),
            in_flight: Cell::default(),
            waiting: RefCell::default(),
        }
    }
}

impl Counts {
    /// A stream is accepted.
    pub fn stream_begun(&self, now: Instant) {
        if now.saturating_duration_since(self.period.get()) >= PERIOD {
            self.begin_period(now);
        }
    }

    /// A stream got its whole answer.
    pub fn stream_ended(&self) {
        add(&self.whole, 1);
    }

    /// A stream that was accepted at `begun` was reset by its client, or by us for what its client did.
    pub fn stream_reset(&self, begun: Instant) {
        if begun.elapsed() < PREMATURE_AGE {
            add(&self.premature, 1);
        }
    }

    /// A piece of an answer goes out.
    pub fn piece_sent(&self, bytes: usize) {
        add(&self.credit, 2 + (bytes / CREDITED_BYTES) as u64);
    }

    /// The budget that is used up, if one is.
    pub fn exceeded(&self) -> Option<&'static str> {
        if self.exceeded.get().is_none()
            && let Some(reason) = self.over()
        {
            let now = Instant::now();
            if now.saturating_duration_since(self.period.get()) < PERIOD {
                self.exceeded.set(Some(reason));
            } else {
                self.begin_period(now);
            }
        }
        self.exceeded.get()
    }

    fn over(&self) -> Option<&'static str> {
        let credit = self.credit.get();
        if self.premature.get() > PREMATURE_MAX && self.premature.get() > self.whole.get() / 2 {
            Some("too many streams reset before their answer")
        } else if self.control.get() > CONTROL_MAX + credit {
            Some("too many SETTINGS, PING or empty DATA frames")
        } else if self.other.get() > OTHER_MAX + credit {
            Some("too many PRIORITY, WINDOW_UPDATE, RST_STREAM or unknown frames")
        } else {
            None
        }
    }

    fn begin_period(&self, now: Instant) {
        self.period.set(now);
        for cell in [
            &self.credit,
            &self.control,
            &self.other,
            &self.premature,
            &self.whole,
        ] {
            cell.set(0);
        }
    }

    /// Since when a request's head has been coming, if one is incomplete.
    pub fn head_since(&self) -> Option<Instant> {
        self.head_since.get()
    }

    /// How often something was heard from the peer.
    pub fn reads(&self) -> u64 {
        self.reads.get()
    }

    /// Bytes that the peer, or the kernel for it, has taken.
    pub fn written(&self) -> u64 {
        self.written.get()
    }

    /// Requests whose work is not over, whatever has become of their streams.
    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// The task to wake when requests end that it waits for.
    pub fn wait(&self, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.as_ref().is_some_and(|old| old.will_wake(waker)) {
            *waiting = Some(waker.clone());
        }
    }

    fn count(&self, header: &[u8; HEADER]) {
        let (kind, flags) = (header[3], header[4]);
        match kind {
            DATA if length(header) == 0 && flags & END_STREAM == 0 => add(&self.control, 1),
            DATA | CONTINUATION => {}
            HEADERS => {
                // Only a stream of its own earns credit: trailers, or HEADERS where none may be, do not.
                let stream =
                    u32::from_be_bytes([header[5] & 0x7f, header[6], header[7], header[8]]);
                if stream > self.newest.get() {
                    self.newest.set(stream);
                    add(&self.credit, CREDIT_FOR_STREAM);
                }
            }
            SETTINGS | PING => add(&self.control, 1),
            _ => add(&self.other, 1),
        }
    }
}

fn add(cell: &Cell<u64>, count: u64) {
    cell.set(cell.get() + count);
}

fn length(header: &[u8; HEADER]) -> usize {
    u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize
}

/// A request that is being worked on, until dropped.
pub struct InFlight(Rc<Counts>);

impl InFlight {
    pub fn new(counts: &Rc<Counts>) -> Self {
        counts.in_flight.set(counts.in_flight.get() + 1);
        Self(counts.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
        if let Some(waker) = &*self.0.waiting.borrow() {
            waker.wake_by_ref();
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
    /// The frame at hand, or the one before, leaves a head unfinished.
    head_open: bool,
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
            head_open: false,
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
                self.skip = length(&self.header);
                if matches!(self.header[3], HEADERS | CONTINUATION) {
                    self.head_open = self.header[4] & END_HEADERS == 0;
                }
            }
        }
        self.note_open_head();
    }

    fn note_open_head(&self) {
        let in_head = self.skip > 0 && matches!(self.header[3], HEADERS | CONTINUATION);
        let since = &self.counts.head_since;
        if !self.head_open && !in_head {
            since.set(None);
        } else if since.get().is_none() {
            since.set(Some(Instant::now()));
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
            // Whoever drives the connection looks at the same right after this, and ends it; nothing more is read.
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
        add(&self.counts.reads, 1);
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
        let count = std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        add(&self.counts.written, count as u64);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = std::task::ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        add(&self.counts.written, count as u64);
        Poll::Ready(Ok(count))
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
        bytes.extend_from_slice(payload);
        bytes
    }

    fn counts_after(frames: &[u8], split: usize) -> Rc<Counts> {
        let (_near, far) = tokio::io::duplex(64);
        let counts = Rc::new(Counts::default());
        let mut counted = Counted::server(Stream::Memory(far), Buffer::default(), counts.clone());
        for piece in [PREFACE, frames].concat().chunks(split) {
            counted.scan(piece);
        }
        counts
    }

    #[test]
    fn frames_are_counted_the_same_however_the_bytes_are_split() {
        let frames = [
            frame(HEADERS, END_HEADERS, 1, b"head"),
            frame(HEADERS, END_HEADERS, 1, b"trailers"),
            frame(0x3, 0, 1, &[0; 4]),
            frame(DATA, 0, 1, b""),
            frame(PING, 1, 0, &[0; 8]),
            frame(0x8, 0, 0, &[0; 4]),
            frame(0xfe, 0, 0, b"unknown"),
        ]
        .concat();
        for split in 1..=frames.len() {
            let counts = counts_after(&frames, split);
            assert_eq!(
                (
                    counts.credit.get(),
                    counts.control.get(),
                    counts.other.get()
                ),
                (CREDIT_FOR_STREAM, 2, 3),
                "split {split}"
            );
            assert_eq!(counts.head_since(), None, "split {split}");
        }
    }

    #[test]
    fn a_head_is_open_until_its_last_byte_has_come() {
        let whole = [
            frame(HEADERS, 0, 1, b"he"),
            frame(CONTINUATION, 4, 1, b"ad"),
        ]
        .concat();
        for length in HEADER..whole.len() {
            let counts = counts_after(&whole[..length], 7);
            assert!(counts.head_since().is_some(), "after {length} bytes");
        }
        assert_eq!(counts_after(&whole, 7).head_since(), None);
    }

    #[test]
    fn resets_exceed_their_budget_only_while_they_outnumber_half_of_the_answers() {
        let counts = Counts::default();
        counts.whole.set(10 * PREMATURE_MAX);
        counts.premature.set(PREMATURE_MAX + 1);
        assert_eq!(counts.exceeded(), None);
        counts.whole.set(0);
        assert!(counts.exceeded().is_some());
    }

    #[test]
    fn a_request_counts_until_its_work_has_ended_and_wakes_who_waits_for_that() {
        struct Woken(AtomicBool);
        impl Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let (counts, woken) = (
            Rc::new(Counts::default()),
            Arc::new(Woken(AtomicBool::new(false))),
        );
        let requests = [InFlight::new(&counts), InFlight::new(&counts)];
        counts.wait(&woken.clone().into());
        assert_eq!(counts.in_flight(), 2);
        assert!(!woken.0.load(Ordering::Relaxed));
        drop(requests);
        assert_eq!(counts.in_flight(), 0);
        assert!(woken.0.load(Ordering::Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_at_leisure_is_no_flood() {
        let counts = Counts::default();
        let begun = Instant::now();
        for _ in 0..10 * CONTROL_MAX {
            counts.count(&[0, 0, 8, PING, 0, 0, 0, 0, 0]);
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(counts.exceeded(), None);
        }
        tokio::time::advance(PERIOD).await;
        for _ in 0..2 * PREMATURE_MAX {
            counts.stream_reset(begun);
        }
        assert_eq!(counts.exceeded(), None, "they had lived for long");
        counts.stream_begun(Instant::now());
        for _ in 0..=CONTROL_MAX {
            counts.count(&[0, 0, 8, PING, 0, 0, 0, 0, 0]);
        }
        assert!(counts.exceeded().is_some());
        tokio::time::advance(2 * PERIOD).await;
        assert!(counts.exceeded().is_some(), "it stays so");
    }
}
