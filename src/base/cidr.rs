//! Networks as an operator writes them: `10.0.0.0/8`, `fd00::/8`, or a single address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

/// What is wrong with a network, and what to write instead.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum CidrError {
    #[error("`{0}` is not a network; write one like 10.0.0.0/8, fd00::/8 or a single address")]
    Network(String),
    #[error("`{written}` has bits set beyond its prefix; did you mean {meant}?")]
    HostBits { written: String, meant: Cidr },
    #[error("`{written}` is an IPv4 network written as IPv6; did you mean {meant}?")]
    Mapped { written: String, meant: Cidr },
}

/// A network: an address whose bits beyond the prefix are zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// The network of this prefix length around an address.
    fn around(address: IpAddr, prefix: u8) -> Self {
        let address = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
        };
        Cidr { address, prefix }
    }

    pub fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// Whether every address of `other` is in this network.
    pub fn contains(&self, other: &Cidr) -> bool {
        self.is_ipv4() == other.is_ipv4()
            && self.prefix <= other.prefix
            && Cidr::around(other.address, self.prefix) == *self
    }

    /// Whether the address is in this network. An IPv4 client of an IPv6 socket counts as what it is, IPv4.
    pub fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.is_ipv4() && Cidr::around(address, self.prefix) == *self
    }

    /// The same addresses without networks that lie in another one: nft refuses overlapping elements.
    pub fn merged(networks: &[Cidr]) -> Vec<Cidr> {
        let mut sorted = networks.to_vec();
        sorted.sort_unstable();
        let mut merged: Vec<Cidr> = Vec::with_capacity(sorted.len());
        for network in sorted {
            // Sorted by address, then prefix: a network comes right after the ones that contain it.
            if !merged.last().is_some_and(|last| last.contains(&network)) {
                merged.push(network);
            }
        }
        merged
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(written: &str) -> Result<Self, CidrError> {
        let wrong = || CidrError::Network(written.to_owned());
        let (address, prefix) = match written.trim().split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (written.trim(), None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix_length(prefix).ok_or_else(wrong)?,
            None => bits,
        };
        if prefix > bits {
            return Err(wrong());
        }
        let canonical = address.to_canonical();
        if canonical != address && prefix >= 96 {
            // Clients are compared as IPv4, and so would never be in it.
            return Err(CidrError::Mapped {
                written: written.to_owned(),
                meant: Cidr::around(canonical, prefix - 96),
            });
        }
        let network = Cidr::around(address, prefix);
        if network.address != address {
            return Err(CidrError::HostBits {
                written: written.to_owned(),
                meant: network,
            });
        }
        Ok(network)
    }
}

/// Digits only, and no zero in front of others.
fn prefix_length(written: &str) -> Option<u8> {
    let length = written.parse().ok()?;
    (u8::to_string(&length) == written).then_some(length)
}

impl fmt::Display for Cidr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(written: &str) -> Vec<Cidr> {
        written
            .split(',')
            .map(|part| part.parse().unwrap())
            .collect()
    }

    fn shown(networks: &[Cidr]) -> String {
        let networks: Vec<String> = networks.iter().map(Cidr::to_string).collect();
        networks.join(",")
    }

    #[test]
    fn a_network_inside_another_is_left_out() {
        let merged = Cidr::merged(&networks(
            "10.1.0.0/16,10.0.0.0/8,10.2.3.4,192.168.0.0/24,fd00::/8,fd00::1,::/0",
        ));
        assert_eq!(shown(&merged), "10.0.0.0/8,192.168.0.0/24,::/0");
    }

    #[test]
    fn a_network_with_host_bits_is_refused_with_the_one_that_was_meant() {
        let error = "10.1.2.3/8".parse::<Cidr>().unwrap_err();
        assert!(
            error.to_string().contains("did you mean 10.0.0.0/8?"),
            "{error}"
        );
    }

    #[test]
    fn what_is_not_a_network_is_refused() {
        for written in [
            "",
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0.0 /8",
            "10.0.0.0/ 8",
            "10.0.0.0/",
            "10.0.0.0/8/8",
            "010.0.0.0/8",
            "10/8",
            "[::1]",
            "localhost",
            "/8",
        ] {
            assert!(written.parse::<Cidr>().is_err(), "{written}");
        }
    }

    #[test]
    fn an_ipv4_network_in_the_form_of_ipv6_is_refused_with_the_one_that_was_meant() {
        let error = "::ffff:10.0.0.0/104".parse::<Cidr>().unwrap_err();
        assert!(
            error.to_string().contains("did you mean 10.0.0.0/8?"),
            "{error}"
        );
    }

    #[test]
    fn a_network_has_the_addresses_of_its_prefix_in_either_form() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "fd00::1", true),
            ("::/0", "10.0.0.1", false),
            ("::/0", "::ffff:10.0.0.1", false),
            ("::1", "::1", true),
            ("fd00::/8", "fe00::1", false),
        ] {
            let network: Cidr = network.parse().unwrap();
            assert_eq!(
                network.has(address.parse().unwrap()),
                expected,
                "{network} {address}"
            );
        }
    }

    #[test]
    fn the_whole_address_space_is_a_network() {
        assert_eq!(shown(&networks("0.0.0.0/0,::/0")), "0.0.0.0/0,::/0");
    }
}
