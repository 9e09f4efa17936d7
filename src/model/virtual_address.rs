//! The address that a service is dialled by on this machine: what its sidecar's name server answers, and where its
//! redirected connections say they were going. It is an address of nobody, and no packet leaves the machine with it.
//!
//! **The rule.** A service's address is made of its full name alone: the CRC-32 of `cart.shop.mesh`, folded onto the hosts
//! of 240.0.0.0/8 that do not end in 0 or 255. So every sidecar comes to the same one, after every restart, without asking
//! anybody. Where two names fold onto one host, the first in alphabetical order has it, and the other takes the next that is
//! free: of 10,000 services that is a handful, of 100 hardly ever one. A service that comes later never takes an address
//! away from one that this process knows, since programs keep addresses far longer than they may and would reach the wrong
//! service. The price: after a restart, such a pair may have changed places, and two sidecars may see it the other way
//! round. That harms nobody who asks again, as an address means something only to the sidecar that gave it.
//!
//! IPv4 only: one family reaches every service, and a program that finds no IPv6 address takes IPv4 at once.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use super::Name;

/// The network of all virtual addresses: reserved (RFC 1112, section 4), in use nowhere, and good for Linux.
pub const VIRTUAL_NETWORK: Ipv4Addr = Ipv4Addr::new(240, 0, 0, 0);
pub const VIRTUAL_PREFIX: u8 = 8;

/// Those of the network that do not end in 0 or 255, which some programs take for the address of a network.
const HOSTS: u32 = (1 << 16) * HOSTS_PER_BYTE;
const HOSTS_PER_BYTE: u32 = 254;

/// Which service has which virtual address.
#[derive(Clone, Default, Debug)]
pub struct VirtualAddresses {
    addresses: HashMap<Name, Ipv4Addr>,
    services: HashMap<Ipv4Addr, Name>,
}

impl VirtualAddresses {
    /// Has addresses for exactly these services from now on. One that it had already keeps its own.
    pub fn assign(&mut self, services: &HashSet<Name>) {
        self.addresses.retain(|name, _| services.contains(name));
        self.services.retain(|_, name| services.contains(name));
        let is_new = |name: &&Name| !self.addresses.contains_key(*name);
        let mut new: Vec<&Name> = services.iter().filter(is_new).collect();
        new.sort_unstable();
        for name in new {
            self.add(name);
        }
    }

    pub fn of(&self, service: &Name) -> Option<Ipv4Addr> {
        self.addresses.get(service).copied()
    }

    /// Every service with its address, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, Ipv4Addr)> {
        self.addresses
            .iter()
            .map(|(name, address)| (name, *address))
    }

    /// The first free address from where the name's own is; none only where all 16 million are taken.
    fn add(&mut self, name: &Name) {
        let own = crc32fast::hash(name.full_host().as_bytes()) % HOSTS;
        let mut candidates = (0..HOSTS).map(|step| host((own + step) % HOSTS));
        if let Some(free) = candidates.find(|address| !self.services.contains_key(address)) {
            self.services.insert(free, name.clone());
            self.addresses.insert(name.clone(), free);
        }
    }
}

/// Whether an address is one that only a sidecar gives a meaning to.
pub fn is_virtual(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.octets()[0] == VIRTUAL_NETWORK.octets()[0],
        IpAddr::V6(_) => false,
    }
}

fn host(number: u32) -> Ipv4Addr {
    let (middle, last) = (number / HOSTS_PER_BYTE, number % HOSTS_PER_BYTE + 1);
    Ipv4Addr::from_bits(VIRTUAL_NETWORK.to_bits() | middle << 8 | last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services<'a>(names: impl IntoIterator<Item = &'a str>) -> HashSet<Name> {
        names
            .into_iter()
            .map(|name| Name::new("shop", name))
            .collect()
    }

    fn assigned(services: &HashSet<Name>) -> VirtualAddresses {
        let mut addresses = VirtualAddresses::default();
        addresses.assign(services);
        addresses
    }

    fn address(addresses: &VirtualAddresses, name: &str) -> Option<Ipv4Addr> {
        addresses.of(&Name::new("shop", name))
    }

    #[test]
    fn an_address_follows_from_the_name_alone() {
        // Python: n = zlib.crc32(b"cart.shop.mesh") % (65536 * 254); 240, n // 254 >> 8, n // 254 & 255, n % 254 + 1
        let expected = Some(Ipv4Addr::new(240, 170, 48, 204));
        assert_eq!(address(&assigned(&services(["cart"])), "cart"), expected);
        let among_others = assigned(&services(["a", "b", "cart", "z"]));
        assert_eq!(address(&among_others, "cart"), expected);
    }

    #[test]
    fn ten_thousand_services_have_addresses_of_their_own_and_few_of_them_need_a_second_choice() {
        let names: HashSet<Name> = (0..10_000)
            .map(|number| {
                Name::new(
                    &format!("team-{}", number % 37),
                    &format!("service-{number}"),
                )
            })
            .collect();
        let addresses = assigned(&names);
        assert_eq!(addresses.services.len(), 10_000);
        let moved = addresses.iter().filter(|(name, address)| {
            let own = crc32fast::hash(name.full_host().as_bytes()) % HOSTS;
            *address != host(own)
        });
        assert!(moved.count() < 20);
        let last = |address: &Ipv4Addr| address.octets()[3];
        assert!(
            addresses
                .services
                .keys()
                .all(|host| !matches!(last(host), 0 | 255))
        );
        assert!(
            addresses
                .services
                .keys()
                .all(|host| is_virtual(IpAddr::V4(*host)))
        );
    }

    /// Two names that fold onto one host.
    fn rivals() -> (String, String) {
        let mut seen = HashMap::new();
        for number in 0..200_000 {
            let name = format!("s{number}");
            let own = crc32fast::hash(Name::new("shop", &name).full_host().as_bytes()) % HOSTS;
            if let Some(rival) = seen.insert(own, name.clone()) {
                let mut pair = [rival, name];
                pair.sort();
                let [first, second] = pair;
                return (first, second);
            }
        }
        panic!("200,000 names on 16 million hosts, and no two alike");
    }

    #[test]
    fn a_service_that_comes_later_takes_no_address_away() {
        let (first, second) = rivals();
        let together = assigned(&services([&*first, &*second]));
        let own = address(&together, &first);
        assert_ne!(own, address(&together, &second));

        let mut addresses = assigned(&services([&*second]));
        assert_eq!(address(&addresses, &second), own);
        addresses.assign(&services([&*first, &*second]));
        assert_eq!(address(&addresses, &second), own);
        assert_ne!(address(&addresses, &first), own);

        addresses.assign(&services([&*first]));
        assert_eq!(address(&addresses, &second), None);
        assert_eq!(addresses.services.len(), 1);
    }

    #[test]
    fn the_ends_of_the_network_are_hosts_of_it() {
        assert_eq!(host(0), Ipv4Addr::new(240, 0, 0, 1));
        assert_eq!(host(HOSTS - 1), Ipv4Addr::new(240, 255, 255, 254));
        assert!(!is_virtual([239, 255, 255, 254].into()));
        assert!(!is_virtual([241, 0, 0, 1].into()));
        assert!(is_virtual("::ffff:240.0.0.1".parse().unwrap()));
    }
}
