//! How long a message's body is: the one question two readers must never answer differently.

use super::{BadResponse, Refusal};
use crate::proxy::http::head::{Fields, Known, Method, RequestHead, ResponseHead, Version};

/// How a body is delimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// This many bytes; 0 where the message says `Content-Length: 0`.
    Length(u64),
    Chunked,
    /// What comes until the connection ends; for responses only.
    UntilClose,
}

impl Framing {
    /// Whether no byte of a body will come.
    pub fn is_empty(self) -> bool {
        matches!(self, Framing::None | Framing::Length(0))
    }
}

/// How the body of a request is delimited.
#[inline]
pub fn request_framing(head: &RequestHead) -> Result<Framing, Refusal> {
    let declared = declared(head.version, &head.fields).map_err(Refusal::bad_request)?;
    Ok(declared.unwrap_or(Framing::None))
}

/// How the body of a response to a request with this method is delimited.
#[inline]
pub fn response_framing(
    head: &ResponseHead,
    request_method: &Method,
) -> Result<Framing, BadResponse> {
    let opens_tunnel = *request_method == Method::Connect && (200..300).contains(&head.status);
    if opens_tunnel || head.status < 200 || head.status == 204 {
        return Ok(Framing::None);
    }
    let declared = declared(head.version, &head.fields).map_err(BadResponse::new)?;
    if *request_method == Method::Head || head.status == 304 {
        return Ok(Framing::None);
    }
    Ok(declared.unwrap_or(Framing::UntilClose))
}

/// What the fields say, if anything.
#[inline]
fn declared(version: Version, fields: &Fields) -> Result<Option<Framing>, &'static str> {
    match (
        fields.contains(Known::TransferEncoding),
        fields.contains(Known::ContentLength),
    ) {
        (false, false) => Ok(None),
        (false, true) => Ok(Some(Framing::Length(content_length(fields)?))),
        (true, true) => Err("Content-Length and Transfer-Encoding contradict each other"),
        (true, false) if version != Version::Http11 => {
            Err("Transfer-Encoding exists in HTTP/1.1 only")
        }
        (true, false) => match only(fields, Known::TransferEncoding) {
            Some(value) if value.eq_ignore_ascii_case(b"chunked") => Ok(Some(Framing::Chunked)),
            _ => Err("a Transfer-Encoding other than chunked cannot be read"),
        },
    }
}

fn content_length(fields: &Fields) -> Result<u64, &'static str> {
    let value = only(fields, Known::ContentLength).ok_or("there are two Content-Length fields")?;
    parse_length(value).ok_or("the Content-Length is not a number below 2^63")
}

/// Digits only, at most 2^63 − 1.
fn parse_length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let length = digits.iter().try_fold(0u64, |length, digit| {
        if !digit.is_ascii_digit() {
            return None;
        }
        length.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })?;
    i64::try_from(length).is_ok().then_some(length)
}

/// The value of a field that is there exactly once.
fn only(fields: &Fields, known: Known) -> Option<&[u8]> {
    let mut values = fields.get_all(known);
    values.next().filter(|_| values.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_digits_that_fit() {
        assert_eq!(parse_length(b"0"), Some(0));
        assert_eq!(parse_length(b"0042"), Some(42));
        assert_eq!(parse_length(b"9223372036854775807"), Some(i64::MAX as u64));
        for bad in [
            "",
            "-1",
            "+1",
            " 1",
            "1 ",
            "1,1",
            "0x1",
            "1.0",
            "9223372036854775808",
            "18446744073709551616",
            "99999999999999999999999",
        ] {
            assert_eq!(parse_length(bad.as_bytes()), None, "{bad}");
        }
    }
}
