//! Fields that are between two neighbours only, and what they say about the connection.

use smallvec::SmallVec;

use super::Refusal;
use crate::proxy::http::head::{Fields, Known, Version};

/// What a head said about its own connection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hop {
    /// `Connection: close`
    pub close: bool,
    /// `Connection: keep-alive`
    pub keep_alive: bool,
    /// `TE: trailers`; the field stays among the fields.
    pub te_trailers: bool,
    /// The value of `Upgrade`, when `Connection` names it.
    pub upgrade: Option<SmallVec<[u8; 16]>>,
    /// `Keep-Alive: timeout=` in seconds.
    pub keep_alive_seconds: Option<u32>,
}

impl Hop {
    /// Whether the connection may carry another message after this one.
    pub fn is_persistent(&self, version: Version) -> bool {
        match version {
            Version::Http10 => self.keep_alive && !self.close,
            Version::Http11 => !self.close,
            Version::Http2 => true,
        }
    }

    pub fn asks_for_websocket(&self) -> bool {
        self.upgrade
            .as_ref()
            .is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
    }
}

/// Names in `Connection` beyond the usual ones; more are no honest use of it.
const NAMED_MAX: usize = 16;

const HOP_BY_HOP: [Known; 6] = [
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::Upgrade,
    Known::Http2Settings,
    Known::Te,
];

/// Removes the fields that end here, and those that `Connection` names, and returns what they said.
///
/// Framing fields stay, since whoever writes the message replaces them. The caller adds `Upgrade` again where it allows
/// the upgrade; writing the head then names it in `Connection`.
#[inline]
pub fn strip_hop_by_hop(fields: &mut Fields) -> Result<Hop, Refusal> {
    if !fields.contains_any(&HOP_BY_HOP) {
        return Ok(Hop::default());
    }
    strip(fields)
}

fn strip(fields: &mut Fields) -> Result<Hop, Refusal> {
    if !fields.contains_any(&HOP_BY_HOP[1..]) && says_keep_alive_only(fields) {
        fields.remove(Known::Connection);
        return Ok(Hop {
            keep_alive: true,
            ..Hop::default()
        });
    }
    let mut hop = Hop::default();
    let (named, names_upgrade) = read_connection(fields, &mut hop)?;
    if !named.is_empty() {
        fields.retain(|field| {
            !named
                .iter()
                .any(|name| name.eq_ignore_ascii_case(field.name))
        });
    }
    if names_upgrade {
        hop.upgrade = join(fields, Known::Upgrade);
    }
    hop.keep_alive_seconds = fields.get(Known::KeepAlive).and_then(timeout_parameter);
    hop.te_trailers = has_token(fields, Known::Te, b"trailers");
    fields.remove_all(&HOP_BY_HOP);
    if hop.te_trailers {
        fields.push_known(Known::Te, b"TE", b"trailers");
    }
    Ok(hop)
}

/// What most of those who say anything say.
fn says_keep_alive_only(fields: &Fields) -> bool {
    let mut values = fields.get_all(Known::Connection);
    values
        .next()
        .is_some_and(|value| value.eq_ignore_ascii_case(b"keep-alive"))
        && values.next().is_none()
}

type Named = SmallVec<[SmallVec<[u8; 24]>; 2]>;

/// Fills in `close` and `keep_alive`; returns the other names, and whether `upgrade` was one.
fn read_connection(fields: &Fields, hop: &mut Hop) -> Result<(Named, bool), Refusal> {
    let mut named = Named::new();
    let mut names_upgrade = false;
    for token in fields.get_all(Known::Connection).flat_map(tokens) {
        if token.eq_ignore_ascii_case(b"close") {
            hop.close = true;
        } else if token.eq_ignore_ascii_case(b"keep-alive") {
            hop.keep_alive = true;
        } else if token.eq_ignore_ascii_case(b"upgrade") {
            names_upgrade = true;
        } else if token.eq_ignore_ascii_case(b"te") {
            // TE is dealt with by its own rule.
        } else if is_protected(token) {
            return Err(Refusal::bad_request(
                "the Connection field names a field that must not be removed",
            ));
        } else if named.len() == NAMED_MAX {
            return Err(Refusal::bad_request(
                "the Connection field names too many fields",
            ));
        } else {
            named.push(SmallVec::from_slice(token));
        }
    }
    Ok((named, names_upgrade))
}

