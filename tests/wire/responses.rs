//! Answers over real sockets: what a bad upstream's client sees, and what every client gets.

use super::harness::{Mesh, Then, field, status};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// An upstream that answers every request with these bytes.
fn answering(bytes: &str, then: Then) -> Mesh {
    let bytes = bytes.as_bytes().to_vec();
    Mesh::start(move |upstream, _| {
        upstream.send(&bytes);
        then
    })
}

/// An upstream that answers a request for `/3` with the third of these.
fn answering_each(table: &[&str], then: Then) -> Mesh {
    let table: Vec<String> = table.iter().map(|&bytes| bytes.to_owned()).collect();
    Mesh::start(move |upstream, head| {
        let index = head.split(' ').nth(1).and_then(|path| path.get(1..));
        let index: usize = index
            .and_then(|index| index.parse().ok())
            .expect("the path is an index");
        upstream.send(table[index].as_bytes());
        then
    })
}

#[test]
fn a_malformed_answer_is_a_502() {
    let table = [
        "garbage\r\n\r\n",
        "HTTP/1.1 99 X\r\n\r\n",
        "HTTP/1.1 600 X\r\n\r\n",
        "HTTP/1.1 20 X\r\n\r\n",
        "HTTP/1.1 2000 X\r\n\r\n",
        "HTTP/2.0 200 X\r\n\r\n",
        "HTTP/1.1 200 X\nContent-Length: 0\n\n",
        "HTTP/1.1 200 X\r\nA : b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 X\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 X\r\nA: b\0\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 X\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 X\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 X\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 X\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ];
    let mesh = answering_each(&table, Then::Close);
    for (index, bytes) in table.iter().enumerate() {
        let mut client = mesh.connect();
        client.send(format!("GET /{index} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let head = client.read_head();
        assert_eq!(status(&head), 502, "{bytes:?}");
        assert!(field(&head, "proxy-status").is_some(), "{head:?}");
    }
}

#[test]
fn an_answer_that_is_cut_short_is_shown_as_cut() {
    let table = [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhellohello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nX\r\n",
    ];
    let mesh = answering_each(&table, Then::Close);
    for (index, bytes) in table.iter().enumerate() {
        let mut client = mesh.connect();
        client.send(
            format!("GET /{index} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes(),
        );
        let (answer, _) = client.read_to_end_or_reset();
        // A reset may have overtaken any part of it, so only what must not be there is known.
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(!body.contains("0\r\n\r\n"), "{bytes:?}: {answer:?}");
        assert!(!body.contains("hellohello"), "{bytes:?}: {answer:?}");
    }
}

#[test]
fn an_answer_that_is_broken_before_any_of_it_was_sent_on_is_a_502() {
    let table = [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nX\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
         HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\rX",
    ];
    let mesh = answering_each(&table, Then::Keep);
    for (index, bytes) in table.iter().enumerate() {
        let mut client = mesh.connect();
        client.send(format!("GET /{index} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let mut head = client.read_head();
        if status(&head) == 103 {
            head = client.read_head();
        }
        assert_eq!(status(&head), 502, "{bytes:?}");
        assert!(field(&head, "proxy-status").is_some(), "{head:?}");
        let length = field(&head, "content-length").and_then(|length| length.parse().ok());
        client.read_exact(length.expect("a body of known length"));
        client.send(b"GET /0 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(
            status(&client.read_head()),
            502,
            "the connection is as good as before"
        );
    }
}

#[test]
fn a_switch_to_a_protocol_that_was_not_asked_for_is_a_502() {
    for upgrade in ["", "Upgrade: mqtt\r\n", "Upgrade: websocket, mqtt\r\n"] {
        let bytes =
            format!("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n{upgrade}\r\n");
        let mesh = answering(&bytes, Then::Close);
        let mut client = mesh.connect();
        client.send(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        assert_eq!(status(&client.read_head()), 502, "{upgrade:?}");
    }
}

#[test]
fn an_interim_answer_passes_without_what_concerns_its_own_connection() {
    let mesh = answering(
        "HTTP/1.1 103 Early Hints\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nLink: </a>\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        Then::Keep,
    );
    let mut client = mesh.connect();
    client.send(GET.as_bytes());
    let head = client.read_head();
    assert_eq!((status(&head), field(&head, "link")), (103, Some("</a>")));
    for name in ["connection", "x-hop", "keep-alive"] {
        assert_eq!(field(&head, name), None, "{head:?}");
    }
    assert_eq!(status(&client.read_head()), 200);
}

#[test]
fn what_sidecars_tell_each_other_of_a_request_reaches_no_client() {
    let mesh = answering(
        "HTTP/1.1 503 Service Unavailable\r\nX-Mesh-Undelivered: certainly\r\nContent-Length: 4\r\n\r\nbusy",
        Then::Keep,
    );
    for mut client in [
        mesh.connect(),
        mesh.connect_outbound(),
        mesh.connect_inbound(),
    ] {
        client.send(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n");
        let head = client.read_head();
        assert_eq!(
            (status(&head), field(&head, "x-mesh-undelivered")),
            (503, None)
        );
        assert_eq!(client.read_exact(4), "busy");
    }
    assert_eq!(mesh.heads().len(), 3, "there is nowhere else to go");
}

#[test]
fn an_answer_that_ends_with_its_connection_is_whole_only_after_a_fin() {
    let whole = answering("HTTP/1.1 200 OK\r\n\r\nall of it", Then::Close);
    let mut client = whole.connect();
    client.send(GET.as_bytes());
    let head = client.read_head();
    assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
    assert_eq!(
        client.read_until("0\r\n\r\n"),
        "9\r\nall of it\r\n0\r\n\r\n"
    );

    let reset = Mesh::start(|upstream, _| {
        upstream.send(b"HTTP/1.1 200 OK\r\n\r\nsome of it");
        // The reset overtakes bytes that have not been read, so these must have arrived before.
        upstream.read_until("go on");
        Then::Reset
    });
    let mut client = reset.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    client.read_until("some of it");
    client.send(b"go on");
    let (rest, clean) = client.read_to_end_or_reset();
    assert!(!clean || !rest.ends_with("0\r\n\r\n"), "{rest:?}");
}

#[test]
fn answers_without_a_body_leave_the_connection_usable() {
    let table = [
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n",
        ),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ];
    let answers = table.map(|(_, bytes)| bytes);
    let mesh = answering_each(&answers, Then::Keep);
    let mut client = mesh.connect();
    for (index, (method, bytes)) in table.iter().enumerate() {
        client.send(format!("{method} /{index} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let head = client.read_head();
        assert_eq!(status(&head), status(bytes));
        assert_eq!(
            field(&head, "content-length"),
            field(bytes, "content-length"),
            "{bytes:?}"
        );
    }
}

#[test]
fn an_answer_passes_as_it_is_but_for_its_connection() {
    let mesh = answering(
        "HTTP/1.1 299 Quite Fine\r\nX-Mixed-CASE: 1\r\nSet-Cookie: a=b\r\nset-cookie: c=d\r\nConnection: X-Gone, keep-alive\r\n\
         X-Gone: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok",
        Then::Keep,
    );
    let mut client = mesh.connect();
    client.send(GET.as_bytes());
    assert_eq!(
        client.read_head(),
        "HTTP/1.1 299 Quite Fine\r\nX-Mixed-CASE: 1\r\nSet-Cookie: a=b\r\nset-cookie: c=d\r\nContent-Length: 2\r\n\r\n"
    );
    assert_eq!(client.read_exact(2), "ok");
}

#[test]
fn each_chunk_is_passed_on_as_it_comes() {
    let mesh = Mesh::start(|upstream, _| {
        upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for word in ["one", "two"] {
            upstream.send(format!("3\r\n{word}\r\n").as_bytes());
            // The client has seen it before the next is sent.
            assert_eq!(upstream.read_exact(3), word);
        }
        upstream.send(b"0\r\nX-Sum: 2\r\n\r\n");
        Then::Close
    });
    let mut client = mesh.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n");
    assert_eq!(status(&client.read_head()), 200);
    for word in ["one", "two"] {
        assert_eq!(client.read_until("\r\n"), "3\r\n");
        assert_eq!(client.read_exact(5), format!("{word}\r\n"));
        client.send(word.as_bytes());
    }
    assert_eq!(client.read_until("\r\n\r\n"), "0\r\nX-Sum: 2\r\n\r\n");
}

#[test]
fn bytes_that_nobody_asked_for_end_the_upstream_connection() {
    let mesh = Mesh::start(|upstream, head| {
        if head.starts_with("GET /first ") {
            upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
        } else {
            upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nclean");
        }
        Then::Keep
    });
    let mut client = mesh.connect();
    for (path, body) in [("/first", "ok"), ("/second", "clean"), ("/third", "clean")] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!(status(&client.read_head()), 200);
        assert_eq!(client.read_exact(body.len()), body);
    }
}

#[test]
fn a_websocket_upgrade_opens_a_tunnel() {
    let mesh = Mesh::start(|upstream, head| {
        assert_eq!(field(head, "upgrade"), Some("websocket"));
        assert_eq!(field(head, "connection"), Some("Upgrade"));
        upstream.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhello");
        let asked = upstream.read_exact(4);
        upstream.send(asked.as_bytes());
        upstream.finish();
        upstream.read_to_end();
        Then::Close
    });
    let mut client = mesh.connect();
    client.send(b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n");
    let head = client.read_head();
    assert_eq!(status(&head), 101);
    assert_eq!(field(&head, "connection"), Some("Upgrade"));
    assert_eq!(field(&head, "upgrade"), Some("websocket"));
    assert_eq!(client.read_exact(5), "hello");
    client.send(b"ping");
    assert_eq!(client.read_exact(4), "ping");
    assert_eq!(client.read_to_end(), "", "a half-close passes the tunnel");
    client.finish();
}

#[test]
fn an_upgrade_that_is_not_allowed_is_ignored() {
    let mesh = Mesh::start(|upstream, head| {
        assert_eq!(field(head, "upgrade"), None);
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        Then::Keep
    });
    for protocol in ["h2c", "TLS/1.0", "websocket2"] {
        let mut client = mesh.connect();
        client.send(
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
            )
            .as_bytes(),
        );
        assert_eq!(status(&client.read_head()), 200);
    }
}
