//! A request's body that can be sent again: what has been sent is kept, up to a limit; and that may be only so long.

use std::task::{Context, Poll};

use super::body::{Cut, Source};
use super::head::Fields;

/// The part of a body that was sent, while it may have to be sent again.
pub struct Replay {
    kept: Vec<u8>,
    /// How much of `kept` the current attempt has sent.
    sent: usize,
    bytes_max: usize,
    /// False once something was sent that is not kept.
    complete: bool,
    /// How much has come from the client, and how much may.
    come: u64,
    come_max: u64,
}

impl Replay {
    /// Keeps up to `bytes_max`, with 0 nothing, of a body of at most `come_max` bytes.
    pub fn new(bytes_max: usize, come_max: u64) -> Self {
        Self {
            kept: Vec::new(),
            sent: 0,
            bytes_max,
            complete: true,
            come: 0,
            come_max,
        }
    }

    /// There is no body.
    pub fn of_nothing() -> Self {
        Self::new(0, 0)
    }

    /// Whether another attempt can send the same body.
    pub fn is_possible(&self) -> bool {
        self.complete
    }

    /// All that has been sent, where all of it is kept.
    pub fn whole(&self) -> Option<&[u8]> {
        self.complete.then_some(&self.kept)
    }

    /// Nothing of the body has been sent.
    pub fn is_untouched(&self) -> bool {
        self.complete && self.kept.is_empty()
    }

    /// The next attempt begins with the first byte.
    pub fn rewind(&mut self) {
        self.sent = 0;
    }

    /// The body as an attempt sees it: what is kept first, then the rest.
    pub fn source<'a, S>(&'a mut self, rest: &'a mut S) -> Replaying<'a, S> {
        Replaying { replay: self, rest }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if !self.complete {
            return;
        }
        if self.kept.len() + bytes.len() > self.bytes_max {
            self.complete = false;
            self.kept = Vec::new();
            self.sent = 0;
        } else {
            self.kept.extend_from_slice(bytes);
            self.sent = self.kept.len();
        }
    }
}

pub struct Replaying<'a, S> {
    replay: &'a mut Replay,
    rest: &'a mut S,
}

impl<S: Source> Source for Replaying<'_, S> {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, Cut>> {
        if self.replay.sent < self.replay.kept.len() {
            return Poll::Ready(Ok(Some(&self.replay.kept[self.replay.sent..])));
        }
        let left = self.replay.come_max - self.replay.come;
        match self.rest.poll_chunk(cx) {
            Poll::Ready(Ok(Some(chunk))) if chunk.len() as u64 > left => {
                let max = self.replay.come_max;
                Poll::Ready(Err(Cut::TooLarge { max }))
            }
            polled => polled,
        }
    }

    fn consume(&mut self, count: usize) {
        if self.replay.sent < self.replay.kept.len() {
            self.replay.sent += count;
            return;
        }
        if self.replay.complete {
            // Bytes at hand are there without waiting, so the waker is not needed.
            let mut cx = Context::from_waker(std::task::Waker::noop());
            if let Poll::Ready(Ok(Some(chunk))) = self.rest.poll_chunk(&mut cx) {
                self.replay.keep(&chunk[..count]);
            }
        }
        self.replay.come += count as u64;
        self.rest.consume(count);
    }

    fn trailers(&self) -> Option<&Fields> {
        self.rest.trailers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pieces(Vec<&'static [u8]>);

    impl Source for Pieces {
        fn poll_chunk(&mut self, _: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, Cut>> {
            Poll::Ready(Ok(self.0.first().copied()))
        }
        fn consume(&mut self, count: usize) {
            self.0[0] = &self.0[0][count..];
            if self.0[0].is_empty() {
                self.0.remove(0);
            }
        }
        fn trailers(&self) -> Option<&Fields> {
            None
        }
    }

    fn take(replay: &mut Replay, pieces: &mut Pieces, mut count: usize) -> Vec<u8> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut taken = Vec::new();
        let mut source = replay.source(pieces);
        while count > 0 {
            let Poll::Ready(Ok(Some(chunk))) = source.poll_chunk(&mut cx) else {
                break;
            };
            let step = chunk.len().min(count);
            taken.extend_from_slice(&chunk[..step]);
            source.consume(step);
            count -= step;
        }
        taken
    }

    #[test]
    fn an_attempt_after_a_rewind_sees_the_whole_body_again() {
        let mut replay = Replay::new(16, u64::MAX);
        let mut pieces = Pieces(vec![b"hello ", b"world"]);
        assert_eq!(take(&mut replay, &mut pieces, 8), b"hello wo");
        replay.rewind();
        assert_eq!(take(&mut replay, &mut pieces, 99), b"hello world");
        assert!(replay.is_possible());
    }

    #[test]
    fn a_body_that_is_too_long_is_cut_before_the_first_byte_too_many() {
        let mut replay = Replay::new(16, 8);
        let mut pieces = Pieces(vec![b"hello", b"you", b"!"]);
        assert_eq!(take(&mut replay, &mut pieces, 99), b"helloyou");
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let polled = replay
            .source(&mut pieces)
            .poll_chunk(&mut cx)
            .map_ok(|_| ());
        assert!(matches!(polled, Poll::Ready(Err(Cut::TooLarge { max: 8 }))));
    }

    #[test]
    fn a_body_beyond_the_limit_cannot_be_replayed() {
        let mut replay = Replay::new(4, u64::MAX);
        let mut pieces = Pieces(vec![b"hello"]);
        assert!(replay.is_untouched());
        assert_eq!(take(&mut replay, &mut pieces, 5), b"hello");
        assert!(!replay.is_possible());
    }
}
