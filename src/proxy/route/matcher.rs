//! What is left to check once host and path match: method, headers, queries.

use std::borrow::Cow;
use std::cmp::Reverse;

use percent_encoding::percent_decode;

use super::RequestView;
use crate::model::{HeaderMatch, QueryMatch, RouteMatch, ValueMatch};

/// One match of one rule, and its rank among those with the same host pattern and path; less comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Candidate {
    rank: Rank,
    /// The rule's place in the table, which holds rules oldest route first.
    pub rule: u32,
    /// The match's place in the rule.
    pub index: u32,
}

/// More conditions come first: a method, then more headers, then more queries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Rank {
    method: Reverse<bool>,
    headers: Reverse<u16>,
    queries: Reverse<u16>,
}

impl Candidate {
    pub fn new(rule: u32, index: u32, conditions: &RouteMatch) -> Self {
        let count = |length: usize| Reverse(u16::try_from(length).unwrap_or(u16::MAX));
        Self {
            rank: Rank {
                method: Reverse(conditions.method.is_some()),
                headers: count(conditions.headers.len()),
                queries: count(conditions.queries.len()),
            },
            rule,
            index,
        }
    }

    /// Where it is written.
    pub fn place(&self) -> (u32, u32) {
        (self.rule, self.index)
    }

    /// Host and path are all it asks for.
    pub fn is_unconditional(&self) -> bool {
        self.rank
            == Rank {
                method: Reverse(false),
                headers: Reverse(0),
                queries: Reverse(0),
            }
    }
}

/// The first condition that a request does not meet.
#[derive(Clone, Copy, Debug)]
pub enum Mismatch<'c> {
    Method(&'c str),
    Header(&'c HeaderMatch),
    Query(&'c QueryMatch),
}

/// Whether a request meets all conditions beside host and path.
pub fn accepts(conditions: &RouteMatch, request: &impl RequestView) -> bool {
    mismatch(conditions, request).is_none()
}

/// What stands against a request, beside host and path.
pub fn mismatch<'c>(
    conditions: &'c RouteMatch,
    request: &impl RequestView,
) -> Option<Mismatch<'c>> {
    if let Some(method) = &conditions.method
        && method.as_bytes() != request.method()
    {
        return Some(Mismatch::Method(method));
    }
    let header = conditions.headers.iter().find(|header| {
        let value = request.header(&header.name);
        !value.is_some_and(|value| value_matches(&header.value, value))
    });
    if let Some(header) = header {
        return Some(Mismatch::Header(header));
    }
    let query = conditions.queries.iter().find(|query| {
        let value = query_value(request.query().unwrap_or_default(), query.name.as_bytes());
        !value.is_some_and(|value| value_matches(&query.value, &value))
    });
    query.map(Mismatch::Query)
}

fn value_matches(wanted: &ValueMatch, value: &[u8]) -> bool {
    match wanted {
        ValueMatch::Exact(exact) => exact.as_bytes() == value,
        ValueMatch::Regex(regex) => regex.is_match(value),
    }
}

/// The decoded value of the first parameter of this name; empty where it has no `=`.
fn query_value<'a>(query: &'a [u8], name: &[u8]) -> Option<Cow<'a, [u8]>> {
    query
        .split(|byte| *byte == b'&')
        .filter(|parameter| !parameter.is_empty())
        .find_map(|parameter| {
            let equals = memchr::memchr(b'=', parameter).unwrap_or(parameter.len());
            let value = parameter.get(equals + 1..).unwrap_or_default();
            (*form_decode(&parameter[..equals]) == *name).then(|| form_decode(value))
        })
}

/// Percent sequences and `+` as forms write them; borrows where there are none.
fn form_decode(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'%', b'+', text).is_none() {
        return Cow::Borrowed(text);
    }
    let spaced: Vec<u8> = text
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_repeated_query_name_counts() {
        assert_eq!(
            query_value(b"a=1&b=2&a=3", b"a").as_deref(),
            Some(&b"1"[..])
        );
        assert_eq!(query_value(b"&&aa=1&a", b"a").as_deref(), Some(&b""[..]));
        assert_eq!(query_value(b"A=1", b"a"), None);
    }

    #[test]
    fn query_names_and_values_are_compared_decoded() {
        assert_eq!(
            query_value(b"a%20b=c+d%2B", b"a b").as_deref(),
            Some(&b"c d+"[..])
        );
        assert_eq!(query_value(b"a=100%", b"a").as_deref(), Some(&b"100%"[..]));
    }
}
