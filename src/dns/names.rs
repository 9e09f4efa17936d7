use std::collections::HashMap;
use std::net::Ipv4Addr;

use crate::model::{self, VirtualAddresses};

/// The names of the mesh at one moment.
#[derive(Default, Debug)]
pub struct Names {
    /// In lower case. One without an address is no host, but the parent of hosts.
    hosts: HashMap<Box<str>, Option<Ipv4Addr>>,
    /// False until the mesh is known: so long nothing in its domain can be denied.
    known: bool,
}

/// What a name is here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    Address(Ipv4Addr),
    /// It exists, and has no address.
    Parent,
    /// It would be of the mesh, and is not.
    Nobody,
    /// It may be of the mesh, which is not known yet.
    Unknown,
    /// It is not ours to say.
    Elsewhere,
}

impl Names {
    /// Of all services, as they are called from a namespace.
    pub fn new(addresses: &VirtualAddresses, namespace: &str) -> Self {
        let mut hosts = HashMap::from([(model::Name::MESH_DOMAIN.into(), None)]);
        for (service, address) in addresses.iter() {
            let namespace_host = format!("{}.{}", service.namespace, model::Name::MESH_DOMAIN);
            let parent = namespace_host.to_ascii_lowercase().into_boxed_str();
            hosts.entry(parent).or_insert(None);
            for host in service.hosts(namespace) {
                hosts.insert(host, Some(address));
            }
        }
        Self { hosts, known: true }
    }

    /// What a name is, in lower case and without the dot at its end.
    pub fn find(&self, name: &str) -> Found {
        match self.hosts.get(name) {
            Some(Some(address)) => Found::Address(*address),
            Some(None) => Found::Parent,
            None if !is_in_mesh(name) && !self.has_search_domain(name) => Found::Elsewhere,
            None if self.known => Found::Nobody,
            None => Found::Unknown,
        }
    }

    /// Whether it is a full name that a resolver has appended a search domain to. Denied at once, the resolver goes on to
    /// the name itself, and nobody else is asked for what cannot be theirs.
    fn has_search_domain(&self, name: &str) -> bool {
        const END: &str = ".mesh";
        let ends = name.match_indices(".mesh.");
        ends.map(|(place, _)| &name[..place + END.len()])
            .any(|host| matches!(self.hosts.get(host), Some(Some(_))))
    }
}

fn is_in_mesh(name: &str) -> bool {
    let parent = name.strip_suffix(model::Name::MESH_DOMAIN);
    parent.is_some_and(|parent| parent.is_empty() || parent.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::model::Name;

    #[test]
    fn a_service_is_found_by_all_its_names_and_nothing_else_of_the_mesh_is() {
        let mut addresses = VirtualAddresses::default();
        let services = [Name::new("shop", "cart"), Name::new("office", "desk")];
        addresses.assign(&HashSet::from(services));
        let names = Names::new(&addresses, "shop");
        let found = |name| names.find(name);
        let cart = found("cart.shop.mesh");
        assert!(matches!(cart, Found::Address(_)));
        for name in ["cart", "cart.shop", "cart.shop.svc.cluster.local"] {
            assert_eq!(found(name), cart, "{name}");
        }
        assert!(matches!(found("desk.office"), Found::Address(_)));
        for (name, expected) in [
            ("desk", Found::Elsewhere),
            ("mesh", Found::Parent),
            ("shop.mesh", Found::Parent),
            ("till.shop.mesh", Found::Nobody),
            ("a.cart.shop.mesh", Found::Nobody),
            ("cart.shop.mesh.corp.example", Found::Nobody),
            ("cart.shop.mesh.a.mesh.example", Found::Nobody),
            ("till.shop.mesh.corp.example", Found::Elsewhere),
            ("cart.corp.example", Found::Elsewhere),
            ("intermesh", Found::Elsewhere),
            ("", Found::Elsewhere),
        ] {
            assert_eq!(found(name), expected, "{name}");
        }
    }

    #[test]
    fn before_the_mesh_is_known_nothing_in_its_domain_is_denied() {
        let names = Names::default();
        assert_eq!(names.find("cart.shop.mesh"), Found::Unknown);
        assert_eq!(names.find("mesh"), Found::Unknown);
        assert_eq!(names.find("cart"), Found::Elsewhere);
    }
}
