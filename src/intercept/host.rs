//! What the kernel says of this network namespace in /proc: its interfaces and whether it has IPv6.

use super::error::InterceptError;
use super::ranges::Interface;

/// Whether any interface has an IPv6 address; without, rules and routes for IPv6 can be impossible and mean nothing.
pub fn has_ipv6() -> bool {
    std::fs::read_to_string("/proc/self/net/if_inet6")
        .is_ok_and(|addresses| !addresses.trim().is_empty())
}

/// Refuses an interface that is not there: a rule for it would silently leave nothing alone.
pub fn expect_interfaces(wanted: &[Interface]) -> Result<(), InterceptError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let listing =
        std::fs::read_to_string("/proc/self/net/dev").map_err(|error| InterceptError::Io {
            doing: "reading the interfaces in /proc".to_owned(),
            error,
        })?;
    match missing(wanted, &interfaces(&listing)) {
        None => Ok(()),
        Some(name) => {
            let known = interfaces(&listing).join(", ");
            Err(InterceptError::UnknownInterface(name.to_owned(), known))
        }
    }
}

fn missing<'a>(wanted: &'a [Interface], known: &[&str]) -> Option<&'a str> {
    let stems = wanted.iter().map(Interface::stem);
    let mut names = stems
        .filter(|(_, is_beginning)| !is_beginning)
        .map(|(name, _)| name);
    names.find(|name| !known.contains(name))
}

/// The names in `/proc/net/dev`, below its two lines of headings.
fn interfaces(listing: &str) -> Vec<&str> {
    let lines = listing.lines().skip(2);
    lines
        .filter_map(|line| Some(line.split_once(':')?.0.trim()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intercept::rules::testing::parsed;

    #[test]
    fn an_interface_is_missing_unless_it_is_there_or_a_beginning() {
        let listing = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets
    lo:   84       1    0    0    0     0          0         0       84       1
  eth0: 1070      13    0    0    0     0          0         0     1070      13
";
        let known = interfaces(listing);
        assert_eq!(known, ["lo", "eth0"]);
        assert_eq!(missing(&parsed("eth0,docker*"), &known), None);
        assert_eq!(missing(&parsed("eth0,eth1"), &known), Some("eth1"));
    }
}
