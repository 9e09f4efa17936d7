//! What may stand in `Host`, `:authority` and the authority of an absolute target.

use std::net::Ipv6Addr;

/// Whether these bytes are `host` or `host:port`, with nothing in them that two readers could take apart differently.
///
/// Refused: userinfo, slash, backslash, `?`, `#`, `%`, comma, spaces and control characters, bytes beyond ASCII, an empty
/// host, an empty port or one above 65535. An IPv6 literal stands in brackets and may have a zone.
pub fn valid_authority(bytes: &[u8]) -> bool {
    if bytes.first() == Some(&b'[') {
        return valid_literal(bytes);
    }
    let host_len = bytes
        .iter()
        .position(|byte| !HOST[usize::from(*byte)])
        .unwrap_or(bytes.len());
    host_len > 0 && valid_port_suffix(&bytes[host_len..])
}

/// `[` IPv6 address, perhaps with `%zone`, `]`, perhaps `:port`.
fn valid_literal(bytes: &[u8]) -> bool {
    let Some(end) = memchr::memchr(b']', bytes) else {
        return false;
    };
    let Ok(inside) = std::str::from_utf8(&bytes[1..end]) else {
        return false;
    };
    let (address, zone) = match inside.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (inside, None),
    };
    let zone_is_fine = zone.is_none_or(|zone| {
        !zone.is_empty()
            && zone
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    });
    zone_is_fine && address.parse::<Ipv6Addr>().is_ok() && valid_port_suffix(&bytes[end + 1..])
}

/// Nothing, or `:` and a port number.
fn valid_port_suffix(suffix: &[u8]) -> bool {
    match suffix {
        [] => true,
        [b':', digits @ ..] if (1..=5).contains(&digits.len()) => {
            let number = digits.iter().try_fold(0u32, |number, digit| {
                digit
                    .is_ascii_digit()
                    .then(|| number * 10 + u32::from(digit - b'0'))
            });
            number.is_some_and(|number| number <= 65_535)
        }
        _ => false,
    }
}

/// Letters, digits, and of RFC 3986's reg-name what no reader takes for a separator.
static HOST: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~!$&'()*+;=";
    let mut index = 0;
    while index < others.len() {
        table[others[index] as usize] = true;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_accepted() {
        for authority in [
            "a",
            "example.com",
            "example.com.",
            "my_service",
            "example.com:80",
            "10.0.0.7:8080",
            "[::1]",
            "[::1]:8080",
            "[fe80::1%eth0]:80",
            "a:0",
            "a:65535",
            "xn--bcher-kva.example",
        ] {
            assert!(valid_authority(authority.as_bytes()), "{authority}");
        }
    }

    #[test]
    fn what_two_readers_could_take_apart_differently_is_refused() {
        for authority in [
            "",
            ":80",
            "a:",
            "a:65536",
            "a:999999",
            "a:+1",
            "a:b",
            "a:80:90",
            "user@a",
            "user:pass@a",
            "a/b",
            "a?b",
            "a#b",
            "a b",
            " a",
            "a ",
            "a\\b",
            "a,b",
            "a%41",
            "b\u{fc}cher",
            "a\tb",
            "a\0",
            "a\r",
            "[::1",
            "::1",
            "[]",
            "[1.2.3.4]",
            "[::1]a",
            "[::1%]",
            "[::g]",
            "a\u{7f}",
        ] {
            assert!(!valid_authority(authority.as_bytes()), "{authority:?}");
        }
    }
}
