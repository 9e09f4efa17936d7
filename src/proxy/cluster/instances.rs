//! Which service an endpoint's address belongs to, for connections that were made to the address itself.
//!
//! The request path asks only where no host name says it; the control thread changes one service at a time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{PoisonError, RwLock};

use smallvec::SmallVec;

use crate::model::Name;

#[derive(Default, Debug)]
pub struct Instances {
    table: RwLock<Table>,
}

#[derive(Default, Debug)]
struct Table {
    /// Almost always one; of several, the first in order counts.
    owners: HashMap<SocketAddr, SmallVec<[Owner; 1]>>,
    addresses: HashMap<Name, Box<[SocketAddr]>>,
}

/// The service of an instance, and its port that the address serves; None serves every port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Owner {
    pub service: Name,
    pub port: Option<u16>,
}

impl Instances {
    pub fn find(&self, address: SocketAddr) -> Option<Owner> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.owners.get(&address)?.first().cloned()
    }

    /// All addresses of a service from now on, with the ports they serve.
    pub(super) fn set(&self, service: &Name, instances: &[(SocketAddr, Option<u16>)]) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.forget(service);
        if instances.is_empty() {
            return;
        }
        let addresses = instances.iter().map(|(address, _)| *address).collect();
        table.addresses.insert(service.clone(), addresses);
        for (address, port) in instances {
            let owners = table.owners.entry(*address).or_default();
            owners.push(Owner {
                service: service.clone(),
                port: *port,
            });
            owners.sort_unstable();
        }
    }
}

impl Table {
    fn forget(&mut self, service: &Name) {
        for address in self.addresses.remove(service).unwrap_or_default() {
            let Some(owners) = self.owners.get_mut(&address) else {
                continue;
            };
            owners.retain(|owner| owner.service != *service);
            if owners.is_empty() {
                self.owners.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_belongs_to_whoever_has_it_last_said_so() {
        let [first, second] = ["10.0.0.1:80", "10.0.0.2:80"].map(|a| a.parse().unwrap());
        let (cart, till) = (Name::local("cart"), Name::local("till"));
        let instances = Instances::default();
        let owner = |address| {
            instances
                .find(address)
                .map(|owner| (owner.service, owner.port))
        };
        instances.set(&till, &[(first, None), (second, None)]);
        instances.set(&cart, &[(first, Some(8080))]);
        assert_eq!(owner(first), Some((cart.clone(), Some(8080))));
        assert_eq!(owner(second), Some((till.clone(), None)));
        instances.set(&cart, &[]);
        assert_eq!(owner(first), Some((till.clone(), None)));
        instances.set(&till, &[(second, None)]);
        assert_eq!((owner(first), owner(second)), (None, Some((till, None))));
    }
}
