//! The abuse of HTTP/2 over real sockets: what a hostile client cannot make the proxy do, or hold.

use std::sync::mpsc;
use std::time::Duration;

use super::frames::*;
use super::harness::{Extra, HANG_GUARD, Mesh, Peer, Then, eventually, field};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// The streams that a client may have open.
const STREAMS_MAX: u32 = 256;
/// How much the proxy may grow under any attack.
const GROWTH_MAX: usize = 16 << 20;

/// Answers at once; what is below `/slow` never, and what is below `/silent` with a head and nothing more.
fn mesh() -> Mesh {
    mesh_with(&Extra::default())
}

fn mesh_with(extra: &Extra) -> Mesh {
    Mesh::start_with(extra, |upstream, head| {
        if head.contains(" /slow") || head.contains(" /silent") {
            if head.contains(" /silent") {
                upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            }
            upstream.read_to_end_or_reset();
            return Then::Close;
        }
        upstream.send(OK);
        Then::Keep
    })
}

/// The ids of a client's streams, in order.
fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2)
}

fn is_served(mesh: &Mesh) -> bool {
    let mut client = Http2::connect(mesh);
    client.send(&get(1, "/"));
    client.answer(1).status() == Some(200)
}

/// Sends what the function makes for each stream until the proxy takes no more, at most so many; returns how it ended.
fn attack(client: &mut Http2, streams_max: usize, frames: impl Fn(u32) -> Vec<u8>) -> Option<u32> {
    let all = streams().take(streams_max).collect::<Vec<_>>();
    for some in all.chunks(16) {
        if !client.send(&some.iter().flat_map(|id| frames(*id)).collect::<Vec<_>>()) {
            break;
        }
    }
    client.end()
}

#[test]
fn rapid_resets_end_the_connection_within_two_hundred() {
    for path in ["/", "/slow"] {
        let mesh = mesh();
        let mut client = Http2::connect(&mesh);
        let end = attack(&mut client, 200, |id| {
            [get(id, path), reset(id, CANCEL)].concat()
        });
        assert_eq!(end, Some(ENHANCE_YOUR_CALM), "{path}");
        assert!(is_served(&mesh), "{path}");
        eventually("no request is left", || {
            mesh.open_upstream_connections() <= 1
        });
    }
}

#[test]
fn resets_of_requests_that_have_reached_the_upstream_count_as_well() {
    let mesh = mesh();
    let mut client = Http2::connect(&mesh);
    let mut resets = 0;
    for id in streams() {
        client.send(&get(id, "/silent"));
        if client.answer(id).kind == GOAWAY {
            break;
        }
        client.send(&reset(id, CANCEL));
        resets += 1;
        assert!(resets <= 200, "more than 200 resets are suffered");
    }
    assert!(resets >= 100, "{resets} resets are too much already");
    assert!(is_served(&mesh));
}

#[test]
fn a_hundred_resets_are_forgiven() {
    let mesh = mesh();
    let mut client = Http2::connect(&mesh);
    for id in streams().take(90) {
        client.send(&get(id, "/slow"));
        assert!(client.is_heard());
        client.send(&reset(id, CANCEL));
    }
    client.send(&get(1_001, "/"));
    assert_eq!(client.answer(1_001).status(), Some(200));
}

#[test]
fn resets_of_streams_that_had_their_answer_are_not_premature() {
    let mesh = mesh();
    let mut client = Http2::connect(&mesh);
    for id in streams().take(300) {
        client.send(&request(id, 0, "GET", "/"));
        client.until(|frame| frame.stream == id && frame.flags & END_STREAM != 0);
        client.send(&reset(id, NO_ERROR));
    }
    assert!(client.is_heard());
}

#[test]
fn a_reset_ends_the_upstream_request_before_and_after_its_head() {
    let mesh = mesh();
    let mut client = Http2::connect(&mesh);
    for (id, path) in [(1, "/slow"), (3, "/silent")] {
        client.send(&get(id, path));
        if path == "/silent" {
            assert_eq!(client.answer(id).status(), Some(200));
        }
        eventually("the request arrives", || {
            mesh.heads().iter().any(|head| head.contains(path))
        });
        client.send(&reset(id, CANCEL));
        eventually("it is ended", || mesh.open_upstream_connections() == 0);
    }
}

