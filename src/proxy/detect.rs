//! What a connection speaks, from the first bytes its client sends.

/// The least that tells TLS from everything else.
const TLS_HANDSHAKE: u8 = 0x16;
const TLS_MAJOR: u8 = 0x03;
/// The longest method looked for (RFC 9110 and WebDAV have none longer than `UPDATEREDIRECTREF`).
const METHOD_MAX: usize = 24;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detected {
    Http1,
    /// With prior knowledge (RFC 9113, section 3.3).
    Http2,
    Tls,
    Opaque,
    /// More bytes are needed.
    Undecided,
}

/// Decides by the bytes seen so far. More bytes never change a decision.
pub fn detect(bytes: &[u8]) -> Detected {
    const PREFACE: &[u8] = super::http2::budgets::PREFACE;
    match bytes {
        [] => Detected::Undecided,
        [TLS_HANDSHAKE] => Detected::Undecided,
        [TLS_HANDSHAKE, TLS_MAJOR, ..] => Detected::Tls,
        _ if bytes.len() < PREFACE.len() && PREFACE.starts_with(bytes) => Detected::Undecided,
        _ if bytes.starts_with(PREFACE) => Detected::Http2,
        _ => detect_http1(bytes),
    }
}

/// A method, a space and the beginning of a target; empty lines before it are tolerated (RFC 9112, section 2.2).
fn detect_http1(bytes: &[u8]) -> Detected {
    let start = bytes
        .iter()
        .position(|byte| !matches!(byte, b'\r' | b'\n'))
        .unwrap_or(bytes.len());
    let line = &bytes[start..];
    let method = line
        .iter()
        .take(METHOD_MAX)
        .take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-')
        .count();
    match line.get(method) {
        None if start <= 4 && line.len() < METHOD_MAX => Detected::Undecided,
        Some(b' ') if method > 0 => match line.get(method + 1) {
            None => Detected::Undecided,
            Some(byte) if byte.is_ascii_graphic() => Detected::Http1,
            Some(_) => Detected::Opaque,
        },
        _ => Detected::Opaque,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_decide() {
        let table: &[(&[u8], Detected)] = &[
            (b"", Detected::Undecided),
            (b"\x16", Detected::Undecided),
            (b"\x16\x03\x01", Detected::Tls),
            (b"PRI * HTTP/2.0\r\n\r\nS", Detected::Undecided),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Detected::Http2),
            (b"GE", Detected::Undecided),
            (b"GET ", Detected::Undecided),
            (b"GET /", Detected::Http1),
            (b"\r\nGET /", Detected::Http1),
            (b"OPTIONS *", Detected::Http1),
            (b"CONNECT a:1", Detected::Http1),
            (b"M-SEARCH *", Detected::Http1),
            (b"get /", Detected::Opaque),
            (b"\x00\x00", Detected::Opaque),
            (b"HELO\r\n", Detected::Opaque),
            (b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", Detected::Opaque),
        ];
        for (bytes, expected) in table {
            assert_eq!(
                detect(bytes),
                *expected,
                "{:?}",
                bytes.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn more_bytes_never_change_a_decision() {
        for whole in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxx",
            b"\x16\x03\x01\x00",
            b"SSH-2.0-x",
        ] {
            let mut decided = Detected::Undecided;
            for length in 0..=whole.len() {
                let now = detect(&whole[..length]);
                if decided != Detected::Undecided {
                    assert_eq!(
                        now,
                        decided,
                        "{:?}",
                        whole[..length].escape_ascii().to_string()
                    );
                }
                decided = now;
            }
        }
    }
}
