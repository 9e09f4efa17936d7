use super::*;

/// The whole body, how much of the input it took, and its trailers.
pub(super) fn read_body(
    framing: Framing,
    limits: &Limits,
    pieces: &[&[u8]],
) -> Result<(Vec<u8>, usize, Lines), BodyError> {
    let mut decoder = BodyDecoder::with_limits(framing, limits);
    let mut body = Vec::new();
    let mut consumed = 0;
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() && !decoder.is_end() {
            let found = decoder.decode(rest)?;
            assert!(found.consumed > 0, "a call with input makes progress");
            assert!(found.data.end <= found.consumed);
            assert_eq!(found.end, decoder.is_end());
            body.extend_from_slice(&rest[found.data]);
            rest = &rest[found.consumed..];
            consumed += found.consumed;
        }
    }
    decoder.eof()?;
    Ok((
        body,
        consumed,
        decoder.trailers().map(list).unwrap_or_default(),
    ))
}

fn chunked(bytes: &str) -> Result<(String, usize, Lines), BodyError> {
    read_body(Framing::Chunked, &Limits::DEFAULT, &[bytes.as_bytes()])
        .map(|(body, consumed, trailers)| (text(&body), consumed, trailers))
}

#[test]
fn a_length_takes_its_bytes_and_no_more() {
    let read = read_body(Framing::Length(5), &Limits::DEFAULT, &[b"he", b"lloGET"]);
    assert_eq!(read, Ok((b"hello".to_vec(), 5, vec![])));
    for framing in [Framing::None, Framing::Length(0)] {
        assert_eq!(
            read_body(framing, &Limits::DEFAULT, &[b"GET"]),
            Ok((vec![], 0, vec![]))
        );
    }
}

#[test]
fn a_big_length_gives_the_whole_input_without_a_copy() {
    let mut decoder = BodyDecoder::new(Framing::Length(u64::MAX >> 1));
    let piece = decoder.decode(&[b'a'; 1000]).expect("it is a body");
    assert_eq!(
        piece,
        Piece {
            consumed: 1000,
            data: 0..1000,
            end: false
        }
    );
    assert_eq!(decoder.remaining(), Some((u64::MAX >> 1) - 1000));
}

#[test]
fn chunks_are_joined_and_trailers_kept() {
    let table = [
        ("0\r\n\r\n", "", vec![]),
        ("5\r\nhello\r\n0\r\n\r\n", "hello", vec![]),
        ("00005\r\nhello\r\n000\r\n\r\n", "hello", vec![]),
        (
            "a\r\n0123456789\r\n1\r\nX\r\n0\r\n\r\n",
            "0123456789X",
            vec![],
        ),
        (
            "A;x=y;z=\"\t1\"\r\n0123456789\r\n0;last\r\n\r\n",
            "0123456789",
            vec![],
        ),
        ("5 ; x\r\nhello\r\n0\r\n\r\n", "hello", vec![]),
        ("2\r\n\r\n\r\n0\r\n\r\n", "\\r\\n", vec![]),
        (
            "0\r\nX-Sum: 1\r\nx-b:2\r\n\r\n",
            "",
            vec![("X-Sum", "1"), ("x-b", "2")],
        ),
    ];
    for (bytes, body, trailers) in table {
        let with_next = format!("{bytes}GET / HTTP/1.1\r\n");
        let trailers = trailers
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        assert_eq!(
            chunked(&with_next),
            Ok((body.to_owned(), bytes.len(), trailers)),
            "{bytes:?}"
        );
    }
}

#[test]
fn chunks_that_two_readers_could_take_apart_differently_are_refused() {
    for bytes in [
        "\r\n",
        "x\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-1\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello",
        "5\r\rhello",
        "5;x\nhello\r\n0\r\n\r\n",
        "5;\x00\r\n",
        "5;\x7f\r\n",
        "5;a\rb\r\n",
        ";x\r\n",
        "5\r\nhellohello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhel\r\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "0\r\n\n",
        "0\r\n\rX",
        "0\r\nA : b\r\n\r\n",
        "0\r\nA: b\0\r\n\r\n",
        "0\r\n folded\r\n\r\n",
        "0\r\nA: b\n\r\n",
    ] {
        let read = chunked(bytes);
        assert!(
            matches!(read, Err(error) if !error.truncated),
            "{bytes:?}: {read:?}"
        );
    }
}

#[test]
fn a_size_beyond_63_bits_is_refused_at_its_digit() {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    assert!(decoder.decode(b"7fffffffffffffff").is_ok());
    assert!(decoder.decode(b"0").is_err());
    assert!(
        decoder.decode(b"\r\n").is_err(),
        "a failed decoder stays failed"
    );
    assert!(
        BodyDecoder::new(Framing::Chunked)
            .decode(b"8000000000000000")
            .is_err()
    );
}

#[test]
fn trailers_that_mean_nothing_good_are_dropped() {
    let read = chunked(
        "0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: b\r\nAuthorization: x\r\nCookie: x\r\nSet-Cookie: x\r\nX-Forwarded-For: x\r\nx_forwarded_for: x\r\nConnection: close\r\ngrpc-status: 0\r\n\r\n",
    );
    assert_eq!(
        read.map(|(_, _, trailers)| trailers),
        Ok(vec![("grpc-status".to_owned(), "0".to_owned())])
    );
}

#[test]
fn lines_extensions_and_trailers_are_bounded() {
    let limits = Limits {
        chunk_line_max: 10,
        chunk_extensions_max: 12,
        trailer_bytes_max: 20,
        fields_max: 2,
        ..Limits::DEFAULT
    };
    let read = |bytes: &str| read_body(Framing::Chunked, &limits, &[bytes.as_bytes()]).map(|_| ());
    assert!(read("1;123456\r\na\r\n0\r\n\r\n").is_ok());
    assert!(read("1;12345678\r\na\r\n0\r\n\r\n").is_err());
    assert!(read("00000000001\r\na\r\n0\r\n\r\n").is_err());
    assert!(
        read("1;123456\r\na\r\n1;1234567\r\na\r\n0\r\n\r\n").is_err(),
        "extensions add up"
    );
    assert!(read("0\r\nabc: 89012345\r\n\r\n").is_ok());
    assert!(read("0\r\nabc: 8901234567890\r\n\r\n").is_err());
    assert!(read("0\r\na:1\r\na:1\r\na:1\r\n\r\n").is_err());
}

#[test]
fn a_connection_that_ends_early_leaves_a_truncated_body() {
    for (framing, bytes) in [
        (Framing::Length(5), "hell"),
        (Framing::Chunked, ""),
        (Framing::Chunked, "5\r\nhel"),
        (Framing::Chunked, "5\r\nhello\r\n"),
        (Framing::Chunked, "5\r\nhello\r\n0\r\n"),
        (Framing::Chunked, "0\r\nA: b\r\n"),
    ] {
        let read = read_body(framing, &Limits::DEFAULT, &[bytes.as_bytes()]);
        assert!(
            matches!(read, Err(error) if error.truncated),
            "{bytes:?}: {read:?}"
        );
    }
    let read = read_body(Framing::UntilClose, &Limits::DEFAULT, &[b"all ", b"of it"]);
    assert_eq!(read, Ok((b"all of it".to_vec(), 9, vec![])));
}
