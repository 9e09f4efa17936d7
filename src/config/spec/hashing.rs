//! `balance:` of the policies that hash: what of a request, and into what.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::service::is_for;
use crate::config::decode::{Cursor, Fields};
use crate::config::defaults;
use crate::config::yaml::Value;
use crate::model::{HashKey, Hashing, IssuedCookie, Policy};

const BOTH: [Policy; 2] = [Policy::Maglev, Policy::RingHash];

/// None where the policy does not hash.
pub(super) fn hashing(fields: &mut Fields<'_, '_>, policy: Policy) -> Option<Hashing> {
    let defaults = Hashing::default();
    let keys = fields.optional("hash_on", |c| keys(is_for(c, policy, &BOTH)?));
    let bound = fields.optional("bounded_load", |c| bounded_load(is_for(c, policy, &BOTH)?));
    let table_size = fields.optional("maglev", |c| {
        is_for(c, policy, &[Policy::Maglev])?.fields(table_size)
    });
    let ring_size = fields.optional("ring_hash", |c| {
        is_for(c, policy, &[Policy::RingHash])?.fields(ring_size)
    });
    policy.hashes().then(|| Hashing {
        keys: keys.unwrap_or(defaults.keys),
        bounded_load_percent: bound,
        table_size: table_size.unwrap_or(defaults.table_size),
        ring_size: ring_size.unwrap_or(defaults.ring_size),
    })
}

/// One key, or a list of them.
fn keys(cursor: Cursor<'_>) -> Option<Vec<HashKey>> {
    match &cursor.node.value {
        Value::Sequence(items) if items.is_empty() => {
            cursor.error("there is nothing to hash", "such as {header: x-user}")
        }
        Value::Sequence(_) => cursor.list(key),
        _ => Some(vec![key(cursor)?]),
    }
}

fn key(cursor: Cursor<'_>) -> Option<HashKey> {
    if let Value::Mapping(_) = &cursor.node.value {
        return cursor.fields(named_key);
    }
    let is_path = cursor.choice(&[("source_address", false), ("path", true)])?;
    Some(match is_path {
        true => HashKey::Path,
        false => HashKey::SourceAddress,
    })
}

fn named_key(fields: &mut Fields<'_, '_>) -> Option<HashKey> {
    let header = fields.optional("header", |c| c.header_name().map(HashKey::Header));
    let cookie = fields.optional("cookie", cookie_name);
    let query = fields.optional("query", |c| {
        c.filled_text().map(|name| HashKey::Query(name.into()))
    });
    let issued = issued_cookie(fields);
    let cookie = cookie.map(|name| HashKey::Cookie { name, issued });
    let given = ["header", "cookie", "query"];
    match given.iter().filter(|key| fields.has(key)).count() {
        1 => header.or(cookie).or(query),
        0 => fields.cursor().error(
            "does not say what to hash",
            "one of header, cookie and query, or the word source_address or path",
        ),
        _ => fields.cursor().error(
            "one key is meant here",
            "write a list; the first that a request has counts",
        ),
    }
}

/// What is said of a cookie besides its name, where the proxy is to give it.
fn issued_cookie(fields: &mut Fields<'_, '_>) -> Option<IssuedCookie> {
    let is_cookie = fields.has("cookie");
    let ttl = fields.optional("ttl", |c| match is_cookie {
        true => c.duration(),
        false => c.error("only a cookie has this", "leave it out"),
    });
    let is_issued = fields.has("ttl");
    let path = fields.optional("path", |c| match is_issued {
        true => cookie_path(c),
        false => c.error(
            "this is said of a cookie that the proxy gives",
            "say `ttl` too, or leave it out; `hash_on: path` hashes the path",
        ),
    });
    Some(IssuedCookie {
        ttl: ttl?,
        path: path.unwrap_or_else(|| defaults::COOKIE_PATH.into()),
    })
}

/// A path in which nothing ends the attribute.
fn cookie_path(cursor: Cursor<'_>) -> Option<Arc<str>> {
    let path = cursor.absolute_path()?;
    match path.contains(';') {
        true => cursor.error(format!("`{path}` is no path for a cookie"), "without `;`"),
        false => Some(path),
    }
}

/// Cookies are named by the same letters as headers.
fn cookie_name(cursor: Cursor<'_>) -> Option<Arc<str>> {
    let text = cursor.text()?;
    match http::HeaderName::from_bytes(text.as_bytes()) {
        Ok(_) => Some(text.into()),
        Err(_) => cursor.error(
            format!("`{text}` is not a name for a cookie"),
            "letters, digits, `-` and `_`",
        ),
    }
}

/// `125%`: of the mean, so that less than 100 % would leave no room for all.
fn bounded_load(cursor: Cursor<'_>) -> Option<u32> {
    let text = cursor.text()?;
    let percent = text.strip_suffix('%').unwrap_or(text).trim_end().parse();
    match percent {
        Ok(percent) if defaults::BOUNDED_LOAD.contains(&percent) => Some(percent),
        _ => cursor.error(
            format!("`{text}` is no share of the mean"),
            "write 100% to 1000%, such as 125%",
        ),
    }
}

fn table_size(fields: &mut Fields<'_, '_>) -> Option<u32> {
    let default = Hashing::default().table_size;
    fields.optional("table_size", |cursor| {
        let size = cursor.number(defaults::TABLE_SIZE)?;
        match is_prime(size) {
            true => Some(size),
            false => cursor.error(
                format!("{size} is not a prime"),
                format!(
                    "the next one is {}; {default} is the default",
                    next_prime(size)
                ),
            ),
        }
    })
}

fn is_prime(number: u32) -> bool {
    let mut divisors = (2..).take_while(|divisor| divisor * divisor <= number);
    number > 1 && divisors.all(|divisor| !number.is_multiple_of(divisor))
}

fn next_prime(above: u32) -> u32 {
    (above + 1..)
        .find(|number| is_prime(*number))
        .unwrap_or(above)
}

fn ring_size(fields: &mut Fields<'_, '_>) -> Option<RangeInclusive<u32>> {
    let defaults = Hashing::default().ring_size;
    let range = || 1..=u64::from(*defaults.end());
    let least = fields.optional("minimum_ring_size", |c| c.number(range()));
    let most = fields.optional("maximum_ring_size", |c| c.number(range()));
    let most = most.unwrap_or(*defaults.end());
    let least = least.unwrap_or((*defaults.start()).min(most));
    if least > most {
        return fields.cursor().error(
            "`minimum_ring_size` is larger than `maximum_ring_size`",
            "make it at most as large",
        );
    }
    Some(least..=most)
}
