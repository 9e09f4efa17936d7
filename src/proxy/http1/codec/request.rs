//! Reading a request's head.

use super::fields::{FieldsError, read_fields};
use super::{Limits, Parsed, Refusal};
use crate::proxy::http::head::{
    Known, Method, RequestHead, TargetForm, Version, scan, valid_authority,
};

/// Longer methods are in no registry.
const METHOD_BYTES_MAX: usize = 64;

/// Empty lines before a request line that are passed over (RFC 9112, 2.2, asks for one).
const EMPTY_LINES_MAX: usize = 2;

/// Beyond this many bytes a head whose end is not in sight is not read again with each packet, so that a client who
/// sends a long head byte by byte costs little.
pub(super) const EAGER_BYTES_MAX: usize = 4096;

const VERSION_LINE_LEN: usize = b"HTTP/1.1\r\n".len();

/// Reads a request's head from the beginning of `buf`, clearing `head` first. After [`Parsed::Partial`] the head is of
/// no use.
pub fn parse_request(
    buf: &[u8],
    limits: &Limits,
    head: &mut RequestHead,
) -> Result<Parsed, Refusal> {
    head.clear();
    let start = empty_lines(buf)?;
    if buf.len() > EAGER_BYTES_MAX && memchr::memmem::find(buf, b"\r\n\r\n").is_none() {
        return unfinished(buf, start, limits);
    }
    let Some(line_end) = read_request_line(buf, start, limits, head)? else {
        return unfinished(buf, start, limits);
    };
    let Some(end) = read_fields(buf, line_end, limits.fields_max, &mut head.fields)? else {
        return unfinished(buf, start, limits);
    };
    if end > limits.head_bytes_max {
        return Err(HEAD_TOO_LARGE);
    }
    check_host(head)?;
    Ok(Parsed::Complete(end))
}

const HEAD_TOO_LARGE: Refusal = Refusal::new(431, "the request head is too large");
const TARGET_TOO_LONG: Refusal = Refusal::new(414, "the request target is too long");

fn unfinished(buf: &[u8], start: usize, limits: &Limits) -> Result<Parsed, Refusal> {
    let line_max = limits.target_bytes_max + METHOD_BYTES_MAX + VERSION_LINE_LEN;
    let line_max = line_max.min(limits.head_bytes_max.saturating_sub(start));
    let first = &buf[start..buf.len().min(start + line_max)];
    if first.len() == line_max && memchr::memchr(b'\n', first).is_none() {
        return Err(TARGET_TOO_LONG);
    }
    if buf.len() >= limits.head_bytes_max {
        return Err(HEAD_TOO_LARGE);
    }
    Ok(Parsed::Partial)
}

/// How many bytes of empty lines stand before the request line.
#[inline]
fn empty_lines(buf: &[u8]) -> Result<usize, Refusal> {
    let mut start = 0;
    while buf[start..].first() == Some(&b'\r') {
        if start == EMPTY_LINES_MAX * 2 {
            return Err(Refusal::bad_request("empty lines precede the request"));
        }
        match buf.get(start + 1) {
            Some(b'\n') => start += 2,
            Some(_) => return Err(Refusal::bad_request("a CR stands without its LF")),
            None => return Ok(start),
        }
    }
    Ok(start)
}

/// Reads the first line; where it ends, or None when more bytes are needed.
#[inline]
fn read_request_line(
    buf: &[u8],
    start: usize,
    limits: &Limits,
    head: &mut RequestHead,
) -> Result<Option<usize>, Refusal> {
    let Some(method_end) = read_method(&buf[start..])?.map(|length| start + length) else {
        return Ok(None);
    };
    let target_start = method_end + 1;
    let Some(target_end) = scan::target_end(buf, target_start) else {
        return Ok(None);
    };
    if target_end - target_start > limits.target_bytes_max {
        return Err(TARGET_TOO_LONG);
    }
    match buf[target_end] {
        b' ' => {}
        b'\r' | b'\n' => {
            return Err(Refusal::bad_request("the request line names no version"));
        }
        _ => {
            return Err(Refusal::bad_request(
                "the request target has a control character in it",
            ));
        }
    }
    let Some(version) = read_version(&buf[target_end + 1..])? else {
        return Ok(None);
    };
    head.version = version;
    head.method = Method::from_bytes(&buf[start..method_end]);
    head.set_target(&buf[target_start..target_end])
        .map_err(|error| Refusal::bad_request(error.reason()))?;
    Ok(Some(target_end + 1 + VERSION_LINE_LEN))
}

