//! Requests over real sockets: what is refused before anything reaches the upstream, and what the upstream gets.

use super::harness::{Extra, Mesh, Then, field, status};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Answers every request with `ok`; the body, where there is one, must be sent after the answer is read.
fn plain() -> Mesh {
    Mesh::start(|upstream, _| {
        upstream.send(OK);
        Then::Keep
    })
}

/// Answers each request once its chunked body has come whole.
fn after_chunks() -> Mesh {
    Mesh::start(|upstream, _| {
        upstream.read_until("0\r\n\r\n");
        upstream.send(OK);
        Then::Keep
    })
}

#[test]
fn malformed_heads_are_refused_and_never_forwarded() {
    let table: &[(u16, &str)] = &[
        (400, "GET /\r\n\r\n"),
        (400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1\nHost: a\n\n"),
        (400, "GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
        (505, "GET / HTTP/3.0\r\nHost: a\r\n\r\n"),
        (400, "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX(y): z\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n"),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\nhello",
        ),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Host\r\n\r\n"),
        (
            400,
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Forwarded-For\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: content-length\r\n\r\nhello",
        ),
        (405, "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
    ];
    let mesh = plain();
    for (expected, bytes) in table {
        let answer =
            mesh.exchange(format!("{bytes}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!(status(&answer), *expected, "{bytes:?}: {answer:?}");
        assert_eq!(field(&answer, "connection"), Some("close"), "{bytes:?}");
        assert!(!answer.contains("HTTP/1.1 200"), "{bytes:?}: {answer:?}");
    }
    assert_eq!(mesh.heads(), Vec::<String>::new());
}

#[test]
fn what_is_refused_leaves_its_line_in_the_access_log() {
    let table = [
        "GET /a HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
        "GET /b HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
        "GET /c HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        // This one is given up on after the header timeout.
        "GET /d HTTP/1.1\r\nHost: a\r\nX: b\r\n",
    ];
    let mesh = plain();
    for bytes in table {
        let answer = mesh.exchange(bytes.as_bytes());
        assert!(matches!(status(&answer), 400 | 408), "{answer:?}");
    }
    let lines = mesh.access_log(table.len());
    for (line, path) in lines.iter().zip(["/a", "/b", "/c", "/d"]) {
        assert!(line.contains(&format!("\"path\":\"{path}\"")), "{lines:?}");
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let mesh = plain();
    let long = "a".repeat(20 * 1024);
    for (expected, bytes) in [
        (
            414,
            format!("GET /{}{long} HTTP/1.1\r\nHost: a\r\n\r\n", long.repeat(2)),
        ),
        (
            431,
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"),
        ),
        (
            431,
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(40)),
        ),
    ] {
        let answer = mesh.exchange(bytes.as_bytes());
        assert_eq!(status(&answer), expected, "{answer:?}");
    }
    assert_eq!(mesh.heads(), Vec::<String>::new());
}

#[test]
fn a_plain_request_arrives_as_it_was_sent() {
    let mesh = plain();
    let sent = "GET /a%2Fb//c/./d?q=%20&r=1 HTTP/1.1\r\nhOST: Shop.example:80\r\nX-Mixed-CASE: v1 , v2\r\nx-mixed-case: \u{e9}\u{fc}\r\nAccept: */*\r\n\r\n";
    let mut client = mesh.connect();
    let bytes: Vec<u8> = sent.chars().map(|character| character as u8).collect();
    client.send(&bytes);
    assert_eq!(status(&client.read_head()), 200);
    let head = mesh.only_head();
    let forwarded = head.split("X-Forwarded-For").next().unwrap_or_default();
    assert_eq!(forwarded, sent.trim_end_matches("\r\n").to_owned() + "\r\n");
    assert_eq!(field(&head, "x-forwarded-for"), Some("127.0.0.1"));
}

#[test]
fn that_a_request_has_no_body_is_said_where_one_could_be() {
    let table = [
        (
            "POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 0\r\n\r\n",
            Some("0"),
        ),
        (
            "DELETE / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            Some("0"),
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", Some("0")),
        ("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", None),
    ];
    for (bytes, length) in table {
        let mesh = plain();
        let mut client = mesh.connect();
        client.send(bytes.as_bytes());
        assert_eq!(status(&client.read_head()), 200, "{bytes:?}");
        assert_eq!(
            field(&mesh.only_head(), "content-length"),
            length,
            "{bytes:?}"
        );
    }
}

#[test]
fn a_request_that_comes_byte_by_byte_is_the_same_request() {
    let mesh = after_chunks();
    let mut client = mesh.connect();
    client.send_slowly(b"\r\nPOST /slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\n\r\n");
    assert_eq!(status(&client.read_head()), 200);
    assert_eq!(client.read_exact(2), "ok");
    assert!(mesh.only_head().starts_with("POST /slow HTTP/1.1\r\n"));
}

#[test]
fn fields_that_end_at_the_proxy_do_not_pass_it() {
    let mesh = plain();
    let mut client = mesh.connect();
    client.send(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\n\
          Proxy-Connection: keep-alive\r\nTE: gzip, trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\
          x_forwarded_for: 6.6.6.6\r\nContent_Length: 7\r\nX-Kept: 1\r\n\r\n",
    );
    assert_eq!(status(&client.read_head()), 200);
    let head = mesh.only_head().to_ascii_lowercase();
    for gone in [
        "x-mine",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "http2-settings",
        "x_forwarded",
        "content_length",
        "gzip",
    ] {
        assert!(!head.contains(gone), "{gone} is in {head:?}");
    }
    assert_eq!(field(&head, "te"), Some("trailers"));
    assert_eq!(field(&head, "connection"), Some("te"));
    assert_eq!(field(&head, "x-kept"), Some("1"));
}

#[test]
fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let mesh = Mesh::start(|upstream, head| {
        let path = head.split(' ').nth(1).unwrap_or_default();
        upstream.send(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}",
                path.len()
            )
            .as_bytes(),
        );
        Then::Keep
    });
    let mut client = mesh.connect();
    client.send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    for path in ["/1", "/2", "/3"] {
        assert_eq!(status(&client.read_head()), 200);
        assert_eq!(client.read_exact(2), path);
    }
    assert_eq!(client.read_to_end(), "");
}

#[test]
fn http_1_0_clients_are_served_without_chunks() {
    let mesh = Mesh::start(|upstream, _| {
        upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n");
        Then::Keep
    });
    let answer = mesh.exchange(b"GET /old HTTP/1.0\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert_eq!((status(head), body), (200, "hello world"));
    assert_eq!(field(head, "transfer-encoding"), None);
    assert!(mesh.only_head().starts_with("GET /old HTTP/1.1\r\n"));
}

#[test]
fn http_1_0_clients_may_keep_their_connection() {
    let mesh = plain();
    let mut client = mesh.connect();
    for _ in 0..2 {
        client.send(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        let head = client.read_head();
        assert_eq!(field(&head, "connection"), Some("keep-alive"), "{head:?}");
        assert_eq!(client.read_exact(2), "ok");
    }
}

#[test]
fn an_absolute_target_wins_over_host() {
    let mesh = plain();
    let mut client = mesh.connect();
    client.send(b"GET http://shop.example/a?b HTTP/1.1\r\nHost: other\r\n\r\n");
    assert_eq!(status(&client.read_head()), 200);
    let head = mesh.only_head();
    assert!(head.starts_with("GET /a?b HTTP/1.1\r\n"), "{head:?}");
    assert_eq!(field(&head, "host"), Some("shop.example"));
    assert_eq!(head.to_ascii_lowercase().matches("host: ").count(), 1);
}

#[test]
fn bodies_and_trailers_are_passed_on_in_their_framing() {
    let mesh = Mesh::start(|upstream, head| {
        let body = if field(head, "content-length").is_some() {
            upstream.read_exact(5)
        } else {
            upstream.read_until("0\r\n") + &upstream.read_until("\r\n\r\n")
        };
        upstream.send(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .as_bytes(),
        );
        Then::Close
    });
    let answer = mesh.exchange(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
    );
    assert!(answer.ends_with("\r\n\r\nhello"), "{answer:?}");
    let answer = mesh.exchange(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
          5;ext=1\r\nhello\r\n0\r\nX-Sum: 1\r\nContent-Length: 3\r\nAuthorization: x\r\n\r\n",
    );
    assert!(
        answer.ends_with("\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"),
        "{answer:?}"
    );
}

#[test]
fn broken_chunks_end_the_request_on_both_sides() {
    let mesh = Mesh::start(|upstream, _| {
        // A request that is cut must not look whole.
        let (body, _) = upstream.read_to_end_or_reset();
        assert!(!body.contains("0\r\n\r\n"), "{body:?}");
        Then::Close
    });
    for body in [
        "x\r\n",
        "5\nhello\n0\n\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhellohello\r\n0\r\n\r\n",
        "5;\x01\r\nhello\r\n0\r\n\r\n",
        "8000000000000000\r\nhello",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nA : b\r\n\r\n",
        "5\r\nhello\r\n0\r\nA: b\0\r\n\r\n",
    ] {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = mesh
            .exchange(format!("{head}{body}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert!(
            answer.is_empty() || status(&answer) == 400,
            "{body:?}: {answer:?}"
        );
        assert!(!answer.contains("HTTP/1.1 200"), "{body:?}: {answer:?}");
    }
    let heads = mesh.heads().concat();
    assert!(!heads.contains("smuggled"), "{heads:?}");
}

#[test]
fn a_client_that_stops_in_the_middle_of_its_head_is_let_go() {
    let mesh = plain();
    let mut client = mesh.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ");
    assert_eq!(status(&client.read_to_end()), 408);
    assert_eq!(mesh.heads(), Vec::<String>::new());
}

#[test]
fn continue_and_other_interim_answers_pass_end_to_end() {
    let mesh = Mesh::start(|upstream, head| {
        assert_eq!(field(head, "expect"), Some("100-continue"));
        upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n");
        let body = upstream.read_exact(5);
        upstream.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        upstream.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{body}").as_bytes());
        Then::Keep
    });
    let mut client = mesh.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.read_head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(b"hello");
    assert_eq!(
        client.read_head(),
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    );
    assert_eq!(status(&client.read_head()), 200);
    assert_eq!(client.read_exact(5), "hello");
}

#[test]
fn an_answer_that_ends_the_connection_says_so() {
    let mesh = Mesh::start_with(
        &Extra {
            rule: ", matches: [{path: {value: /app}}]",
            ..Extra::default()
        },
        |upstream, _| {
            upstream.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n");
            Then::Keep
        },
    );
    let table = [
        (
            "/app",
            "Content-Length: 3\r\nExpect: 100-continue\r\n\r\n",
            401,
            Some("close"),
        ),
        (
            "/other",
            "Content-Length: 3\r\nExpect: 100-continue\r\n\r\n",
            404,
            Some("close"),
        ),
        ("/other", "Content-Length: 3\r\n\r\na", 404, Some("close")),
        (
            "/other",
            "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            404,
            Some("close"),
        ),
        ("/other", "Content-Length: 3\r\n\r\nabc", 404, None),
        (
            "/other",
            "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            404,
            None,
        ),
        ("/other", "\r\n", 404, None),
    ];
    for (path, rest, code, connection) in table {
        let mut client = mesh.connect();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\n{rest}").as_bytes());
        let head = client.read_head();
        assert_eq!(
            (status(&head), field(&head, "connection")),
            (code, connection),
            "{path} {rest:?}"
        );
        if connection.is_none() {
            let length = field(&head, "content-length").and_then(|length| length.parse().ok());
            client.read_exact(length.expect("a body of known length"));
            client.send(b"GET /app HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(status(&client.read_head()), 401);
        }
    }
}

#[test]
fn a_body_that_ends_too_early_is_a_bad_request() {
    for body in [
        "Content-Length: 5\r\n\r\nab",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    ] {
        let mesh = Mesh::start(|upstream, _| {
            upstream.read_to_end_or_reset();
            Then::Close
        });
        let mut client = mesh.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{body}").as_bytes());
        client.finish();
        assert_eq!(status(&client.read_to_end()), 400, "{body:?}");
    }
}

#[test]
fn https_is_not_fetched_in_plain_text() {
    let mesh = Mesh::start(|upstream, _| {
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        Then::Keep
    });
    for (target, code) in [("https://app/", 400), ("http://app/", 200)] {
        let mut client = mesh.connect_outbound();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: app\r\n\r\n").as_bytes());
        assert_eq!(status(&client.read_head()), code, "{target}");
    }
    assert_eq!(mesh.heads().len(), 1);
}

#[test]
fn a_refused_expectation_leaves_no_half_request_behind() {
    let mesh = Mesh::start(|upstream, _| {
        upstream.send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno");
        Then::Close
    });
    let mut client = mesh.connect();
    client
        .send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 39\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(status(&client.read_head()), 417);
    assert_eq!(client.read_exact(2), "no");
    // Were the connection kept without draining, this body would be taken for a request.
    client.send(b"GET /smuggled HTTP/1.1\r\nHost: abcdefg\r\n\r\n");
    let rest = client.read_to_end();
    assert!(!rest.contains("HTTP/1.1 200"), "{rest:?}");
    assert!(!mesh.heads().concat().contains("smuggled"));
}

#[test]
fn a_client_that_has_finished_sending_still_gets_its_answer() {
    let mesh = plain();
    let mut client = mesh.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.finish();
    let answer = client.read_to_end();
    assert!(answer.ends_with("\r\n\r\nok"), "{answer:?}");
}

#[test]
fn an_answer_before_the_end_of_the_request_reaches_the_client() {
    let mesh = Mesh::start(|upstream, _| {
        upstream.send(
            b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig",
        );
        upstream.finish();
        upstream.read_to_end();
        Then::Close
    });
    let mut client = mesh.connect();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nsome of it");
    assert_eq!(status(&client.read_head()), 413);
    assert_eq!(client.read_exact(3), "big");
}
