//! Ranges as an operator writes them in a rule: ports and interfaces. Parsed here, so that a rule cannot be wrong.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// What is wrong with a range, and what to write instead.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum RangeError {
    #[error(
        "`{0}` is not a port or a range of ports; write one like 8080 or 8000-8100 (1 to 65535)"
    )]
    Port(String),
    #[error(
        "`{0}` is not an interface name; write one like eth0, or docker* for all that begin so (at most 15 characters)"
    )]
    Interface(String),
}

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

impl PortRange {
    pub fn one(port: u16) -> Self {
        PortRange {
            first: port,
            last: port,
        }
    }

    /// The same ports as few ranges in order: what overlaps or touches is one range.
    pub fn merged(ranges: &[PortRange]) -> Vec<PortRange> {
        let mut sorted = ranges.to_vec();
        sorted.sort_unstable();
        let mut merged: Vec<PortRange> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(last) if range.first <= last.last.saturating_add(1) => {
                    last.last = last.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        merged
    }
}

impl FromStr for PortRange {
    type Err = RangeError;

    fn from_str(written: &str) -> Result<Self, RangeError> {
        let wrong = || RangeError::Port(written.to_owned());
        let (first, last) = written.split_once('-').unwrap_or((written, written));
        let first = first.trim().parse().map_err(|_| wrong())?;
        let last = last.trim().parse().map_err(|_| wrong())?;
        if first == 0 || first > last {
            return Err(wrong());
        }
        Ok(PortRange { first, last })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(formatter, "{}", self.first)
        } else {
            write!(formatter, "{}-{}", self.first, self.last)
        }
    }
}

/// A network interface's name, or the beginning of names followed by `*`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Interface(String);

impl Interface {
    pub fn loopback() -> Self {
        Interface("lo".to_owned())
    }

    /// The name, or what the names begin with; and whether it is only that.
    pub fn stem(&self) -> (&str, bool) {
        match self.0.strip_suffix('*') {
            Some(stem) => (stem, true),
            None => (&self.0, false),
        }
    }
}

impl FromStr for Interface {
    type Err = RangeError;

    fn from_str(written: &str) -> Result<Self, RangeError> {
        let stem = written.strip_suffix('*').unwrap_or(written);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-:@".contains(&byte);
        if stem.is_empty() || stem.len() > 15 || !stem.bytes().all(allowed) {
            return Err(RangeError::Interface(written.to_owned()));
        }
        Ok(Interface(written.to_owned()))
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{}\"", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(written: &str) -> Vec<PortRange> {
        written
            .split(',')
            .map(|part| part.parse().unwrap())
            .collect()
    }

    fn shown(ranges: &[PortRange]) -> String {
        let ranges: Vec<String> = ranges.iter().map(PortRange::to_string).collect();
        ranges.join(",")
    }

    #[test]
    fn ports_that_overlap_or_touch_become_one_range() {
        let merged = PortRange::merged(&ports("90,80-85,84-88,89,22,65535,65000-65535"));
        assert_eq!(shown(&merged), "22,80-90,65000-65535");
    }

    #[test]
    fn what_is_not_a_range_is_refused() {
        for written in ["", "0", "80-", "90-80", "65536", "http", "1-2-3"] {
            assert!(written.parse::<PortRange>().is_err(), "{written}");
        }
        for written in [
            "",
            "*",
            "a b",
            "eth0\"",
            "a-name-far-too-long",
            "eth0;",
            "a*b",
        ] {
            assert!(written.parse::<Interface>().is_err(), "{written}");
        }
    }
}