/// How long the method is, up to the space behind it.
#[inline]
fn read_method(line: &[u8]) -> Result<Option<usize>, Refusal> {
    let length = line.iter().position(|byte| !scan::is_token(*byte));
    if length.unwrap_or(line.len()) > METHOD_BYTES_MAX {
        return Err(Refusal::new(501, "the method is too long to be known"));
    }
    match length {
        None => Ok(None),
        Some(length) if length > 0 && line[length] == b' ' => Ok(Some(length)),
        // The CR of an empty line whose LF has not come.
        Some(0) if line == b"\r" => Ok(None),
        Some(_) => Err(Refusal::bad_request(
            "the first line does not begin with a method and a space",
        )),
    }
}

/// Reads `HTTP/1.1\r\n`.
#[inline]
fn read_version(line: &[u8]) -> Result<Option<Version>, Refusal> {
    if let Some(line) = line.first_chunk::<VERSION_LINE_LEN>() {
        match line {
            b"HTTP/1.1\r\n" => return Ok(Some(Version::Http11)),
            b"HTTP/1.0\r\n" => return Ok(Some(Version::Http10)),
            _ => {}
        }
    }
    read_other_version(line)
}

/// A version line that is incomplete, wrong, or of another minor version.
#[cold]
fn read_other_version(line: &[u8]) -> Result<Option<Version>, Refusal> {
    let line = &line[..line.len().min(VERSION_LINE_LEN)];
    let malformed = Refusal::bad_request("the request line does not end with a version");
    let fits = line
        .iter()
        .zip(b"HTTP/0.0\r\n")
        .all(|(found, wanted)| found == wanted || (*wanted == b'0' && found.is_ascii_digit()));
    if !fits {
        return Err(malformed);
    }
    let &[_, _, _, _, _, major, _, minor, _, _] = line else {
        return Ok(None);
    };
    match (major, minor) {
        (b'0', _) => Err(malformed),
        (b'1', b'0') => Ok(Some(Version::Http10)),
        (b'1', _) => Ok(Some(Version::Http11)),
        _ => Err(Refusal::new(
            505,
            "HTTP/1.0 and HTTP/1.1 are spoken here, and HTTP/2 with its preface",
        )),
    }
}

/// One Host at most, exactly one in HTTP/1.1, well-formed or empty; it is made to agree with a target that names the
/// authority itself.
#[inline]
fn check_host(head: &mut RequestHead) -> Result<(), Refusal> {
    match only_host(head)? {
        None if head.version == Version::Http10 => {}
        None => return Err(Refusal::bad_request("the Host field is missing")),
        Some(host) if host.is_empty() || valid_authority(host) => {}
        Some(_) => return Err(Refusal::bad_request("the Host field is malformed")),
    }
    if matches!(
        head.target_form(),
        TargetForm::Absolute | TargetForm::Authority
    ) {
        head.set_host_from_target();
    }
    Ok(())
}

#[inline]
fn only_host(head: &RequestHead) -> Result<Option<&[u8]>, Refusal> {
    let mut hosts = head.fields.get_all(Known::Host);
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::bad_request("there are two Host fields"));
    }
    Ok(host)
}

impl From<FieldsError> for Refusal {
    fn from(error: FieldsError) -> Self {
        match error {
            FieldsError::Malformed(reason) => Refusal::bad_request(reason),
            FieldsError::TooMany => Refusal::new(431, "the request has too many fields"),
        }
    }
}
