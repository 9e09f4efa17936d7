//! A query that is not about the mesh, asked of an upstream: the same bytes under a fresh id from a fresh port, and the
//! answer's bytes under the client's id again.
//!
//! What came by UDP goes by UDP, and by TCP what came by TCP: an answer that was cut short says so to the client, who then
//! comes by TCP, as without us. A server that does not answer, refuses or fails is followed by the next.

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::upstreams::Servers;

/// Sockets to upstreams at once; more queries wait for one.
const SOCKETS_MAX: usize = 256;
/// Times that a query is sent, to one server or to several.
const TRIES_MAX: usize = 3;
const TRY_TIMEOUT: Duration = Duration::from_millis(1500);
/// From a query's arrival on: less than the 5 s after which a resolver asks again.
const FORWARD_TIMEOUT: Duration = Duration::from_millis(4500);
pub const MESSAGE_BYTES_MAX: usize = 65_535;
/// Of an answer to nothing, which is all that may come without the question.
const HEADER_BYTES: usize = 12;

pub struct Forwarder {
    servers: Servers,
    sockets: Semaphore,
    /// The local addresses of our sockets to upstreams.
    asking: RefCell<HashSet<SocketAddr>>,
}

#[derive(Clone, Copy)]
pub enum Transport {
    Udp,
    Tcp,
}

impl Forwarder {
    pub fn new(servers: Servers) -> Self {
        Self {
            servers,
            sockets: Semaphore::new(SOCKETS_MAX),
            asking: RefCell::default(),
        }
    }

    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// Whether a query comes from ourselves: rules that redirect this process's own queries bring them back here.
    pub fn is_asking(&self, peer: SocketAddr) -> bool {
        self.asking.borrow().contains(&peer)
    }

    /// The answer to a query; None where nobody gives one in time.
    pub async fn ask(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        timeout(FORWARD_TIMEOUT, self.ask_in_turn(query, transport))
            .await
            .ok()?
    }