#[test]
fn a_stream_above_the_limit_is_refused_until_another_has_ended() {
    let mesh = mesh();
    let mut client = Http2::connect(&mesh);
    let ids = streams().take(STREAMS_MAX as usize).collect::<Vec<_>>();
    let mut arrived = 0;
    // The upstream's queue of connections is short.
    for some in ids.chunks(32) {
        for id in some {
            client.send(&get(*id, "/slow"));
        }
        arrived += some.len();
        eventually("they are there", || mesh.heads().len() == arrived);
    }
    let above = 2 * STREAMS_MAX + 1;
    client.send(&get(above, "/slow"));
    assert_eq!(client.answer(above).code(), Some(REFUSED_STREAM));
    for more in (0..20).map(|index| above + 2 + 2 * index) {
        client.send(&reset(more - above - 2 + 1, CANCEL));
        eventually("its upstream request ends", || {
            mesh.open_upstream_connections() < ids.len()
        });
        client.send(&get(more, "/slow"));
        arrived += 1;
        eventually("another takes its place", || mesh.heads().len() == arrived);
        assert_eq!(mesh.open_upstream_connections(), ids.len());
    }
}

#[test]
fn resets_that_a_client_provokes_end_the_connection_within_two_hundred() {
    type Provoke = fn(u32) -> Vec<u8>;
    let table: &[(&str, Provoke)] = &[
        ("WINDOW_UPDATE of 0", |id| {
            [get(id, "/slow"), window_update(id, 0)].concat()
        }),
        ("WINDOW_UPDATE beyond the maximum", |id| {
            [get(id, "/slow"), window_update(id, 0x7fff_ffff)].concat()
        }),
        ("HEADERS after the end", |id| {
            [get(id, "/slow"), get(id, "/slow")].concat()
        }),
        ("trailers that do not end", |id| {
            let head = request(id, 0, "POST", "/slow");
            [head, headers(id, 0, &[("x", "y")])].concat()
        }),
        ("DATA after the end", |id| {
            [get(id, "/slow"), frame(DATA, 0, id, b"more")].concat()
        }),
        ("DATA beyond content-length", |id| {
            let mut fields = well_formed("POST", "/slow").to_vec();
            fields.push(("content-length", "1"));
            [headers(id, 0, &fields), frame(DATA, 0, id, b"more")].concat()
        }),
        ("PRIORITY that depends on itself", |id| {
            let mut priority = id.to_be_bytes().to_vec();
            priority.push(0);
            [get(id, "/slow"), frame(PRIORITY, 0, id, &priority)].concat()
        }),
        ("a malformed head", |id| {
            headers(id, END_STREAM, &[(":method", "GET")])
        }),
        ("a stream above the limit", |id| get(id, "/slow")),
    ];
    let mesh = mesh();
    for (what, provoke) in table {
        let mut client = Http2::connect(&mesh);
        let streams_max = if what.contains("limit") {
            STREAMS_MAX as usize + 200
        } else {
            200
        };
        let end = attack(&mut client, streams_max, provoke);
        assert!(
            matches!(end, Some(ENHANCE_YOUR_CALM | PROTOCOL_ERROR)),
            "{what}: {end:?}"
        );
        assert!(is_served(&mesh), "{what}");
        eventually("no request is left", || {
            mesh.open_upstream_connections() <= 1
        });
    }
}

#[test]
fn floods_end_the_connection_and_take_no_memory() {
    let priority = frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]);
    let all_padding = frame(DATA, PADDED, 1, &[&[255][..], &[0; 255]].concat());
    let head = well_formed("GET", "/");
    let table: &[(&str, Vec<u8>)] = &[
        ("SETTINGS", frame(SETTINGS, 0, 0, b"")),
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("answers to PING", frame(PING, ACK, 0, &[0; 8])),
        ("PRIORITY", priority),
        ("empty DATA", frame(DATA, 0, 1, b"")),
        ("DATA that is all padding", all_padding),
        ("WINDOW_UPDATE of the connection", window_update(0, 1)),
        ("WINDOW_UPDATE of a stream", window_update(1, 1)),
        ("unknown frames", frame(0xfe, 0, 1, &[0; 100])),
        ("RST_STREAM of a closed stream", reset(3, CANCEL)),
        (
            "CONTINUATION",
            frame(CONTINUATION, 0, 5, &block(&[("x", "y")])),
        ),
        ("empty CONTINUATION", frame(CONTINUATION, 0, 5, b"")),
    ];
    for (what, flood) in table {
        let mesh = mesh();
        assert!(is_served(&mesh));
        let before = mesh.memory();
        let mut client = Http2::connect(&mesh);
        client.send(&request(1, 0, "POST", "/slow"));
        client.send(&[get(3, "/"), reset(3, CANCEL)].concat());
        if what.contains("CONTINUATION") {
            client.send(&frame(HEADERS, END_STREAM, 5, &block(&head)));
        }
        let many = flood.repeat(100);
        let sent = (0..10_000).take_while(|_| client.send(&many)).count();
        let growth = mesh.memory().saturating_sub(before);
        assert!(sent < 10_000, "{what}: a million frames are suffered");
        assert!(growth <= GROWTH_MAX, "{what}: {growth} bytes more");
        let end = client.end();
        assert!(matches!(end, Some(ENHANCE_YOUR_CALM)), "{what}: {end:?}");
        assert!(is_served(&mesh), "{what}");
    }
}

