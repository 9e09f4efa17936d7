//! An HTTP/2 endpoint that closes a connection says which requests it has not seen, and those can be sent again, whatever they are.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use hyper::Method;

use crate::failover::gateway_to_addresses;
use crate::harness::{Client, Mesh, Target};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const SETTINGS: u8 = 0x4;
const GOAWAY: u8 = 0x7;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// `:status: 200` of the static table (RFC 7541, appendix A).
const STATUS_200: [u8; 1] = [0x88];

#[tokio::test]
async fn a_post_that_its_endpoint_has_not_seen_is_sent_again_on_another_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let endpoint = thread::spawn(move || {
        let connection = || listener.accept().expect("a connection").0;
        says_goodbye(connection()).expect("a request comes");
        answers(connection()).expect("it comes again")
    });
    let mesh = Mesh::new();
    let documents = |gateway| {
        gateway_to_addresses(&[address], "", gateway)
            .replace("port: 80, protocol: http}", "port: 80, protocol: http2}")
    };
    let gateway = mesh.gateway(documents).await;
    let mut client = Client::new(Target::direct(gateway.gateway, "shop.test"));
    let answer = client.send(Method::POST, "/", "one body").await;
    assert_eq!(answer.expect("an answer").status, 200);
    let (body, _connection) = endpoint.join().expect("it has not panicked");
    assert_eq!(body, "one body");
}

/// Reads a request and its body, and goes as if it had been too late for that.
fn says_goodbye(mut stream: TcpStream) -> io::Result<()> {
    let body = request(&mut stream)?;
    assert_eq!(body, "one body");
    let seen_none_and_no_error = [0; 8];
    send(&mut stream, GOAWAY, 0, 0, &seen_none_and_no_error)
}

/// The connection stays, so that what was written on it arrives.
fn answers(mut stream: TcpStream) -> io::Result<(String, TcpStream)> {
    let body = request(&mut stream)?;
    send(
        &mut stream,
        HEADERS,
        END_HEADERS | END_STREAM,
        1,
        &STATUS_200,
    )?;
    Ok((body, stream))
}

/// The body of the request on a new connection.
fn request(stream: &mut TcpStream) -> io::Result<String> {
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface)?;
    assert_eq!(preface, PREFACE);
    send(stream, SETTINGS, 0, 0, &[])?;
    let mut body = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload)?;
        if head[3] == DATA {
            body.extend(payload);
            if head[4] & END_STREAM != 0 {
                return Ok(String::from_utf8(body).expect("what was sent"));
            }
        }
    }
}

fn send(stream: &mut TcpStream, kind: u8, flags: u8, id: u8, payload: &[u8]) -> io::Result<()> {
    let head = [0, 0, payload.len() as u8, kind, flags, 0, 0, 0, id];
    stream.write_all(&[&head, payload].concat())
}
