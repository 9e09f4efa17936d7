//! What the tests of this folder share.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::Cluster;
use crate::model::{self, Address, Balance, ClusterKey, Name, Policy, Service};

/// 10.0.0.1 at this port, weight 1.
pub fn endpoint(port: u16) -> model::Endpoint {
    model::Endpoint::new(Address::Socket(address(port)))
}

pub fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::new(10, 0, 0, 1), port).into()
}

pub fn service() -> Service {
    Service::new(Name::local("reviews"))
}

pub fn with_policy(policy: Policy) -> Service {
    Service {
        balance: Balance {
            policy,
            ..Balance::default()
        },
        ..service()
    }
}

pub fn key() -> ClusterKey {
    ClusterKey {
        service: Name::local("reviews"),
        subset: None,
        port: None,
    }
}

/// A cluster of endpoints at the ports 1 to `count`.
pub fn cluster(service: Service, count: u16) -> Arc<Cluster> {
    let cluster = Cluster::new(key(), &Arc::new(service), None);
    cluster.set_endpoints((1..=count).map(endpoint).collect());
    cluster
}
