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
        let (address, prefix) = match written.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (written, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| wrong())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.trim().parse().map_err(|_| wrong())?,
            None => bits,
        };
        if prefix > bits {
            return Err(wrong());
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
            "/8",
        ] {
            assert!(written.parse::<Cidr>().is_err(), "{written}");
        }
    }

    #[test]
    fn the_whole_address_space_is_a_network() {
        assert_eq!(shown(&networks("0.0.0.0/0,::/0")), "0.0.0.0/0,::/0");
    }
}
