//! Compression: whether an answer is compressed, with what, and what its head says then.
//!
//! Compressed is what the rule says by its media type and length, has no coding yet, is whole, and may be transformed (RFC 9110,
//! section 7.7), with what the client prefers of what the rule offers (section 12.5.3). The bytes are `proxy::http::pack`'s.

use crate::model::{Coding, Compression};
use crate::proxy::http::body::Size;
use crate::proxy::http::head::{Fields, Known, Method, RequestHead, ResponseHead};

/// Digests of the bytes as they came.
const DIGESTS: [&[u8]; 3] = [b"content-digest", b"digest", b"content-md5"];

/// The coding that this answer goes in, which its head says then; None leaves it as it is.
#[cold]
pub fn decide(
    compression: &Compression,
    request: &RequestHead,
    answer: &mut ResponseHead,
    size: Size,
) -> Option<Coding> {
    if answer.status == 304 {
        tell_of_what_is_stored(request, &mut answer.fields);
        return None;
    }
    let size = match request.method == Method::Head {
        false => size,
        true => size_of_get(&answer.fields),
    };
    if !is_compressible(compression, answer, size) {
        return None;
    }
    vary(&mut answer.fields);
    let coding = preferred(&compression.codings, &request.fields)?;
    let fields = &mut answer.fields;
    fields.remove_all(&[Known::ContentLength, Known::AcceptRanges]);
    for digest in DIGESTS {
        fields.remove_name(digest);
    }
    if let Some(weak) = weak_etag(fields) {
        fields.set_known(Known::Etag, b"ETag", &weak);
    }
    fields.set_known(
        Known::ContentEncoding,
        b"Content-Encoding",
        coding.as_str().as_bytes(),
    );
    Some(coding)
}

/// A strong ETag as a weak one: the bytes differ, the meaning does not (RFC 9110, section 8.8.1).
fn weak_etag(fields: &Fields) -> Option<Vec<u8>> {
    let etag = fields.get(Known::Etag)?;
    (!etag.starts_with(b"W/")).then(|| [b"W/", etag].concat())
}

/// An answer to HEAD has the length that the answer to GET would have.
fn size_of_get(fields: &Fields) -> Size {
    fields.content_length().map_or(Size::Unknown, Size::Exact)
}

/// What the client has stored may have been compressed: then it knows the weak ETag, and is told that one again.
fn tell_of_what_is_stored(request: &RequestHead, fields: &mut Fields) {
    vary(fields);
    let weak = weak_etag(fields);
    let knows = |weak: &Vec<u8>| {
        let mut asked = request.fields.get_all(Known::IfNoneMatch);
        asked.any(|list| has_token(list, weak))
    };
    if let Some(weak) = weak.filter(knows) {
        fields.set_known(Known::Etag, b"ETag", &weak);
    }
}

fn is_compressible(compression: &Compression, answer: &ResponseHead, size: Size) -> bool {
    let fields = &answer.fields;
    let long_enough = match size {
        Size::None => false,
        Size::Exact(length) => length >= compression.min_length,
        Size::Unknown => true,
    };
    let whole = !matches!(answer.status, ..200 | 204 | 205 | 206 | 304);
    let plain = !fields.contains_any(&[Known::ContentEncoding, Known::ContentRange]);
    let transformable = !fields
        .get_all(Known::CacheControl)
        .any(|value| has_token(value, b"no-transform"));
    long_enough && whole && plain && transformable && is_of(compression, fields)
}

fn is_of(compression: &Compression, fields: &Fields) -> bool {
    let Some(value) = fields.get(Known::ContentType) else {
        return false;
    };
    let media = value.split(|byte| *byte == b';').next().unwrap_or_default();
    let media = media.trim_ascii();
    compression
        .content_types
        .iter()
        .any(|wanted| match wanted.strip_suffix('*') {
            Some(kind) => media
                .get(..kind.len())
                .is_some_and(|own| own.eq_ignore_ascii_case(kind.as_bytes())),
            None => media.eq_ignore_ascii_case(wanted.as_bytes()),
        })
}

fn has_token(list: &[u8], token: &[u8]) -> bool {
    let mut tokens = list.split(|byte| *byte == b',');
    tokens.any(|one| one.trim_ascii().eq_ignore_ascii_case(token))
}

/// Caches must know that others get other bytes.
fn vary(fields: &mut Fields) {
    let said = fields
        .get_all(Known::Vary)
        .any(|value| has_token(value, b"accept-encoding") || has_token(value, b"*"));
    if !said {
        fields.append_to_list(b"Vary", b"Accept-Encoding");
    }
}

/// What the client gives the highest quality, of equals the first that is offered; None where it prefers the bytes as they are.
fn preferred(offered: &[Coding], fields: &Fields) -> Option<Coding> {
    let accepted: Vec<(&[u8], u16)> = fields
        .get_all(Known::AcceptEncoding)
        .flat_map(|list| list.split(|byte| *byte == b','))
        .filter_map(quality)
        .collect();
    let said = |name: &[u8]| {
        let mut accepted = accepted.iter();
        accepted
            .find(|(one, _)| one.eq_ignore_ascii_case(name))
            .map(|(_, quality)| *quality)
    };
    let any = said(b"*");
    let of = |coding: &Coding| match coding {
        Coding::Gzip => said(b"gzip").or_else(|| said(b"x-gzip")),
        coding => said(coding.as_str().as_bytes()),
    };
    let mut best: Option<(Coding, u16)> = None;
    for coding in offered {
        let quality = of(coding).or(any).unwrap_or(0);
        if quality > best.map_or(0, |(_, best)| best) {
            best = Some((*coding, quality));
        }
    }
    let identity = said(b"identity").unwrap_or(0);
    best.filter(|(_, quality)| *quality >= identity)
        .map(|(coding, _)| coding)
}

