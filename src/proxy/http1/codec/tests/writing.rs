use super::*;
use crate::proxy::http::head::Known;

fn forwarded(bytes: &str, framing: Framing) -> String {
    let (mut head, _) = request(bytes.as_bytes()).expect("the tables are well-formed");
    strip_hop_by_hop(&mut head.fields).expect("nothing protected is named");
    let mut out = Vec::new();
    encode_request(&head, &framing, &mut out);
    text(&out).replace("\\r\\n", "|")
}

fn answered(bytes: &str, framing: Framing, persistence: Persistence) -> String {
    let (mut head, _) = response(bytes.as_bytes(), "HEAD").expect("the tables are well-formed");
    strip_hop_by_hop(&mut head.fields).expect("nothing protected is named");
    let mut out = Vec::new();
    encode_response(&head, &framing, persistence, &mut out);
    text(&out).replace("\\r\\n", "|")
}

#[test]
fn a_plain_request_is_forwarded_byte_for_byte() {
    let bytes = "GET /a?b HTTP/1.1\r\nhOST: a\r\nX-A:  1 \r\nx-a: 2\r\n\r\n";
    assert_eq!(
        forwarded(bytes, Framing::None),
        "GET /a?b HTTP/1.1|hOST: a|X-A: 1|x-a: 2||"
    );
}

#[test]
fn framing_fields_are_written_by_the_framing() {
    let bytes = "POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 5\r\nA: 1\r\n\r\n";
    let table = [
        (
            Framing::Length(5),
            "POST / HTTP/1.1|Host: a|content-length: 5|A: 1||",
        ),
        (
            Framing::Length(6),
            "POST / HTTP/1.1|Host: a|A: 1|Content-Length: 6||",
        ),
        (
            Framing::Chunked,
            "POST / HTTP/1.1|Host: a|A: 1|Transfer-Encoding: chunked||",
        ),
        (Framing::None, "POST / HTTP/1.1|Host: a|A: 1||"),
    ];
    for (framing, written) in table {
        assert_eq!(forwarded(bytes, framing), written);
    }
    let odd = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 005\r\n\r\n";
    assert_eq!(
        forwarded(odd, Framing::Length(5)),
        "POST / HTTP/1.1|Host: a|Content-Length: 5||"
    );
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nA: 1\r\n\r\n";
    assert_eq!(
        forwarded(chunked, Framing::Chunked),
        "POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked|A: 1||"
    );
}

#[test]
fn host_always_says_the_authority() {
    assert_eq!(
        forwarded(
            "GET http://b/a HTTP/1.1\r\nA: 1\r\nHost: a\r\n\r\n",
            Framing::None
        ),
        "GET /a HTTP/1.1|A: 1|Host: b||"
    );
    assert_eq!(
        forwarded("GET /a HTTP/1.0\r\n\r\n", Framing::None),
        "GET /a HTTP/1.1|Host: ||"
    );
    assert_eq!(
        forwarded(
            "OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n",
            Framing::None
        ),
        "OPTIONS * HTTP/1.1|Host: b||"
    );
    let (mut head, _) = request(b"GET / HTTP/1.1\r\nA: 1\r\nHost: a\r\n\r\n").expect("fine");
    head.set_authority(b"c");
    let mut out = Vec::new();
    encode_request(&head, &Framing::None, &mut out);
    assert_eq!(
        text(&out),
        "GET / HTTP/1.1\\r\\nHost: c\\r\\nA: 1\\r\\n\\r\\n"
    );
}

#[test]
fn connection_says_only_what_holds_for_the_next_hop() {
    let bytes = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, TE, X-Drop\r\nTE: trailers\r\nX-Drop: 1\r\n\r\n";
    assert_eq!(
        forwarded(bytes, Framing::None),
        "GET / HTTP/1.1|Connection: TE|Host: a|TE: trailers||"
    );
    let (mut head, _) =
        request(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .expect("fine");
    let hop = strip_hop_by_hop(&mut head.fields).expect("fine");
    head.fields.push_known(
        Known::Upgrade,
        b"Upgrade",
        hop.upgrade.as_deref().unwrap_or_default(),
    );
    let mut out = Vec::new();
    encode_request(&head, &Framing::None, &mut out);
    assert_eq!(
        text(&out),
        "GET / HTTP/1.1\\r\\nConnection: Upgrade\\r\\nHost: a\\r\\nUpgrade: websocket\\r\\n\\r\\n"
    );
}

#[test]
fn responses_say_whether_the_connection_stays() {
    let bytes = "HTTP/1.0 200 Fine\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\nA: 1\r\n\r\n";
    let length = Framing::Length(2);
    let table = [
        (
            length,
            Persistence::KeepAlive,
            "HTTP/1.1 200 Fine|Content-Length: 2|A: 1||",
        ),
        (
            length,
            Persistence::Close,
            "HTTP/1.1 200 Fine|Connection: close|Content-Length: 2|A: 1||",
        ),
        (
            length,
            Persistence::KeepAliveExplicit,
            "HTTP/1.1 200 Fine|Connection: keep-alive|Content-Length: 2|A: 1||",
        ),
        (
            Framing::UntilClose,
            Persistence::KeepAlive,
            "HTTP/1.1 200 Fine|Connection: close|A: 1||",
        ),
        (
            Framing::Chunked,
            Persistence::KeepAlive,
            "HTTP/1.1 200 Fine|A: 1|Transfer-Encoding: chunked||",
        ),
        (
            Framing::None,
            Persistence::KeepAlive,
            "HTTP/1.1 200 Fine|Content-Length: 2|A: 1||",
        ),
    ];
    for (framing, persistence, written) in table {
        assert_eq!(answered(bytes, framing, persistence), written);
    }
}

#[test]
fn answers_without_a_body_by_definition_have_no_framing_fields() {
    for (bytes, written) in [
        (
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 204 No Content||",
        ),
        (
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\nContent-Length: 4\r\n\r\n",
            "HTTP/1.1 103 Early Hints|Link: x||",
        ),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n",
            "HTTP/1.1 304 Not Modified|Content-Length: 4||",
        ),
    ] {
        assert_eq!(
            answered(bytes, Framing::None, Persistence::KeepAlive),
            written
        );
    }
    let interim = answered(
        "HTTP/1.1 100 Continue\r\n\r\n",
        Framing::None,
        Persistence::Close,
    );
    assert_eq!(interim, "HTTP/1.1 100 Continue||");
}

#[test]
fn chunks_and_trailers_are_read_back() {
    let mut trailers = Fields::new();
    trailers.push(b"X-Sum", b"1");
    let mut out = Vec::new();
    for length in [1, 15, 16, 255, 4096] {
        encode_chunk_head(length, &mut out);
        out.extend(std::iter::repeat_n(b'a', length));
        out.extend_from_slice(CHUNK_END);
    }
    encode_trailers(&trailers, &mut out);
    let (body, consumed, read) =
        super::bodies::read_body(Framing::Chunked, &Limits::DEFAULT, &[&out]).expect("fine");
    assert_eq!(
        (body.len(), consumed),
        (1 + 15 + 16 + 255 + 4096, out.len())
    );
    assert_eq!(read, [("X-Sum".to_owned(), "1".to_owned())]);
    assert!(out.starts_with(b"1\r\na\r\nf\r\n"));
}
