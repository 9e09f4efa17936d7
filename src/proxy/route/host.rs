//! Values by host pattern: exact name, longest wildcard, any.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::model::HostPattern;

type ByName<V> = HashMap<Box<[u8]>, V, RandomState>;

/// A value for each host pattern; None is the pattern that matches every host.
#[derive(Debug)]
pub struct HostMap<V> {
    exact: ByName<V>,
    /// By the name after `*.`.
    wildcard: ByName<V>,
    /// Longer suffixes of a client's host need no look-up.
    wildcard_longest: usize,
    any: Option<V>,
}

impl<V> Default for HostMap<V> {
    fn default() -> Self {
        Self {
            exact: ByName::default(),
            wildcard: ByName::default(),
            wildcard_longest: 0,
            any: None,
        }
    }
}

impl<V> HostMap<V> {
    /// The value of a pattern, made by `new` where it has none yet.
    pub fn entry(&mut self, pattern: Option<&HostPattern>, new: impl FnOnce() -> V) -> &mut V {
        match pattern {
            Some(HostPattern::Exact(name)) => self.exact.entry(key(name)).or_insert_with(new),
            Some(HostPattern::Wildcard(name)) => {
                self.wildcard_longest = self.wildcard_longest.max(name.len());
                self.wildcard.entry(key(name)).or_insert_with(new)
            }
            None => self.any.get_or_insert_with(new),
        }
    }

    /// The values whose pattern matches a [canonical](with_canonical) host, most specific first.
    pub fn matches<'a, 'h>(
        &'a self,
        host: &'h [u8],
    ) -> impl Iterator<Item = &'a V> + use<'a, 'h, V> {
        self.exact
            .get(host)
            .into_iter()
            .chain(self.wildcards(host))
            .chain(&self.any)
    }

    fn wildcards<'a, 'h>(&'a self, host: &'h [u8]) -> impl Iterator<Item = &'a V> + use<'a, 'h, V> {
        let searched: &'h [u8] = if self.wildcard.is_empty() { b"" } else { host };
        memchr::memchr_iter(b'.', searched)
            .filter(|dot| *dot > 0)
            .map(|dot| &searched[dot + 1..])
            .filter(|suffix| suffix.len() <= self.wildcard_longest)
            .filter_map(|suffix| self.wildcard.get(suffix))
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.exact
            .values_mut()
            .chain(self.wildcard.values_mut())
            .chain(&mut self.any)
    }
}

fn key(name: &str) -> Box<[u8]> {
    name.as_bytes().into()
}

/// Gives the host in lower case and without a trailing dot; copies it only when it has upper case.
pub fn with_canonical<R>(host: &[u8], then: impl FnOnce(&[u8]) -> R) -> R {
    let host = host.strip_suffix(b".").unwrap_or(host);
    if host.iter().any(u8::is_ascii_uppercase) {
        let mut lower = SmallVec::<[u8; 256]>::from_slice(host);
        lower.make_ascii_lowercase();
        then(&lower)
    } else {
        then(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(patterns: &[&'static str]) -> HostMap<&'static str> {
        let mut map = HostMap::default();
        for pattern in patterns {
            let parsed = match pattern.strip_prefix("*.") {
                Some(rest) => Some(HostPattern::Wildcard(rest.into())),
                None if *pattern == "*" => None,
                None => Some(HostPattern::Exact((*pattern).into())),
            };
            map.entry(parsed.as_ref(), || *pattern);
        }
        map
    }

    fn found(map: &HostMap<&'static str>, host: &str) -> Vec<&'static str> {
        with_canonical(host.as_bytes(), |host| map.matches(host).copied().collect())
    }

    #[test]
    fn the_most_specific_pattern_comes_first() {
        let map = map(&[
            "*",
            "*.com",
            "*.example.com",
            "*.a.example.com",
            "a.example.com",
        ]);
        assert_eq!(
            found(&map, "A.Example.Com."),
            ["a.example.com", "*.example.com", "*.com", "*"]
        );
        assert_eq!(
            found(&map, "x.y.a.example.com"),
            ["*.a.example.com", "*.example.com", "*.com", "*"]
        );
        assert_eq!(found(&map, "elsewhere.org"), ["*"]);
    }

    #[test]
    fn a_wildcard_matches_labels_before_it_but_not_the_bare_domain() {
        let map = map(&["*.example.com"]);
        assert!(found(&map, "example.com").is_empty());
        assert!(found(&map, ".example.com").is_empty());
        assert!(found(&map, "badexample.com").is_empty());
        assert_eq!(found(&map, "a.b.example.com").len(), 1);
    }

    #[test]
    fn a_host_longer_than_any_name_is_only_slow() {
        let map = map(&["*.example.com", "*"]);
        assert_eq!(found(&map, &"A.".repeat(5000)), ["*"]);
    }
}
