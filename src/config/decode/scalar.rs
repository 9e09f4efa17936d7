//! Single values: text, numbers, switches, choices, quantities, addresses.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};

use super::{Cursor, closest};
use crate::base::cidr::{Cidr, CidrError};
use crate::base::units::{self, UnitError};
use crate::config::yaml::Value;

/// Longest regular expression as compiled, in bytes; a longer one would cost every worker that much memory.
const REGEX_BYTES_MAX: usize = 1 << 20;

impl<'a> Cursor<'a> {
    /// Any single value as it is written, quoted or not.
    pub fn text(self) -> Option<&'a str> {
        match &self.node.value {
            Value::Scalar { text, .. } => Some(text),
            _ => self.error(format!("expected a text, found {}", self.node.what()), ""),
        }
    }

    pub fn owned_text(self) -> Option<Arc<str>> {
        self.text().map(Arc::from)
    }

    pub fn filled_text(self) -> Option<&'a str> {
        match self.text()? {
            "" => self.error("must not be empty", ""),
            text => Some(text),
        }
    }

    pub fn path(self) -> Option<PathBuf> {
        self.filled_text().map(PathBuf::from)
    }

    pub fn boolean(self) -> Option<bool> {
        match self.text()? {
            "true" => Some(true),
            "false" => Some(false),
            "yes" | "on" | "Yes" | "On" | "True" | "1" => {
                self.error("expected true or false", "did you mean true?")
            }
            "no" | "off" | "No" | "Off" | "False" | "0" => {
                self.error("expected true or false", "did you mean false?")
            }
            _ => self.error("expected true or false", ""),
        }
    }

    pub fn integer(self, range: RangeInclusive<u64>) -> Option<u64> {
        let text = self.text()?;
        let (least, most) = (range.start(), range.end());
        match text.parse::<u64>() {
            Ok(number) if range.contains(&number) => Some(number),
            Ok(number) => self.error(
                format!("{number} is out of range"),
                format!("write {least} to {most}"),
            ),
            Err(_) => self.error(
                format!("`{text}` is not a whole number"),
                format!("write {least} to {most}"),
            ),
        }
    }

    /// A number that need not be whole.
    pub fn decimal(self, range: RangeInclusive<f64>) -> Option<f64> {
        let text = self.text()?;
        let hint = format!("write {} to {}", range.start(), range.end());
        match text.parse::<f64>() {
            Ok(number) if range.contains(&number) => Some(number),
            Ok(number) if number.is_finite() => {
                self.error(format!("{number} is out of range"), hint)
            }
            _ => self.error(format!("`{text}` is not a number"), hint),
        }
    }

    /// An integer that fits the type it is for.
    pub fn number<N: TryFrom<u64>>(self, range: RangeInclusive<u64>) -> Option<N> {
        N::try_from(self.integer(range)?).ok()
    }

    pub fn port(self) -> Option<u16> {
        self.number(1..=65_535)
    }

    pub fn duration(self) -> Option<Duration> {
        self.quantity(units::parse_duration)
    }

    /// A duration where zero makes no sense.
    pub fn nonzero_duration(self) -> Option<Duration> {
        let duration = self.duration()?;
        if duration.is_zero() {
            return self.error("must be longer than 0", "");
        }
        Some(duration)
    }

    pub fn size(self) -> Option<u64> {
        self.quantity(units::parse_size)
    }

    pub fn percent(self) -> Option<f64> {
        self.quantity(units::parse_percent)
    }

    pub fn whole_percent(self) -> Option<u8> {
        let percent = self.percent()?;
        if percent.fract() != 0.0 {
            return self.error(format!("{percent}% is not a whole percentage"), "");
        }
        Some(percent as u8)
    }

    fn quantity<T>(self, parse: impl FnOnce(&str) -> Result<T, UnitError>) -> Option<T> {
        match parse(self.text()?) {
            Ok(value) => Some(value),
            Err(error) => self.error(error.message, error.hint),
        }
    }

    /// One of a closed set of words.
    pub fn choice<T: Copy>(self, choices: &[(&'static str, T)]) -> Option<T> {
        let text = self.text()?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let words = || choices.iter().map(|(word, _)| *word);
        let hint = match closest(text, words()) {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("one of {}", words().collect::<Vec<_>>().join(", ")),
        };
        self.error(format!("`{text}` is not known here"), hint)
    }

    /// A regular expression that must match the whole text.
    pub fn regex(self) -> Option<Regex> {
        let text = self.text()?;
        // By itself first: `a)|(?:b` would get out of the anchors.
        match bounded(text).and_then(|_| bounded(&format!(r"\A(?:{text})\z"))) {
            Ok(regex) => Some(regex),
            Err(regex::Error::CompiledTooBig(_)) => self.error(
                "the regular expression is too large",
                format!("at most {REGEX_BYTES_MAX} bytes when compiled; use smaller repetitions"),
            ),
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default();
                let reason = reason.trim_start_matches("error: ");
                let hint = "RE2 syntax, without look-around and back-references";
                self.error(format!("not a regular expression: {reason}"), hint)
            }
        }
    }

    pub fn ip_address(self) -> Option<IpAddr> {
        let text = self.text()?;
        match text.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(address) => Some(address),
            Err(_) => self.error(
                format!("`{text}` is not an IP address"),
                "such as 0.0.0.0 or ::1",
            ),
        }
    }

    /// `10.0.0.0/8`, `fd00::/8`, or a single address.
    pub fn network(self) -> Option<Cidr> {
        let text = self.text()?;
        match text.parse() {
            Ok(network) => Some(network),
            Err(CidrError::Network(_)) => self.error(
                format!("`{text}` is not a network"),
                "such as 10.0.0.0/8, fd00::/8 or a single address",
            ),
            Err(CidrError::HostBits { meant, .. }) => self.error(
                format!("`{text}` has bits set beyond its prefix"),
                format!("did you mean {meant}?"),
            ),
            Err(CidrError::Mapped { meant, .. }) => self.error(
                format!("`{text}` is an IPv4 network written as IPv6"),
                format!("did you mean {meant}?"),
            ),
        }
    }

    /// `127.0.0.1:15001` or `[::1]:15001`; a bare `:15001` is every address of the machine.
    pub fn socket_address(self) -> Option<SocketAddr> {
        let text = self.text()?;
        let full = match text.strip_prefix(':') {
            Some(port) => format!("0.0.0.0:{port}"),
            None => text.to_owned(),
        };
        match full.parse() {
            Ok(address) => Some(address),
            Err(_) => self.error(
                format!("`{text}` is not an address with a port"),
                "such as 127.0.0.1:8080 or [::1]:8080",
            ),
        }
    }
}

fn bounded(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern)
        .size_limit(REGEX_BYTES_MAX)
        .build()
}
