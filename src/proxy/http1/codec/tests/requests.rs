use super::*;
use crate::proxy::http::head::{Known, Scheme, TargetForm, Version};

#[test]
fn an_ordinary_request_is_read_as_it_is() {
    let bytes = b"POST /a%20b?c=d HTTP/1.1\r\nHost: Shop\r\nX-lower-UPPER: v1 , v2\r\nX-Empty: \r\ncontent-length: 3\r\n\r\nabcGET";
    let (head, consumed) = request(bytes).expect("it is ordinary");
    assert_eq!(&bytes[consumed..], b"abcGET");
    assert_eq!(head.method, Method::Post);
    assert_eq!(head.version, Version::Http11);
    assert_eq!(text(head.path_and_query()), "/a%20b?c=d");
    assert_eq!(text(head.authority()), "Shop");
    assert_eq!(
        list(&head.fields),
        [
            ("Host", "Shop"),
            ("X-lower-UPPER", "v1 , v2"),
            ("X-Empty", ""),
            ("content-length", "3"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    assert_eq!(request_framing(&head), Ok(Framing::Length(3)));
}

#[test]
fn heads_are_accepted() {
    for bytes in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: \t a \t \r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.9\r\nHost: a\r\n\r\n",
        "get /\u{fc} HTTP/1.1\r\nHost: a\r\n\r\n",
        "M-SEARCH! / HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        "CONNECT a:443 HTTP/1.0\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:  chunked \r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \u{fc}\t\"\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nx!#$%&'*+-.^_`|~9: v\r\n\r\n",
    ] {
        let read = request(bytes.as_bytes());
        assert!(
            matches!(read, Ok((_, consumed)) if consumed == bytes.len()),
            "{bytes:?}: {read:?}"
        );
    }
}

#[test]
fn heads_are_refused_with_their_status() {
    let table: &[(u16, &str)] = &[
        // The request line.
        (400, "GET /\r\n\r\n"),
        (400, "GET\r\n\r\n"),
        (400, " GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /\tHTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n"),
        (400, "GET / http/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.10\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/11\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
        (505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        (505, "GET / HTTP/9.1\r\nHost: a\r\n\r\n"),
        (400, "G(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /a\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /a\x7f HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET a:443 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "\x16\x03\x01\x02\0\x01\0"),
        // Host.
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n"),
        (400, "GET http://a/ HTTP/1.1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a#b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: http://a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\x01\r\n\r\n"),
        (400, "GET http://a/ HTTP/1.1\r\nHost: u@b\r\n\r\n"),
        // Fields.
        (400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb: c\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\n: v\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX Y: v\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX\0: v\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX\u{fc}: v\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX(: v\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\x0bb\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\x7f\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"),
        (400, "GET / HTTP/1.1\nHost: a\n\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\n\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\n\rX"),
        // Framing.
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3 3\r\n\r\n",
        ),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n"),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n",
        ),
    ];
    for (status, bytes) in table {
        let read = request(bytes.as_bytes());
        assert_eq!(
            read.as_ref().err().map(|refusal| refusal.status),
            Some(*status),
            "{bytes:?}: {read:?}"
        );
    }
}

#[test]
fn what_is_wrong_is_said_as_soon_as_it_has_come() {
    for bytes in [
        "GE(",
        "GET / HTTQ",
        "GET / HTTP/2.0\r\n",
        "GET /a#b HTTP/1.1\r\n",
        "GET / HTTP/1.1\nH",
        "GET / HTTP/1.1\r\n x",
        "GET / HTTP/1.1\r\nHost: a\n",
    ] {
        assert!(request(bytes.as_bytes()).is_err(), "{bytes:?}");
    }
}

#[test]
fn an_absolute_target_wins_over_host() {
    let (head, _) =
        request(b"GET HTTP://Shop:80/a HTTP/1.1\r\nA: 1\r\nhost: other\r\n\r\n").expect("fine");
    assert_eq!(head.target_form(), TargetForm::Absolute);
    assert_eq!(head.scheme(), Some(Scheme::Http));
    assert_eq!(text(head.authority()), "Shop:80");
    assert_eq!(head.fields.get(Known::Host), Some(&b"Shop:80"[..]));
    let (head, _) = request(b"GET http://shop/ HTTP/1.0\r\n\r\n").expect("fine");
    assert_eq!(head.fields.get(Known::Host), Some(&b"shop"[..]));
}

#[test]
fn names_with_underscores_that_imitate_trusted_ones_are_dropped() {
    let (head, _) = request(b"GET / HTTP/1.1\r\nHost: a\r\nx_forwarded_for: 6.6.6.6\r\nContent_Length: 5\r\nmy_own: kept\r\n\r\n").expect("fine");
    let names: Vec<_> = list(&head.fields)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["Host", "my_own"]);
}

#[test]
fn what_is_too_large_is_refused_before_and_after_its_end_has_come() {
    let limits = Limits {
        head_bytes_max: 200,
        target_bytes_max: 50,
        fields_max: 3,
        ..Limits::DEFAULT
    };
    let target = |length: usize, end: &str| {
        format!(
            "GET /{} HTTP/1.1\r\nHost: a\r\n\r\n{end}",
            "a".repeat(length - 1)
        )
    };
    let value = |length: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "a".repeat(length)
        )
    };
    let status = |bytes: &str| {
        request_within(bytes.as_bytes(), &limits)
            .err()
            .map(|refusal| refusal.status)
    };
    assert_eq!(status(&target(50, "")), None);
    assert_eq!(status(&target(51, "")), Some(414));
    assert_eq!(status(&format!("GET /{}", "a".repeat(150))), Some(414));
    assert_eq!(status(&value(50)), None);
    assert_eq!(status(&value(200)), Some(431));
    assert_eq!(status(&value(200)[..200]), Some(431));
    assert_eq!(
        status("GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 1\r\n\r\n"),
        None
    );
    assert_eq!(
        status("GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 1\r\nC: 1\r\n\r\n"),
        Some(431)
    );
    assert_eq!(
        status(&format!("{} / HTTP/1.1\r\n", "A".repeat(65))),
        Some(501)
    );
}

#[test]
fn a_long_head_that_comes_byte_by_byte_is_read_when_its_end_has_come() {
    let bytes = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "a".repeat(6000)
    );
    for length in [4000, 5000, bytes.len() - 1] {
        assert_eq!(
            request(&bytes.as_bytes()[..length]).map(|(_, consumed)| consumed),
            Ok(0)
        );
    }
    assert_eq!(
        request(bytes.as_bytes()).map(|(_, consumed)| consumed),
        Ok(bytes.len())
    );
}