#[test]
fn a_head_over_the_limit_is_refused_and_takes_no_memory() {
    let mesh = mesh();
    assert!(is_served(&mesh));
    let before = mesh.memory();
    let value = "v".repeat(1_000);
    let mut fields = well_formed("GET", "/").to_vec();
    fields.resize(4 + 24, ("x", &value));
    let block = block(&fields);
    let (first, rest) = block.split_at(16_000);
    let mut client = Http2::connect(&mesh);
    for id in streams().take(80) {
        client.send(&frame(HEADERS, END_STREAM, id, first));
        client.send(&frame(CONTINUATION, END_HEADERS, id, rest));
        let answer = client.answer(id);
        // 431 is not in the static table.
        assert_eq!((answer.stream, answer.status()), (id, None), "{answer:?}");
    }
    client.send(&get(1_001, "/"));
    assert_eq!(client.answer(1_001).status(), Some(200));
    let growth = mesh.memory().saturating_sub(before);
    assert!(growth <= GROWTH_MAX, "{growth} bytes more");
    assert_eq!(mesh.heads().len(), 2, "{:?}", mesh.heads());
}

#[test]
fn a_head_that_unpacks_to_megabytes_ends_the_connection() {
    let mesh = mesh();
    assert!(is_served(&mesh));
    let before = mesh.memory();
    let value = "v".repeat(3_900);
    let mut bomb = block(&well_formed("GET", "/"));
    // A literal that is indexed, and then a thousand references to it.
    bomb.extend([
        0x40,
        1,
        b'x',
        127,
        0x80 | ((3_900 - 127) % 128) as u8,
        ((3_900 - 127) / 128) as u8,
    ]);
    bomb.extend_from_slice(value.as_bytes());
    bomb.extend([0x80 | 62; 1_000]);
    let mut client = Http2::connect(&mesh);
    client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb));
    assert_eq!(client.end(), Some(ENHANCE_YOUR_CALM));
    let growth = mesh.memory().saturating_sub(before);
    assert!(growth <= GROWTH_MAX, "{growth} bytes more");
    assert!(is_served(&mesh));
}

#[test]
fn malformed_heads_are_refused_before_a_byte_goes_upstream() {
    let method = (":method", "GET");
    let scheme = (":scheme", "http");
    let authority = (":authority", "a");
    let path = (":path", "/");
    let with = |name, value| vec![method, scheme, authority, path, (name, value)];
    let to = |host| vec![method, scheme, (":authority", host), path];
    let at = |target| vec![method, scheme, authority, (":path", target)];
    let table = [
        vec![method, scheme, path, ("x", "y"), authority],
        vec![method, scheme, ("host", "a"), path],
        with(":unknown", "x"),
        with(":status", "200"),
        with(":path", "/again"),
        with(":method", "POST"),
        with("X-Upper", "x"),
        with("", "x"),
        with("x y", "z"),
        with("connection", "close"),
        with("connection", "x"),
        with("transfer-encoding", "chunked"),
        with("keep-alive", "timeout=5"),
        with("proxy-connection", "close"),
        with("upgrade", "websocket"),
        with("te", "gzip"),
        with("x", "a\rb"),
        with("x", "a\nb"),
        with("x", "a\r\nb: c"),
        with("x", "a\0b"),
        with("x", "a\x7fb"),
        with("content-length", "-1"),
        with("content-length", "1, 1"),
        with("content-length", "1"),
        vec![scheme, authority, path],
        vec![method, authority, path],
        vec![method, scheme, authority],
        vec![method, scheme, ("host", "a")],
        vec![method, scheme, path],
        vec![method, scheme, path, ("host", "a"), ("host", "b")],
        vec![method, scheme, path, ("host", "u@a")],
        at(""),
        at("x"),
        at("?x"),
        at("*"),
        at("/a b"),
        at("/\0"),
        at("/\r\nx: y"),
        at("http://b/"),
        to(""),
        to("u@a"),
        to("a/b"),
        to("a b"),
        to("a?b"),
        to("a#b"),
        to("a\\b"),
        to("a:b"),
        to("a\r\nb"),
        vec![("method", "GET"), scheme, authority, path],
        vec![(":method", "GET /x HTTP/1.1\r\n"), scheme, authority, path],
        vec![(":method", ""), scheme, authority, path],
        vec![(":method", "CONNECT"), scheme, authority, path],
        vec![
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            scheme,
            authority,
            path,
        ],
    ];
    let mesh = mesh();
    for fields in &table {
        let mut client = Http2::connect(&mesh);
        client.send(&headers(1, END_STREAM, fields));
        let answer = client.answer(1);
        assert!(
            answer.code() == Some(PROTOCOL_ERROR) || answer.status() == Some(400),
            "{fields:?}: {answer:?}"
        );
    }
    assert_eq!(mesh.upstream_connections(), 0, "{:?}", mesh.heads());
    assert!(is_served(&mesh));
}

