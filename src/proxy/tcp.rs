//! Bytes both ways between two connections, with half-close.
//!
//! Each direction starts with a small pooled buffer, goes to a large one once reads fill it, and between plain sockets
//! to `splice(2)` once it has carried enough for a pipe to pay off.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::base::buffer::Buffer;
use crate::base::net::Stream;

/// A direction that has carried this much goes on through a pipe.
const SPLICE_AFTER: u64 = 256 * 1024;
const PIPE_SIZE: usize = 256 * 1024;

/// How many bytes went each way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Carried {
    /// From the client.
    pub up: u64,
    /// To the client.
    pub down: u64,
    /// Whose connection broke before both had closed.
    pub broken: Option<Side>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Client,
    Server,
}

/// Which end of one direction broke.
enum Broken {
    Reader,
    Writer,
}

/// Carries bytes until both sides have closed, or one breaks; then both are closed, a broken one by a reset.
/// The buffers hold what was read from each side before.
pub async fn carry(
    mut client: Stream,
    client_read: Buffer,
    mut server: Stream,
    server_read: Buffer,
) -> Carried {
    let mut up = Direction::new(client_read);
    let mut down = Direction::new(server_read);
    let ended = poll_fn(|cx| -> Poll<Result<(), Side>> {
        let sent = up.poll(cx, &mut client, &mut server);
        let sent = sent.map_err(|broken| broken.of(Side::Client, Side::Server))?;
        let answered = down.poll(cx, &mut server, &mut client);
        let answered = answered.map_err(|broken| broken.of(Side::Server, Side::Client))?;
        if sent.is_ready() && answered.is_ready() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    })
    .await;
    if ended.is_err() {
        client.reset_on_close();
        server.reset_on_close();
    }
    Carried {
        up: up.carried,
        down: down.carried,
        broken: ended.err(),
    }
}

impl Broken {
    fn of(self, reader: Side, writer: Side) -> Side {
        match self {
            Broken::Reader => reader,
            Broken::Writer => writer,
        }
    }
}

/// One way's progress.
struct Direction {
    buffer: Buffer,
    pipe: Option<Pipe>,
    carried: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Carrying,
    /// The reader has ended: what is held goes out, then our end is closed.
    Closing,
    Done,
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
}

