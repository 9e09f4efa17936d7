//! Limits and time-outs over real sockets.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::harness::{Extra, Mesh, Peer, Then, field, status};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// An upstream that takes whole bodies, but never answers the first request; it tells of each body how long it was.
fn silent_at_first(extra: &Extra) -> (Mesh, mpsc::Receiver<usize>) {
    let (lengths, told) = mpsc::channel();
    let requests = AtomicUsize::new(0);
    let mesh = Mesh::start_with(extra, move |upstream, head| {
        let is_first = requests.fetch_add(1, Ordering::Relaxed) == 0;
        let _ = lengths.send(read_body(upstream, head));
        if is_first {
            upstream.read_to_end();
            return Then::Close;
        }
        upstream.send(OK);
        Then::Keep
    });
    (mesh, told)
}

/// How long the request's body was.
fn read_body(upstream: &mut Peer, head: &str) -> usize {
    if let Some(length) = field(head, "content-length") {
        let length = length.parse().expect("the proxy sends a number");
        return upstream.read_exact(length).len();
    }
    if field(head, "transfer-encoding").is_none() {
        return 0;
    }
    let mut whole = 0;
    loop {
        let size = upstream.read_until("\r\n");
        let size = usize::from_str_radix(size.trim_end(), 16).expect("the proxy sends chunk sizes");
        upstream.read_exact(size + 2);
        if size == 0 {
            return whole;
        }
        whole += size;
    }
}

const RETRIED: Extra = Extra {
    listener: "",
    rule: ", timeouts: {backendRequest: 300ms}, retry: {attempts: 1, backoff: 1ms}",
    limits: "",
    service: "",
    bootstrap: "",
};

fn put(body: &str) -> String {
    let length = body.len();
    format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn put_in_chunks(body: &str) -> String {
    let length = body.len();
    format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
    )
}

#[test]
fn a_retry_after_an_attempt_that_timed_out_sends_the_whole_body() {
    let body = "b".repeat(60 * 1024);
    for request in [put(&body), put_in_chunks(&body)] {
        let (mesh, lengths) = silent_at_first(&RETRIED);
        let mut client = mesh.connect();
        client.send(request.as_bytes());
        assert_eq!(status(&client.read_head()), 200);
        let lengths: Vec<usize> = lengths.iter().take(2).collect();
        assert_eq!(lengths, [body.len(), body.len()], "{:?}", mesh.heads());
    }
}

#[test]
fn a_body_that_was_too_long_to_keep_is_not_sent_again_in_part() {
    let body = "b".repeat(200 * 1024);
    for request in [put(&body), put_in_chunks(&body)] {
        let (mesh, lengths) = silent_at_first(&RETRIED);
        let mut client = mesh.connect();
        client.send(request.as_bytes());
        assert_eq!(status(&client.read_head()), 504);
        assert_eq!(lengths.recv(), Ok(body.len()), "the first attempt");
        assert_eq!(mesh.heads().len(), 1, "{:?}", mesh.heads());
    }
}

#[test]
fn a_connection_above_the_limit_is_closed_while_those_below_are_served() {
    let extra = Extra {
        limits: ", downstream_connections_max: 4",
        ..Extra::default()
    };
    let (release, held_back) = mpsc::channel::<()>();
    let held_back = Mutex::new(held_back);
    let mesh = Mesh::start_with(&extra, move |upstream, _| {
        upstream.send(b"HTTP/1.1 103 Early Hints\r\n\r\n");
        // Ends when the test lets go of the other end.
        let _ = held_back.lock().expect("no holder panics").recv();
        upstream.send(OK);
        Then::Keep
    });
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let held: Vec<Peer> = (0..4)
        .map(|_| {
            let mut client = mesh.connect();
            client.send(get);
            client.read_head();
            client
        })
        .collect();
    let mut refused = mesh.connect();
    refused.send(get);
    assert_eq!(refused.read_to_end(), "", "one above the limit is served");
    drop(release);
    for mut client in held {
        assert_eq!(status(&client.read_head()), 200);
    }
}

#[test]
fn a_connection_that_says_nothing_counts_too() {
    let extra = Extra {
        limits: ", downstream_connections_max: 4",
        ..Extra::default()
    };
    let mesh = Mesh::start_with(&extra, |upstream, _| {
        upstream.send(OK);
        Then::Keep
    });
    let mut clients: Vec<Peer> = (0..20).map(|_| mesh.connect()).collect();
    let served = clients.iter_mut().filter_map(|client| {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.try_read_head()
    });
    // All are held to the end.
    assert_eq!(served.count(), 4, "of 20 with a limit of 4");
}
