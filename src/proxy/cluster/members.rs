//! Which endpoints of a service belong to a cluster, and the set they make with their live figures.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Shared;
use super::endpoint::Endpoint;
use super::health::Health;
use crate::model::{self, Address, ClusterKey, Service, Subset};

/// An endpoint with the address it stands for just now.
#[derive(Clone, Debug)]
pub struct Member {
    pub address: SocketAddr,
    pub endpoint: model::Endpoint,
    /// What its health checks say; None where it is not checked.
    pub health: Option<Arc<Health>>,
}

/// The endpoints that carry the subset's labels and serve the port, if the key asks for these.
///
/// An endpoint that names no port serves every port of its service. A subset that the service does not have has no members.
pub fn members(
    service: &Service,
    endpoints: &[model::Endpoint],
    key: &ClusterKey,
) -> Vec<model::Endpoint> {
    let subset = match &key.subset {
        None => None,
        Some(name) => match service.subsets.iter().find(|subset| subset.name == *name) {
            None => return Vec::new(),
            found => found,
        },
    };
    endpoints
        .iter()
        .filter(|endpoint| serves(endpoint, key.port) && belongs(endpoint, subset))
        .cloned()
        .collect()
}

fn serves(endpoint: &model::Endpoint, port: Option<u16>) -> bool {
    match (endpoint.port, port) {
        (Some(serves), Some(asked)) => serves == asked,
        _ => true,
    }
}

fn belongs(endpoint: &model::Endpoint, subset: Option<&Subset>) -> bool {
    subset.is_none_or(|subset| {
        subset
            .labels
            .iter()
            .all(|(name, value)| endpoint.labels.get(name) == Some(value))
    })
}

/// Endpoints whose addresses need no resolving. Named ones are left out: [`super::resolve`] brings their addresses.
pub(super) fn resolved(endpoints: Vec<model::Endpoint>) -> Vec<Member> {
    endpoints
        .into_iter()
        .filter_map(|endpoint| match endpoint.address {
            Address::Socket(address) => Some(Member {
                address,
                endpoint,
                health: None,
            }),
            Address::Name { .. } => None,
        })
        .collect()
}

/// All endpoints of a cluster at one time, in the order they were given.
#[derive(Default, Debug)]
pub struct EndpointSet {
    pub endpoints: Vec<Arc<Endpoint>>,
}

impl EndpointSet {
    /// The set of these members; what is known of an address in `self` goes on. Of several members with one address the first
    /// counts. None where nothing would change.
    pub(super) fn with(&self, members: Vec<Member>, shared: &Arc<Shared>) -> Option<EndpointSet> {
        let mut known: HashMap<SocketAddr, &Arc<Endpoint>> = self
            .endpoints
            .iter()
            .map(|endpoint| (endpoint.address, endpoint))
            .collect();
        let mut seen = std::collections::HashSet::with_capacity(members.len());
        let endpoints: Vec<Arc<Endpoint>> = members
            .into_iter()
            .filter(|member| seen.insert(member.address))
            .map(|member| match known.remove(&member.address) {
                Some(endpoint) if endpoint.is_as(&member) => endpoint.clone(),
                Some(endpoint) => Arc::new(endpoint.described(member)),
                None => Arc::new(Endpoint::new(member, shared)),
            })
            .collect();
        for endpoint in known.values() {
            endpoint.retire();
        }
        let unchanged = endpoints.len() == self.endpoints.len()
            && std::iter::zip(&endpoints, &self.endpoints).all(|(new, old)| Arc::ptr_eq(new, old));
        (!unchanged).then_some(EndpointSet { endpoints })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::Name;
    use crate::proxy::cluster::testing::{endpoint, service};

    fn key(subset: Option<&str>, port: Option<u16>) -> ClusterKey {
        ClusterKey {
            service: Name::local("reviews"),
            subset: subset.map(Into::into),
            port,
        }
    }

    fn labelled(port: u16, version: &str) -> model::Endpoint {
        let labels = BTreeMap::from([("version".into(), version.into())]);
        model::Endpoint {
            labels: Arc::new(labels),
            ..endpoint(port)
        }
    }

    fn with_subset() -> Service {
        Service {
            subsets: vec![Subset {
                name: "v2".into(),
                labels: BTreeMap::from([("version".into(), "v2".into())]),
            }],
            ..service()
        }
    }

    #[test]
    fn a_subset_has_the_endpoints_with_its_labels() {
        let endpoints = [labelled(1, "v1"), labelled(2, "v2"), endpoint(3)];
        let found = members(&with_subset(), &endpoints, &key(Some("v2"), None));
        assert_eq!(found, [labelled(2, "v2")]);
    }

    #[test]
    fn a_subset_that_the_service_does_not_have_is_empty() {
        let found = members(&with_subset(), &[labelled(1, "v1")], &key(Some("v9"), None));
        assert!(found.is_empty());
    }

    #[test]
    fn a_port_leaves_out_endpoints_that_serve_another() {
        let serving = |address, port| model::Endpoint {
            port,
            ..endpoint(address)
        };
        let endpoints = [
            serving(1, Some(80)),
            serving(2, Some(9090)),
            serving(3, None),
        ];
        let ports = |key: &ClusterKey| members(&service(), &endpoints, key).len();
        assert_eq!(ports(&key(None, Some(80))), 2);
        assert_eq!(ports(&key(None, None)), 3);
    }
}
