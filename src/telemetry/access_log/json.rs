//! JSON values, appended to a buffer.

/// A string of any bytes; what is not UTF-8 shows as U+FFFD.
pub fn push_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    if bytes.is_ascii() {
        push_escaped(out, bytes);
    } else {
        for chunk in bytes.utf8_chunks() {
            push_escaped(out, chunk.valid().as_bytes());
            if !chunk.invalid().is_empty() {
                out.extend_from_slice(b"\\ufffd");
            }
        }
    }
    out.push(b'"');
}

fn push_escaped(out: &mut Vec<u8>, text: &[u8]) {
    let mut plain_from = 0;
    for (at, byte) in text.iter().enumerate() {
        if PLAIN[usize::from(*byte)] {
            continue;
        }
        out.extend_from_slice(&text[plain_from..at]);
        plain_from = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
                let hex = [digit(byte >> 4), digit(byte & 0xf)];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&hex);
            }
        }
    }
    out.extend_from_slice(&text[plain_from..]);
}

/// Bytes that stand for themselves in a string.
static PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut byte = 0;
    while byte < 0x20 {
        plain[byte] = false;
        byte += 1;
    }
    plain[0x7f] = false;
    plain[b'"' as usize] = false;
    plain[b'\\' as usize] = false;
    plain
};

pub fn push_integer(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Milliseconds with three places: `12.034`.
pub fn push_millis(out: &mut Vec<u8>, duration: std::time::Duration) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    push_integer(out, micros / 1000);
    out.push(b'.');
    push_three_digits(out, (micros % 1000) as u32);
}

pub fn push_three_digits(out: &mut Vec<u8>, value: u32) {
    let digit = |value: u32| b'0' + (value % 10) as u8;
    out.extend_from_slice(&[digit(value / 100), digit(value / 10), digit(value)]);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn string(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        push_string(&mut out, bytes);
        String::from_utf8(out).expect("the writer writes UTF-8")
    }

    #[test]
    fn what_json_reserves_is_escaped() {
        assert_eq!(
            string(b"a\"b\\c\n\t\r\x01\x7f/"),
            r#""a\"b\\c\n\t\r\u0001\u007f/""#
        );
        assert_eq!(
            string("gr\u{fc}n \u{1f6b2}".as_bytes()),
            "\"gr\u{fc}n \u{1f6b2}\""
        );
        assert_eq!(string(b"a\xff\xc3"), r#""a\ufffd\ufffd""#);
    }

    #[test]
    fn milliseconds_have_three_places() {
        let mut out = Vec::new();
        push_millis(&mut out, Duration::from_micros(12_034));
        assert_eq!(out, b"12.034");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_read_back_as_their_lossy_text(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let read: String = serde_json::from_str(&string(&bytes)).expect("valid JSON");
            proptest::prop_assert_eq!(read, String::from_utf8_lossy(&bytes));
        }
    }
}
