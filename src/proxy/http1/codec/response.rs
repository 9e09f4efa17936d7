//! Reading a response's head.

use super::fields::{FieldsError, read_fields};
use super::request::EAGER_BYTES_MAX;
use super::{BadResponse, Limits, Parsed};
use crate::proxy::http::head::{ResponseHead, Version, scan};

/// Reads a response's head from the beginning of `buf`, clearing `head` first. After [`Parsed::Partial`] the head is of
/// no use.
pub fn parse_response(
    buf: &[u8],
    limits: &Limits,
    head: &mut ResponseHead,
) -> Result<Parsed, BadResponse> {
    head.clear();
    let unfinished = || {
        if buf.len() >= limits.head_bytes_max {
            return Err(HEAD_TOO_LARGE);
        }
        Ok(Parsed::Partial)
    };
    if buf.len() > EAGER_BYTES_MAX && memchr::memmem::find(buf, b"\r\n\r\n").is_none() {
        return unfinished();
    }
    let Some(line_end) = read_status_line(buf, head)? else {
        return unfinished();
    };
    let Some(end) = read_fields(buf, line_end, limits.fields_max, &mut head.fields)? else {
        return unfinished();
    };
    if end > limits.head_bytes_max {
        return Err(HEAD_TOO_LARGE);
    }
    Ok(Parsed::Complete(end))
}

const HEAD_TOO_LARGE: BadResponse = BadResponse::new("the response head is too large");

/// `HTTP/1.1 200`
const STATUS_END: usize = 12;

/// Reads the first line; where it ends, or None when more bytes are needed.
#[inline]
fn read_status_line(buf: &[u8], head: &mut ResponseHead) -> Result<Option<usize>, BadResponse> {
    let Some(line) = buf.first_chunk::<STATUS_END>() else {
        return check_partial_status(buf).map(|()| None);
    };
    head.version = match &line[..8] {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor] if minor.is_ascii_digit() => {
            Version::Http11
        }
        _ => return Err(NO_HTTP),
    };
    head.status = match line[8..] {
        [b' ', hundreds @ b'1'..=b'5', tens, ones]
            if tens.is_ascii_digit() && ones.is_ascii_digit() =>
        {
            [hundreds, tens, ones]
                .iter()
                .fold(0, |status, digit| status * 10 + u16::from(digit - b'0'))
        }
        _ => return Err(NO_STATUS),
    };
    read_reason(buf, head)
}

/// A space and the phrase, which may be empty; many servers leave out the space with it.
#[inline]
fn read_reason(buf: &[u8], head: &mut ResponseHead) -> Result<Option<usize>, BadResponse> {
    // Before the line's end is looked for, so that what is refused does not depend on how much has come.
    if !matches!(buf.get(STATUS_END), None | Some(b' ' | b'\r' | b'\n')) {
        return Err(NO_STATUS);
    }
    let Some(line_end) = scan::value_end(buf, STATUS_END) else {
        return Ok(None);
    };
    match (buf[line_end], buf.get(line_end + 1)) {
        (b'\r', Some(b'\n')) => {}
        (b'\r', None) => return Ok(None),
        _ => {
            return Err(BadResponse::new(
                "the status line has a control character in it",
            ));
        }
    }
    if let [b' ', reason @ ..] = &buf[STATUS_END..line_end] {
        head.set_reason(reason);
    }
    Ok(Some(line_end + 2))
}

const NO_HTTP: BadResponse = BadResponse::new("the answer does not begin with HTTP/1");
const NO_STATUS: BadResponse = BadResponse::new("the status is not three digits from 100 to 599");

/// What has come must be the beginning of a status line.
#[cold]
fn check_partial_status(line: &[u8]) -> Result<(), BadResponse> {
    for (found, wanted) in line.iter().zip(b"HTTP/1.0 100") {
        if *wanted != *found && !(wanted.is_ascii_digit() && found.is_ascii_digit()) {
            return Err(NO_HTTP);
        }
    }
    Ok(())
}

impl From<FieldsError> for BadResponse {
    fn from(error: FieldsError) -> Self {
        match error {
            FieldsError::Malformed(reason) => BadResponse::new(reason),
            FieldsError::TooMany => BadResponse::new("the response has too many fields"),
        }
    }
}