/// `gzip;q=0.8` in thousandths; what is malformed accepts nothing.
fn quality(member: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = member.split(|byte| *byte == b';');
    let coding = parts.next()?.trim_ascii();
    let mut quality = 1_000;
    for part in parts {
        let part = part.trim_ascii();
        if let Some(value) = part
            .strip_prefix(b"q=")
            .or_else(|| part.strip_prefix(b"Q="))
        {
            quality = thousandths(value)?;
        }
    }
    (!coding.is_empty()).then_some((coding, quality))
}

/// `0`, `0.5`, `1.000`: at most three decimals (RFC 9110, section 12.4.2).
fn thousandths(text: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_number = decimals.bytes().all(|byte| byte.is_ascii_digit()) && decimals.len() <= 3;
    let decimals: u16 = format!("{decimals:0<3}").parse().ok()?;
    match (whole, is_number) {
        ("0", true) => Some(decimals),
        ("1", true) if decimals == 0 => Some(1_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Coding; 3] = Coding::ALL;

    fn chosen(accept: &[&str]) -> Option<Coding> {
        let fields: Vec<_> = accept
            .iter()
            .map(|value| ("accept-encoding", *value))
            .collect();
        preferred(&ALL, &Fields::of(&fields))
    }

    #[test]
    fn the_client_says_what_it_takes() {
        for (accept, expected) in [
            (&["gzip"][..], Some(Coding::Gzip)),
            (&["x-gzip"], Some(Coding::Gzip)),
            (&["gzip, br"], Some(Coding::Brotli)),
            (&["gzip", "zstd"], Some(Coding::Zstd)),
            (&["gzip;q=1.0, br;q=0.5"], Some(Coding::Gzip)),
            (&["GZIP ; q=0.001"], Some(Coding::Gzip)),
            (&["*"], Some(Coding::Brotli)),
            (&["br;q=0, *;q=0.5"], Some(Coding::Zstd)),
            (&["identity, gzip;q=0.5"], None),
            (&["identity;q=0.5, gzip;q=0.5"], Some(Coding::Gzip)),
            (&["gzip;q=0"], None),
            (&["gzip;q=2"], None),
            (&["gzip;q=0.1234"], None),
            (&["deflate"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(chosen(accept), expected, "{accept:?}");
        }
    }

    fn compressed(status: u16, fields: &[(&str, &str)], size: Size) -> (Option<Coding>, Fields) {
        let compression = Compression {
            codings: ALL.to_vec(),
            min_length: 100,
            content_types: vec!["text/*".into(), "application/json".into()],
        };
        let mut request = RequestHead::new();
        request.fields = Fields::of(&[("accept-encoding", "gzip")]);
        let mut answer = ResponseHead::new(status);
        answer.fields = Fields::of(fields);
        let coding = decide(&compression, &request, &mut answer, size);
        (coding, answer.fields)
    }

    #[test]
    fn the_head_says_what_the_bytes_are() {
        let fields = [
            ("content-type", "Text/HTML; charset=utf-8"),
            ("content-length", "100"),
            ("etag", "\"a\""),
            ("accept-ranges", "bytes"),
            ("content-digest", "sha-256=:x:"),
            ("vary", "Origin"),
        ];
        let (coding, fields) = compressed(200, &fields, Size::Exact(100));
        assert_eq!(coding, Some(Coding::Gzip));
        assert_eq!(fields.get(Known::ContentEncoding), Some(&b"gzip"[..]));
        assert_eq!(fields.get(Known::Etag), Some(&b"W/\"a\""[..]));
        assert_eq!(
            fields.get(Known::Vary),
            Some(&b"Origin, Accept-Encoding"[..])
        );
        assert!(!fields.contains_any(&[Known::ContentLength, Known::AcceptRanges]));
        assert_eq!(fields.find(b"content-digest"), None);
    }

    #[test]
    fn what_is_short_coded_partial_or_not_to_be_touched_stays() {
        let html = ("content-type", "text/html");
        for (status, fields, size) in [
            (200, &[html][..], Size::Exact(99)),
            (200, &[html], Size::None),
            (206, &[html], Size::Unknown),
            (204, &[html], Size::Unknown),
            (200, &[html, ("content-encoding", "br")], Size::Unknown),
            (
                200,
                &[html, ("cache-control", "max-age=1, No-Transform")],
                Size::Unknown,
            ),
            (200, &[("content-type", "image/png")], Size::Unknown),
            (200, &[], Size::Unknown),
        ] {
            let (coding, told) = compressed(status, fields, size);
            assert_eq!(coding, None, "{status} {fields:?}");
            assert!(!told.contains(Known::Vary), "{status} {fields:?}");
        }
    }
}