    async fn ask_in_turn(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        // Never closed, so there is always a permit some time.
        let _permit = self.sockets.acquire().await;
        let servers = self.servers.current();
        let mut turn: VecDeque<_> = servers.iter().cycle().take(TRIES_MAX).copied().collect();
        let mut refusal = None;
        while let Some(server) = turn.pop_front() {
            match timeout(TRY_TIMEOUT, self.ask_one(server, query, transport)).await {
                Ok(Ok(answer)) if is_refusal(&answer) => {
                    turn.retain(|next| *next != server);
                    refusal = Some(answer);
                }
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "Name server cannot be asked"),
                Err(_) => tracing::debug!(%server, "Name server does not answer"),
            }
        }
        refusal
    }

    async fn ask_one(
        &self,
        server: SocketAddr,
        query: &[u8],
        transport: Transport,
    ) -> io::Result<Vec<u8>> {
        let sent = with_id(query, fresh_id());
        let answer = match transport {
            Transport::Udp => self.ask_udp(server, &sent).await?,
            Transport::Tcp => self.ask_tcp(server, &sent).await?,
        };
        Ok(with_id(&answer, id(query)))
    }

    async fn ask_udp(&self, server: SocketAddr, sent: &[u8]) -> io::Result<Vec<u8>> {
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        // Packets of others do not arrive any more, and a closed port is an error at once.
        socket.connect(server).await?;
        let _asking = self.asking_from(socket.local_addr()?);
        socket.send(sent).await?;
        loop {
            // Memory only for what has come.
            socket.readable().await?;
            let mut answer = Vec::with_capacity(MESSAGE_BYTES_MAX);
            match socket.try_recv_buf(&mut answer) {
                Ok(_) if answers(sent, &answer) => return Ok(answer),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn ask_tcp(&self, server: SocketAddr, sent: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(server).await?;
        let _asking = self.asking_from(stream.local_addr()?);
        write_message(&mut stream, sent).await?;
        match read_message(&mut stream).await? {
            Some(answer) if answers(sent, &answer) => Ok(answer),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn asking_from(&self, address: SocketAddr) -> Asking<'_> {
        self.asking.borrow_mut().insert(address);
        Asking {
            addresses: &self.asking,
            address,
        }
    }
}

/// A socket that asks; dropping it forgets its address.
struct Asking<'a> {
    addresses: &'a RefCell<HashSet<SocketAddr>>,
    address: SocketAddr,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.addresses.borrow_mut().remove(&self.address);
    }
}

/// Of the library's generator, which is one for secrets: guessing it would be forging an answer.
fn fresh_id() -> u16 {
    Message::query().metadata.id
}

fn id(message: &[u8]) -> u16 {
    message
        .first_chunk()
        .map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

fn with_id(message: &[u8], id: u16) -> Vec<u8> {
    let mut message = message.to_vec();
    if let Some(place) = message.first_chunk_mut() {
        *place = id.to_be_bytes();
    }
    message
}

/// Whether a message is the answer to what was sent: the same id, and the same question in any case of its letters.
fn answers(sent: &[u8], answer: &[u8]) -> bool {
    let is_response = answer.get(2).is_some_and(|flags| flags & 0x80 != 0);
    if !is_response || answer.len() < HEADER_BYTES || id(sent) != id(answer) {
        return false;
    }
    let question = question(sent);
    let same = answer[HEADER_BYTES..]
        .get(..question.len())
        .is_some_and(|echoed| echoed.eq_ignore_ascii_case(question));
    same || answer.len() == HEADER_BYTES && code(answer) != 0
}

/// The bytes of a query's question; of several or none, nothing.
fn question(query: &[u8]) -> &[u8] {
    let Some(rest) = query.get(HEADER_BYTES..) else {
        return &[];
    };
    if query[4..6] != [0, 1] {
        return &[];
    }
    let mut end = 0;
    while let Some(length) = rest.get(end).map(|length| usize::from(*length)) {
        end += 1 + length;
        if length == 0 {
            // Its type and class follow.
            return rest.get(..end + 4).unwrap_or_default();
        }
    }
    &[]
}

/// The answer of a server that others may know better than.
fn is_refusal(answer: &[u8]) -> bool {
    let refusals = [
        ResponseCode::ServFail,
        ResponseCode::NotImp,
        ResponseCode::Refused,
    ];
    refusals.iter().any(|refusal| refusal.low() == code(answer))
}

fn code(message: &[u8]) -> u8 {
    message.get(3).map_or(0, |flags| flags & 0x0f)
}

/// A message with its length before it, as TCP carries it; None at the end of the stream.
pub async fn read_message(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

pub async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let whole = [&length.to_be_bytes()[..], message].concat();
    stream.write_all(&whole).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Upstreams;

    const QUERY: &[u8] =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01";

    fn changed(place: usize, byte: u8) -> Vec<u8> {
        let mut answer = QUERY.to_vec();
        answer[2] = 0x81;
        answer[place] = byte;
        answer
    }

    #[test]
    fn only_a_response_with_the_id_and_the_question_is_the_answer() {
        assert!(answers(QUERY, &changed(3, 0x80)));
        assert!(answers(QUERY, &changed(13, b'A')));
        assert!(!answers(QUERY, QUERY));
        assert!(!answers(QUERY, &changed(1, 0x35)));
        assert!(!answers(QUERY, &changed(13, b'b')));
        assert!(!answers(QUERY, &changed(16, 28)));
        let bare_refusal = &changed(3, 0x05)[..HEADER_BYTES];
        assert!(answers(QUERY, bare_refusal) && is_refusal(bare_refusal));
        assert!(!answers(QUERY, &changed(3, 0)[..HEADER_BYTES]));
    }

    #[test]
    fn a_question_is_found_in_any_bytes_without_reading_beyond_them() {
        assert_eq!(question(QUERY), &QUERY[HEADER_BYTES..]);
        for end in 0..QUERY.len() {
            assert_eq!(question(&QUERY[..end]), b"");
        }
    }

    /// An answer made of a query.
    type Made = fn(Vec<u8>) -> Vec<u8>;

    /// A server that answers each query with these.
    async fn server(answers: &'static [Made]) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut query).await {
                for answer in answers {
                    let answer = answer(query[..length].to_vec());
                    socket.send_to(&answer, peer).await.unwrap();
                }
            }
        });
        address
    }

    fn good(mut query: Vec<u8>) -> Vec<u8> {
        query[2] |= 0x80;
        query
    }

    fn refused(query: Vec<u8>) -> Vec<u8> {
        let mut answer = good(query);
        answer[3] = ResponseCode::Refused.low();
        answer
    }

    fn forged(query: Vec<u8>) -> Vec<u8> {
        let mut answer = refused(query);
        answer[0] ^= 1;
        answer
    }

    fn forwarder(servers: Vec<SocketAddr>) -> Forwarder {
        let upstreams = Upstreams::Fixed(servers);
        Forwarder::new(Servers::new(upstreams, Vec::new()))
    }

    #[tokio::test]
    async fn closed_and_refusing_servers_are_followed_by_the_next_and_forgeries_are_not_heard() {
        let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr();
        let servers = vec![
            closed.unwrap(),
            server(&[refused]).await,
            server(&[forged, good]).await,
        ];
        let forwarder = forwarder(servers);
        let answer = forwarder.ask(QUERY, Transport::Udp).await.unwrap();
        assert_eq!(answer, good(QUERY.to_vec()));
        assert!(forwarder.asking.borrow().is_empty());
    }

    #[tokio::test]
    async fn a_refusal_is_the_answer_where_nobody_knows_better_and_no_server_is_none() {
        let only = forwarder(vec![server(&[refused]).await]);
        let answer = only.ask(QUERY, Transport::Udp).await.unwrap();
        assert_eq!(answer, refused(QUERY.to_vec()));
        assert_eq!(forwarder(Vec::new()).ask(QUERY, Transport::Udp).await, None);
    }

    #[tokio::test]
    async fn a_silent_server_is_asked_until_the_time_is_up() {
        let silent = forwarder(vec![server(&[]).await]);
        let began = tokio::time::Instant::now();
        assert_eq!(silent.ask(QUERY, Transport::Udp).await, None);
        assert!(began.elapsed() >= FORWARD_TIMEOUT);
    }
}
