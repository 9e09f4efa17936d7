//! PINGs on connections with open streams, so that a peer that is dead is noticed although nobody expects a word of it: a
//! gRPC watch may be silent for days.
//!
//! A peer that has said anything is alive, and is not asked. One timer serves a connection, and fires once a period.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::base::net::Stream;
use crate::base::timer::Timer;

/// A client that was silent for so long is asked. Clients answer PINGs however often they come.
pub const CLIENT_SILENCE: Duration = Duration::from_secs(30);
/// Servers of gRPC end connections that PING more often than each five minutes (their `too_many_pings`). A host that is
/// gone is noticed earlier, by TCP's own probes.
pub const SERVER_SILENCE: Duration = Duration::from_secs(310);
/// How long the answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// A PING frame, of which the kernel takes every byte whether or not the peer lives.
const PING_BYTES: u64 = 17;

/// What is seen of the peer: how often it was heard, and how many bytes it has taken.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    pub reads: u64,
    /// Left at zero where progress of our own bytes says nothing of the peer.
    pub written: u64,
}

pub struct KeepAlive {
    ping: PingPong,
    silence: Duration,
    timer: Timer,
    since: Instant,
    seen: Seen,
    asked: bool,
}

impl KeepAlive {
    pub fn new(ping: PingPong, silence: Duration) -> Self {
        Self {
            ping,
            silence,
            timer: Timer::default(),
            since: Instant::now(),
            seen: Seen::default(),
            asked: false,
        }
    }

    /// Ready when the peer is dead. Asked while streams are open, each time that the connection has been driven.
    pub fn poll(&mut self, cx: &mut Context<'_>, seen: Seen) -> Poll<()> {
        loop {
            let limit = if self.asked { ANSWER } else { self.silence };
            ready!(self.timer.poll(cx, self.since + limit));
            self.since = Instant::now();
            let is_alive = seen.reads != self.seen.reads
                || self.asked && seen.written > self.seen.written + PING_BYTES;
            self.seen = seen;
            if is_alive {
                self.asked = false;
            } else if self.asked {
                return Poll::Ready(());
            } else {
                self.ask(cx);
            }
        }
    }

    fn ask(&mut self, cx: &mut Context<'_>) {
        // Takes note of an earlier answer; without one, the earlier PING is still out and will do.
        let _ = self.ping.poll_pong(cx);
        let _ = self.ping.send_ping(Ping::opaque());
        self.asked = true;
    }
}

/// A stream that counts how often something was read from it.
pub struct Heard {
    stream: Stream,
    reads: Rc<Cell<u64>>,
}

impl Heard {
    pub fn new(stream: Stream, reads: Rc<Cell<u64>>) -> Self {
        Self { stream, reads }
    }
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.reads.set(self.reads.get() + 1);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Heard {
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
    use std::future::poll_fn;

    use bytes::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    const PREFACE_AND_SETTINGS: &[u8] =
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

    const PING_HEADER: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0];
    const ACK: u8 = 1;

    type Connection = h2::server::Connection<Heard, Bytes>;

    /// The PING that ends what was read.
    fn last_ping(read: &[u8]) -> Option<[u8; PING_BYTES as usize]> {
        let frame = read.last_chunk()?;
        frame.starts_with(PING_HEADER).then_some(*frame)
    }

    async fn connection() -> (DuplexStream, Connection, Rc<Cell<u64>>, KeepAlive) {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        client
            .write_all(PREFACE_AND_SETTINGS)
            .await
            .expect("it has room");
        let reads = Rc::default();
        let stream = Heard::new(Stream::Memory(server), Rc::clone(&reads));
        let mut connection: Connection = h2::server::handshake(stream).await.expect("h2");
        let ping = connection.ping_pong().expect("taken once");
        (
            client,
            connection,
            reads,
            KeepAlive::new(ping, CLIENT_SILENCE),
        )
    }

    /// Drives the connection until its peer is found dead.
    async fn dies(connection: &mut Connection, reads: &Cell<u64>, keep_alive: &mut KeepAlive) {
        poll_fn(|cx| {
            assert!(connection.poll_closed(cx).is_pending(), "it stays open");
            let seen = Seen {
                reads: reads.get(),
                written: 0,
            };
            keep_alive.poll(cx, seen)
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_answers_nothing_is_dead() {
        let (mut client, mut connection, reads, mut keep_alive) = connection().await;
        let begun = Instant::now();
        dies(&mut connection, &reads, &mut keep_alive).await;
        // It was heard within the first period.
        assert_eq!(begun.elapsed(), 2 * CLIENT_SILENCE + ANSWER);
        let mut sent = vec![0; 4096];
        let count = client.read(&mut sent).await.expect("it was sent something");
        assert!(last_ping(&sent[..count]).is_some(), "{sent:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_answers_lives() {
        let (client, mut connection, reads, mut keep_alive) = connection().await;
        let (mut from, mut to) = tokio::io::split(client);
        let answering = async move {
            let mut read = Vec::new();
            loop {
                let mut chunk = [0; 4096];
                let count = from.read(&mut chunk).await.expect("it is open");
                read.extend_from_slice(&chunk[..count]);
                if let Some(mut pong) = last_ping(&read) {
                    pong[4] = ACK;
                    to.write_all(&pong).await.expect("it is open");
                    read.clear();
                }
            }
        };
        tokio::select! {
            () = answering => unreachable!("it goes on for ever"),
            () = dies(&mut connection, &reads, &mut keep_alive) => panic!("it has answered"),
            () = tokio::time::sleep(100 * CLIENT_SILENCE) => {}
        }
    }
}