/// Tells of each body how it came: whole, or cut with a reset.
fn judging() -> (Mesh, mpsc::Receiver<Result<String, String>>) {
    let (bodies, told) = mpsc::channel();
    let mesh = Mesh::start(move |upstream, head| {
        let _ = bodies.send(body(upstream, head));
        upstream.send(OK);
        Then::Keep
    });
    (mesh, told)
}

fn body(upstream: &mut Peer, head: &str) -> Result<String, String> {
    let length = field(head, "content-length").map(|length| length.parse().expect("a number"));
    loop {
        let read = upstream.unread();
        match length {
            Some(length) if read.len() >= length => return Ok(read),
            None if read.ends_with("0\r\n\r\n") => return Ok(read),
            _ => {}
        }
        if !upstream.reads_more() {
            return Err(read);
        }
    }
}

#[test]
fn a_body_that_disagrees_with_its_content_length_never_passes_as_whole() {
    let data = |flags, bytes: &[u8]| frame(DATA, flags, 1, bytes);
    let trailers = headers(1, END_STREAM, &[("x", "y")]);
    let table: &[(&str, &[Vec<u8>])] = &[
        ("10", &[data(END_STREAM, b"short")]),
        ("10", &[data(0, b"short"), data(END_STREAM, b"")]),
        ("10", &[data(0, b"short"), trailers]),
        ("10", &[data(0, b"short"), reset(1, CANCEL)]),
        ("10", &[data(0, b"short"), reset(1, NO_ERROR)]),
        ("", &[data(0, b"short"), reset(1, NO_ERROR)]),
        ("", &[data(0, b"short"), reset(1, CANCEL)]),
        ("4", &[data(END_STREAM, b"too long")]),
        ("4", &[data(0, b"four"), data(END_STREAM, b"more")]),
        ("1", &[data(0, b"1"), data(0, b"2")]),
        ("4", &[data(0, b"four"), reset(1, CANCEL)]),
    ];
    for (length, frames) in table {
        let (mesh, bodies) = judging();
        let mut client = Http2::connect(&mesh);
        let mut fields = well_formed("POST", "/").to_vec();
        if !length.is_empty() {
            fields.push(("content-length", length));
        }
        client.send(&headers(1, 0, &fields));
        eventually("its head goes on", || !mesh.heads().is_empty());
        for frame in *frames {
            client.send(frame);
            assert!(client.is_heard());
        }
        let body = bodies.recv_timeout(HANG_GUARD).expect("it ends");
        assert!(body.is_err(), "{length}: {frames:?} passes as {body:?}");
    }
}

