//! What a Gateway listener says of its clients: whom it believes, and when it takes them for gone.

use std::sync::{Mutex, mpsc};

use super::harness::{Extra, Mesh, Peer, Then, field, status};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn plain(extra: &Extra) -> Mesh {
    Mesh::start_with(extra, |upstream, _| {
        upstream.send(OK);
        Then::Keep
    })
}

/// The fields with these names that the upstream gets of a client that says all of them.
fn told(mesh: &Mesh) -> Vec<String> {
    let mut client = mesh.connect();
    client.send(
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n\
          X-Forwarded-Host: shop.example.com\r\nX-Forwarded-Port: 8443\r\nX-Forwarded-Prefix: /shop\r\n\
          Forwarded: for=192.0.2.1\r\nX-Other: kept\r\n\r\n",
    );
    assert_eq!(status(&client.read_head()), 200);
    let head = mesh.only_head();
    assert_eq!(field(&head, "x-other"), Some("kept"), "{head:?}");
    let fields = head.lines().filter(|line| line.contains("orwarded"));
    fields.map(str::to_owned).collect()
}

#[test]
fn what_a_client_says_of_whom_it_forwards_for_is_dropped() {
    let others = Extra {
        bootstrap: "trusted_networks: [10.0.0.0/8, '::1']",
        ..Extra::default()
    };
    for extra in [Extra::default(), others] {
        assert_eq!(
            told(&plain(&extra)),
            ["X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: http"]
        );
    }
}

#[test]
fn a_peer_of_a_trusted_network_is_believed() {
    let extra = Extra {
        bootstrap: "trusted_networks: [10.0.0.0/8, 127.0.0.0/8]",
        ..Extra::default()
    };
    assert_eq!(
        told(&plain(&extra)),
        [
            "X-Forwarded-For: 192.0.2.1, 127.0.0.1",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: shop.example.com",
            "X-Forwarded-Port: 8443",
            "X-Forwarded-Prefix: /shop",
            "Forwarded: for=192.0.2.1",
        ]
    );
}

const ANSWER: Extra = Extra {
    listener: ", on_half_close: answer",
    rule: "",
    limits: "",
    service: "",
    bootstrap: "",
};
const CANCEL: Extra = Extra {
    listener: ", on_half_close: cancel",
    ..ANSWER
};
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// An upstream that begins its answer with `beginning`, and never goes on; it tells when a request has come, and when its
/// connection has ended.
fn unfinished(extra: &Extra, beginning: &'static [u8]) -> (Mesh, mpsc::Receiver<&'static str>) {
    let (tell, told) = mpsc::channel();
    let mesh = Mesh::start_with(extra, move |upstream, _| {
        upstream.send(beginning);
        let _ = tell.send("requested");
        upstream.read_to_end();
        let _ = tell.send("ended");
        Then::Close
    });
    (mesh, told)
}

/// The client leaves by `leave` once its request is at the upstream and it has got `beginning`; the upstream is let go.
fn is_cancelled(
    extra: &Extra,
    request: &[u8],
    beginning: &'static [u8],
    leave: impl FnOnce(Peer) -> Option<Peer>,
) {
    let (mesh, told) = unfinished(extra, beginning);
    let mut client = mesh.connect();
    client.send(request);
    assert_eq!(told.recv(), Ok("requested"));
    if !beginning.is_empty() {
        client.read_until("begun");
    }
    let client = leave(client);
    assert_eq!(told.recv(), Ok("ended"), "{request:?}");
    if let Some(mut client) = client {
        assert_eq!(client.read_to_end_or_reset(), (String::new(), false));
    }
    assert_eq!(mesh.heads().len(), 1, "{:?}", mesh.heads());
}

fn finish(mut client: Peer) -> Option<Peer> {
    client.finish();
    Some(client)
}

#[test]
fn a_fin_cancels_a_request_where_the_listener_says_so() {
    let put = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nall";
    let pipelined = [GET, GET].concat();
    for request in [GET, put, &pipelined] {
        is_cancelled(&CANCEL, request, b"", finish);
    }
}

#[test]
fn a_fin_in_the_middle_of_an_answer_cancels_it_where_the_listener_says_so() {
    let beginning = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegun";
    is_cancelled(&CANCEL, GET, beginning, finish);
}

#[test]
fn a_reset_cancels_a_request_in_any_case() {
    let reset = |client: Peer| {
        client.reset();
        None
    };
    let beginning = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n";
    for extra in [ANSWER, CANCEL] {
        is_cancelled(&extra, GET, b"", reset);
        is_cancelled(&extra, GET, beginning, reset);
    }
}

#[test]
fn a_fin_is_a_half_close_unless_the_listener_says_otherwise() {
    for extra in [Extra::default(), ANSWER] {
        let (release, held_back) = mpsc::channel::<()>();
        let held_back = Mutex::new(held_back);
        let mesh = Mesh::start_with(&extra, move |upstream, _| {
            upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegun");
            let _ = held_back.lock().expect("no holder panics").recv();
            upstream.send(b"ended");
            Then::Keep
        });
        let mut client = mesh.connect();
        client.send(GET);
        client.read_until("begun");
        client.finish();
        drop(release);
        assert_eq!(client.read_to_end(), "ended");
    }
}

#[test]
fn a_listener_that_cancels_serves_those_who_stay() {
    let mesh = plain(&CANCEL);
    let mut client = mesh.connect();
    client.send(&[GET, GET].concat());
    for request in [GET, b"", b""] {
        client.send(request);
        assert_eq!(status(&client.read_head()), 200);
        assert_eq!(client.read_exact(2), "ok");
    }
}