impl Direction {
    fn new(buffer: Buffer) -> Self {
        Self {
            buffer,
            pipe: None,
            carried: 0,
            state: State::Carrying,
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
    ) -> Poll<Result<(), Broken>> {
        loop {
            match self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Closing => {
                    ready!(self.poll_close(cx, to)).map_err(|_| Broken::Writer)?;
                    self.state = State::Done;
                }
                State::Carrying => {
                    ready!(self.poll_drain(cx, to)).map_err(|_| Broken::Writer)?;
                    let Poll::Ready(read) = self.poll_read(cx, from, to) else {
                        // A TLS stream may hold encrypted bytes back.
                        let _ = Pin::new(to).poll_flush(cx).map_err(|_| Broken::Writer)?;
                        return Poll::Pending;
                    };
                    if read.map_err(|_| Broken::Reader)? == 0 {
                        self.state = State::Closing;
                    }
                }
            }
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, to: &mut Stream) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx, to))?;
        let closed = ready!(Pin::new(&mut *to).poll_shutdown(cx));
        Poll::Ready(closed.or_else(already_closed))
    }

    /// Reads once. 0 at the end of what comes.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &Stream,
    ) -> Poll<io::Result<usize>> {
        if let (Stream::Tcp(tcp), Stream::Tcp(_)) = (&*from, to)
            && self.carried > SPLICE_AFTER
        {
            return self.poll_splice_in(cx, tcp);
        }
        let room = self.buffer.room();
        let offered = room.len();
        let mut read = ReadBuf::new(room);
        match Pin::new(&mut *from).poll_read(cx, &mut read) {
            Poll::Pending => {
                self.buffer.rest();
                Poll::Pending
            }
            Poll::Ready(result) => {
                result?;
                let count = read.filled().len();
                self.buffer.advance(count);
                if count == offered {
                    self.buffer.grow();
                }
                Poll::Ready(Ok(count))
            }
        }
    }

    fn poll_splice_in(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
    ) -> Poll<io::Result<usize>> {
        if self.pipe.is_none() {
            self.pipe = Some(Pipe::open()?);
        }
        // Just made, where it was not there.
        let Some(pipe) = &mut self.pipe else {
            return Poll::Ready(Ok(0));
        };
        loop {
            ready!(from.poll_read_ready(cx))?;
            let moved = from.try_io(Interest::READABLE, || {
                let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
                Ok(splice(
                    from.as_fd(),
                    None,
                    pipe.write.as_fd(),
                    None,
                    PIPE_SIZE,
                    flags,
                )?)
            });
            match moved {
                Ok(count) => {
                    pipe.held = count;
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Writes all that is held.
    fn poll_drain(&mut self, cx: &mut Context<'_>, to: &mut Stream) -> Poll<io::Result<()>> {
        while !self.buffer.is_empty() {
            let count = ready!(Pin::new(&mut *to).poll_write(cx, self.buffer.filled()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.buffer.consume(count);
            self.carried += count as u64;
        }
        if let (Some(pipe), Stream::Tcp(tcp)) = (&mut self.pipe, &*to) {
            while pipe.held > 0 {
                ready!(tcp.poll_write_ready(cx))?;
                let moved = tcp.try_io(Interest::WRITABLE, || {
                    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
                    Ok(splice(
                        pipe.read.as_fd(),
                        None,
                        tcp.as_fd(),
                        None,
                        pipe.held,
                        flags,
                    )?)
                });
                match moved {
                    Ok(count) => {
                        pipe.held -= count;
                        self.carried += count as u64;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Pipe {
    fn open() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Where the system allows less, less is moved at a time.
        let _ = rustix::pipe::fcntl_setpipe_size(&write, PIPE_SIZE);
        Ok(Self {
            read,
            write,
            held: 0,
        })
    }
}

/// Closing what the peer has closed already is no failure.
fn already_closed(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotConnected {
        Ok(())
    } else {
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.expect("connect"), far.expect("accept").0)
    }

    #[tokio::test]
    async fn bulk_goes_through_unchanged_and_each_half_closes_by_itself() {
        let (mut client, client_side) = pair().await;
        let (mut server, server_side) = pair().await;
        let mut before = Buffer::default();
        before.extend(b"early ");
        let carrying = tokio::spawn(carry(
            Stream::Tcp(client_side),
            before,
            Stream::Tcp(server_side),
            Buffer::default(),
        ));
        let bulk: Vec<u8> = (0..3_000_000_u32)
            .map(|index| (index % 253) as u8)
            .collect();
        let sent = bulk.clone();
        let sending = tokio::spawn(async move {
            client.write_all(&sent).await.expect("write");
            client.shutdown().await.expect("shutdown");
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.expect("read");
            answer
        });
        let mut received = Vec::new();
        server.read_to_end(&mut received).await.expect("read");
        assert_eq!(received, [b"early ", &bulk[..]].concat());
        server
            .write_all(b"answer after the client's FIN")
            .await
            .expect("write");
        drop(server);
        assert_eq!(
            sending.await.expect("client"),
            b"answer after the client's FIN"
        );
        let carried = carrying.await.expect("carry");
        assert_eq!(
            carried,
            Carried {
                up: 3_000_006,
                down: 29,
                broken: None,
            }
        );
    }

    #[tokio::test]
    async fn whose_connection_broke_is_told_and_the_other_one_is_reset() {
        for broken in [Side::Client, Side::Server] {
            let (client, client_side) = pair().await;
            let (server, server_side) = pair().await;
            let carrying = tokio::spawn(carry(
                Stream::Tcp(client_side),
                Buffer::default(),
                Stream::Tcp(server_side),
                Buffer::default(),
            ));
            let (breaking, mut other) = match broken {
                Side::Client => (client, server),
                Side::Server => (server, client),
            };
            Stream::Tcp(breaking).reset_on_close();
            let heard = other.read(&mut [0]).await.expect_err("a reset");
            assert_eq!(heard.kind(), io::ErrorKind::ConnectionReset);
            let carried = carrying.await.expect("carry");
            assert_eq!(carried.broken, Some(broken));
        }
    }
}
