use super::*;

#[test]
fn framings_follow_status_method_and_fields() {
    let table: &[(&str, &str, Framing)] = &[
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            Framing::Length(5),
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            Framing::Length(0),
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            Framing::Chunked,
        ),
        ("GET", "HTTP/1.1 200 OK\r\n\r\n", Framing::UntilClose),
        ("GET", "HTTP/1.0 200 OK\r\n\r\n", Framing::UntilClose),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            Framing::None,
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            Framing::None,
        ),
        ("HEAD", "HTTP/1.1 200 OK\r\n\r\n", Framing::None),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            Framing::None,
        ),
        (
            "GET",
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
            Framing::None,
        ),
        ("GET", "HTTP/1.1 100 Continue\r\n\r\n", Framing::None),
        (
            "GET",
            "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n",
            Framing::None,
        ),
        (
            "GET",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            Framing::None,
        ),
        (
            "CONNECT",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            Framing::None,
        ),
        (
            "CONNECT",
            "HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\n",
            Framing::Length(5),
        ),
    ];
    for (method, bytes, framing) in table {
        let read = response(bytes.as_bytes(), method).map(|(_, framing)| framing);
        assert_eq!(read, Ok(*framing), "{method} {bytes:?}");
    }
}

#[test]
fn status_lines_are_read_as_they_are() {
    for (bytes, status, reason) in [
        ("HTTP/1.1 200 OK\r\n\r\n", 200, "OK"),
        ("HTTP/1.1 200 \r\n\r\n", 200, "OK"),
        ("HTTP/1.1 200\r\n\r\n", 200, "OK"),
        (
            "HTTP/1.1 599 What ever\u{fc}\r\n\r\n",
            599,
            "What ever\\xc3\\xbc",
        ),
        ("HTTP/1.7 100 Continue\r\n\r\n", 100, "Continue"),
    ] {
        let (head, _) =
            response(bytes.as_bytes(), "GET").unwrap_or_else(|error| panic!("{bytes:?}: {error}"));
        assert_eq!(
            (head.status, text(head.reason()).as_str()),
            (status, reason)
        );
    }
}

#[test]
fn answers_of_a_bad_upstream_are_refused() {
    for bytes in [
        "HTTP/1.1 99 X\r\n\r\n",
        "HTTP/1.1 099 X\r\n\r\n",
        "HTTP/1.1 600 X\r\n\r\n",
        "HTTP/1.1 2000 X\r\n\r\n",
        "HTTP/1.1 20 X\r\n\r\n",
        "HTTP/1.1 2x0 X\r\n\r\n",
        "HTTP/1.1  200 X\r\n\r\n",
        "HTTP/1.1 +20 X\r\n\r\n",
        "HTTP/1.1 200\tX\r\n\r\n",
        "HTTP/1.1 200 X\0\r\n\r\n",
        "HTTP/1.1 200 X\n\r\n",
        "HTTP/1.1 200 X\rY\r\n\r\n",
        "HTTP/2 200 X\r\n\r\n",
        "HTTP/2.0 200 X\r\n\r\n",
        "http/1.1 200 X\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "garbage",
        "<html>not http at all</html>",
        "HTTP/1.1 200 X\r\nA : b\r\n\r\n",
        "HTTP/1.1 200 X\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 X\r\nA: b\0\r\n\r\n",
        "HTTP/1.1 200 X\r\nA: b\n\r\n",
        "HTTP/1.1 200 X\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 X\r\nContent-Length: 5, 5\r\n\r\n",
        "HTTP/1.1 200 X\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 X\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.0 200 X\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 304 X\r\nContent-Length: x\r\n\r\n",
    ] {
        let read = response(bytes.as_bytes(), "GET");
        assert!(
            matches!(read, Err(error) if error.reason != "partial"),
            "{bytes:?}: {read:?}"
        );
    }
}

#[test]
fn a_response_that_is_too_large_is_refused() {
    let limits = Limits {
        head_bytes_max: 100,
        ..Limits::DEFAULT
    };
    let mut head = ResponseHead::default();
    let bytes = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(100));
    assert!(parse_response(bytes.as_bytes(), &limits, &mut head).is_err());
    assert!(parse_response(&bytes.as_bytes()[..100], &limits, &mut head).is_err());
    assert_eq!(
        parse_response(&bytes.as_bytes()[..99], &limits, &mut head),
        Ok(Parsed::Partial)
    );
}
