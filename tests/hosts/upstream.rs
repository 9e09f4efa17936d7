//! A name server outside of the mesh, which knows the domain `example` and writes down who is asked for.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{RData, Record};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};

use crate::namespace::Host;

/// The address of every name in `example`.
pub const ELSEWHERE: &str = "192.0.2.80";

/// A running server, on port 53 of a host; dropping it ends it.
pub struct Upstream {
    asked: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
}

impl Upstream {
    pub fn start(host: &Host, address: IpAddr) -> Upstream {
        let upstream = Upstream {
            asked: Arc::default(),
            ended: Arc::default(),
        };
        host.inside(|| {
            let udp = UdpSocket::bind((address, 53)).unwrap();
            let tcp = TcpListener::bind((address, 53)).unwrap();
            udp.set_read_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            tcp.set_nonblocking(true).unwrap();
            let (asked, ended) = (upstream.asked.clone(), upstream.ended.clone());
            thread::spawn(move || serve_udp(&udp, &asked, &ended));
            let (asked, ended) = (upstream.asked.clone(), upstream.ended.clone());
            thread::spawn(move || serve_tcp(&tcp, &asked, &ended));
        });
        upstream
    }

    /// The names it was asked for, in lower case.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // The sockets go with the threads, which look each 20 ms.
        thread::sleep(Duration::from_millis(100));
    }
}

fn serve_udp(socket: &UdpSocket, asked: &Mutex<Vec<String>>, ended: &AtomicBool) {
    let mut query = [0; 4096];
    while !ended.load(Ordering::Relaxed) {
        let Ok((length, peer)) = socket.recv_from(&mut query) else {
            continue;
        };
        if let Some(answer) = answer(&query[..length], asked) {
            let answer = match answer.to_bytes() {
                Ok(bytes) if bytes.len() <= 1232 => bytes,
                _ => answer.truncate().to_bytes().unwrap(),
            };
            let _ = socket.send_to(&answer, peer);
        }
    }
}

fn serve_tcp(listener: &TcpListener, asked: &Mutex<Vec<String>>, ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => drop(serve_stream(stream, asked)),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn serve_stream(mut stream: TcpStream, asked: &Mutex<Vec<String>>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut query)?;
    let answer = answer(&query, asked).ok_or(io::ErrorKind::InvalidData)?;
    let answer = answer.to_bytes().map_err(io::Error::other)?;
    let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &answer].concat())
}

fn answer(query: &[u8], asked: &Mutex<Vec<String>>) -> Option<Message> {
    let query = Message::from_bytes(query).ok()?;
    let question = query.queries.first()?.clone();
    let name = question.name.to_string().to_ascii_lowercase();
    asked.lock().unwrap().push(name.clone());
    let mut answer = Message::response(query.metadata.id, OpCode::Query);
    answer.metadata.recursion_available = true;
    answer.add_query(question.clone());
    let data = match &*name {
        "long.example." => RData::TXT(TXT::new(vec!["x".repeat(250); 20])),
        _ => RData::A(A(ELSEWHERE.parse::<Ipv4Addr>().ok()?)),
    };
    answer.metadata.response_code = match &*name {
        "refused.example." => ResponseCode::Refused,
        _ if name.ends_with(".example.") => {
            answer.add_answer(Record::from_rdata(question.name, 60, data));
            ResponseCode::NoError
        }
        _ => ResponseCode::NXDomain,
    };
    Some(answer)
}