#[test]
fn a_body_that_agrees_with_its_content_length_passes_however_it_is_cut_into_frames() {
    let data = |flags, bytes: &[u8]| frame(DATA, flags, 1, bytes);
    let trailers = headers(1, END_STREAM, &[("x", "y")]);
    let table: &[&[Vec<u8>]] = &[
        &[data(END_STREAM, b"four")],
        &[data(0, b"four"), data(END_STREAM, b"")],
        &[data(0, b"f"), data(0, b"our"), data(END_STREAM, b"")],
        &[data(0, b"fou"), data(0, b"r"), data(END_STREAM, b"")],
        &[data(0, b"four"), trailers],
        &[data(PADDED | END_STREAM, b"\x03four\0\0\0")],
    ];
    for frames in table {
        let (mesh, bodies) = judging();
        let mut client = Http2::connect(&mesh);
        let mut fields = well_formed("POST", "/").to_vec();
        fields.push(("content-length", "4"));
        client.send(&headers(1, 0, &fields));
        for frame in *frames {
            client.send(frame);
            assert!(client.is_heard());
        }
        let body = bodies.recv_timeout(HANG_GUARD).expect("it comes");
        assert_eq!(body.as_deref(), Ok("four"), "{frames:?}");
        assert_eq!(client.answer(1).status(), Some(200), "{frames:?}");
    }
}

#[test]
fn half_of_a_preface_or_of_a_head_is_closed_by_the_header_timeout() {
    let mesh = mesh();
    let mut client = Http2::connect_silently(&mesh);
    client.send(&PREFACE[..12]);
    assert_eq!(client.next(), None);
    let block = block(&well_formed("GET", "/"));
    let whole = frame(HEADERS, END_STREAM, 1, &block);
    for half in [&whole[..], &whole[..whole.len() - 1]] {
        let mut client = Http2::connect(&mesh);
        client.send(half);
        assert_eq!(client.end(), Some(NO_ERROR));
    }
    assert_eq!(mesh.upstream_connections(), 0);
}

#[test]
fn the_maximum_frame_size_is_what_is_advertised() {
    const MAX_FRAME_SIZE: u16 = 5;
    let mesh = mesh();
    let mut client = Http2::connect(&mesh);
    let settings = client.until(|frame| frame.kind == SETTINGS && frame.flags & ACK == 0);
    let sizes: Vec<_> = settings
        .payload
        .chunks(6)
        .filter(|setting| setting[..2] == MAX_FRAME_SIZE.to_be_bytes())
        .map(|setting| setting[2..].to_vec())
        .collect();
    assert!(
        sizes.is_empty() || sizes == [16_384_u32.to_be_bytes()],
        "{sizes:?}"
    );
    client.send(&request(1, 0, "POST", "/slow"));
    client.send(&frame(DATA, 0, 1, &[0; 16_384]));
    assert!(client.is_heard());
    client.send(&frame(DATA, 0, 1, &[0; 16_385]));
    assert_eq!(client.end(), Some(FRAME_SIZE_ERROR));
}

/// A proxy that says goodbye to a client after a second without a request.
fn impatient() -> Mesh {
    mesh_with(&Extra {
        limits: ", idle_timeout: 1s",
        ..Extra::default()
    })
}

#[test]
fn a_client_that_answers_no_goodbye_cannot_hold_its_connection() {
    let mesh = impatient();
    let mut client = Http2::connect(&mesh);
    client.send(&get(1, "/"));
    assert_eq!(client.answer(1).status(), Some(200));
    assert_eq!(client.end(), Some(NO_ERROR));
}

#[test]
fn a_client_that_goes_on_after_the_goodbye_cannot_hold_its_connection() {
    let mesh = impatient();
    let mut client = Http2::connect(&mesh);
    client.until(|frame| frame.kind == GOAWAY);
    // As if it had never come; without credit for long, since it answers nothing else either.
    client.send(&window_update(0, 0x7fff_0000));
    let mut served = 0;
    for id in streams() {
        let ends = |frame: &Frame| {
            frame.stream == id && (frame.kind == RST_STREAM || frame.flags & END_STREAM != 0)
        };
        if !client.send(&get(id, "/")) || !client.skip_to(ends) {
            break;
        }
        served += 1;
        assert!(served < 200_000, "it is served for ever");
    }
}

#[test]
fn a_flood_after_the_goodbye_ends_the_connection() {
    let mesh = impatient();
    let mut client = Http2::connect(&mesh);
    client.until(|frame| frame.kind == GOAWAY);
    let many = frame(PING, 0, 0, &[0; 8]).repeat(100);
    let sent = (0..10_000).take_while(|_| client.send(&many)).count();
    assert!(sent < 10_000, "a million frames are suffered");
    assert!(is_served(&mesh));
}

#[test]
fn a_silent_client_does_not_hold_up_the_end_of_the_process() {
    let mut mesh = mesh();
    let mut client = Http2::connect(&mesh);
    client.send(&get(1, "/"));
    assert_eq!(client.answer(1).status(), Some(200));
    let took = mesh.terminate();
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(client.end(), Some(NO_ERROR));
}