/// Framing, Host, and what tells the application who called.
fn is_protected(name: &[u8]) -> bool {
    const PREFIX: &[u8] = b"x-forwarded-";
    Known::from_name(name).is_protected_from_connection()
        || name
            .get(..PREFIX.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// Whether the connection may carry another message after the one with these fields.
pub fn keep_alive(version: Version, fields: &Fields) -> bool {
    match version {
        Version::Http2 => true,
        Version::Http11 => !has_token(fields, Known::Connection, b"close"),
        Version::Http10 => {
            has_token(fields, Known::Connection, b"keep-alive")
                && !has_token(fields, Known::Connection, b"close")
        }
    }
}

/// Whether the client waits for a 100 before it sends its body.
pub fn expects_continue(fields: &Fields) -> bool {
    has_token(fields, Known::Expect, b"100-continue")
}

/// Whether a field with a comma-separated list has this token, in any case.
pub fn has_token(fields: &Fields, known: Known, wanted: &[u8]) -> bool {
    fields.contains(known)
        && fields
            .get_all(known)
            .flat_map(tokens)
            .any(|token| token.eq_ignore_ascii_case(wanted))
}

/// The elements of a comma-separated list, without the spaces around them and without empty ones.
fn tokens(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

/// All values of a field as one list.
fn join(fields: &Fields, known: Known) -> Option<SmallVec<[u8; 16]>> {
    let mut values = fields.get_all(known);
    let mut joined = SmallVec::from_slice(values.next()?);
    for value in values {
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(value);
    }
    Some(joined)
}

/// The seconds of `timeout=5, max=100`.
fn timeout_parameter(value: &[u8]) -> Option<u32> {
    tokens(value).find_map(|token| {
        let (name, seconds) = token.split_at_checked(b"timeout=".len())?;
        let seconds = std::str::from_utf8(seconds).ok()?;
        name.eq_ignore_ascii_case(b"timeout=")
            .then(|| seconds.parse().ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(fields: &Fields) -> Vec<String> {
        fields
            .iter()
            .map(|field| String::from_utf8_lossy(field.name).into_owned())
            .collect()
    }

    #[test]
    fn fields_that_end_here_and_those_that_connection_names_are_removed() {
        let mut fields = Fields::of(&[
            ("Host", "h"),
            ("Connection", "keep-alive, X-Mine,, ,Foo"),
            ("connection", "close"),
            ("x-mine", "1"),
            ("FOO", "2"),
            ("Keep-Alive", "max=5, Timeout=7"),
            ("Proxy-Connection", "keep-alive"),
            ("Upgrade", "websocket"),
            ("HTTP2-Settings", "x"),
            ("Accept", "*/*"),
        ]);
        let hop = strip_hop_by_hop(&mut fields).expect("nothing protected is named");
        assert_eq!(names(&fields), ["Host", "Accept"]);
        assert!(hop.close && hop.keep_alive && hop.upgrade.is_none() && !hop.te_trailers);
        assert_eq!(hop.keep_alive_seconds, Some(7));
    }

    #[test]
    fn nothing_is_touched_where_nothing_ends_here() {
        let mut fields = Fields::of(&[("Host", "h"), ("Content-Length", "3")]);
        assert_eq!(strip_hop_by_hop(&mut fields), Ok(Hop::default()));
        assert_eq!(names(&fields), ["Host", "Content-Length"]);
    }

    #[test]
    fn an_upgrade_is_kept_for_the_caller_only_when_connection_names_it() {
        let mut asked = Fields::of(&[("Connection", "Upgrade"), ("Upgrade", "WebSocket")]);
        let hop = strip_hop_by_hop(&mut asked).expect("fine");
        assert!(hop.asks_for_websocket() && asked.is_empty());
        let mut unasked = Fields::of(&[("Upgrade", "WebSocket")]);
        let hop = strip_hop_by_hop(&mut unasked).expect("fine");
        assert!(hop.upgrade.is_none() && unasked.is_empty());
    }

    #[test]
    fn te_keeps_nothing_but_trailers() {
        let mut both = Fields::of(&[("TE", "gzip;q=0.5, Trailers"), ("Connection", "TE")]);
        assert!(strip_hop_by_hop(&mut both).expect("fine").te_trailers);
        assert_eq!(both.get(Known::Te), Some(&b"trailers"[..]));
        let mut gzip = Fields::of(&[("TE", "gzip")]);
        assert!(!strip_hop_by_hop(&mut gzip).expect("fine").te_trailers);
        assert!(gzip.is_empty());
    }

    #[test]
    fn connection_cannot_name_what_others_rely_on() {
        for name in [
            "Host",
            "content-length",
            "Transfer-Encoding",
            "X-Forwarded-For",
            "x-forwarded-anything",
            "Forwarded",
            "X-Real-IP",
            "x-mesh-timeout-ms",
        ] {
            let mut fields = Fields::of(&[("Connection", name)]);
            assert!(strip_hop_by_hop(&mut fields).is_err(), "{name}");
        }
        let many = (0..40)
            .map(|index| format!("x{index},"))
            .collect::<String>();
        assert!(strip_hop_by_hop(&mut Fields::of(&[("Connection", &many)])).is_err());
    }

    #[test]
    fn persistence_follows_the_version_and_the_tokens() {
        let keep = |version, value: &str| {
            let mut fields = Fields::of(&[("Connection", value)]);
            let kept = keep_alive(version, &fields);
            let hop = strip_hop_by_hop(&mut fields).expect("fine");
            assert_eq!(hop.is_persistent(version), kept);
            kept
        };
        assert!(keep(Version::Http11, ""));
        assert!(keep(Version::Http11, "keep-alive"));
        assert!(!keep(Version::Http11, "foo, CLOSE"));
        assert!(!keep(Version::Http10, ""));
        assert!(keep(Version::Http10, "Keep-Alive"));
        assert!(!keep(Version::Http10, "keep-alive, close"));
    }
}
