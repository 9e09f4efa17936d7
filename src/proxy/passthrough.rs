//! Destinations that are one address, not of the mesh or of one instance in it: each is a small cluster of its own, kept
//! while it is used.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cluster::Cluster;
use super::destination::{Destination, Security};
use super::failure::{ConnectError, Failure};
use super::settings::Settings;
use crate::model::{Address, Circuit, ClusterKey, Endpoint, Name, Outlier, Protocol, Service};

/// Destinations kept by a worker; beyond it, all are forgotten and made again as they are needed.
const DESTINATIONS_MAX: usize = 1024;
const NAMES_MAX: usize = 1024;
/// How long an address of an outside name is used before it is asked for again.
const NAME_TTL: Duration = Duration::from_secs(30);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Default)]
pub struct Passthrough {
    destinations: RefCell<HashMap<SocketAddr, Arc<Destination>>>,
    /// Instances, each with the destination of its service that it was made from.
    instances: RefCell<HashMap<SocketAddr, [Arc<Destination>; 2]>>,
    names: RefCell<HashMap<Box<str>, (SocketAddr, Instant)>>,
}

impl Passthrough {
    pub fn at(&self, address: SocketAddr, settings: &Settings) -> Arc<Destination> {
        let mut destinations = self.destinations.borrow_mut();
        if let Some(destination) = destinations.get(&address) {
            return destination.clone();
        }
        if destinations.len() >= DESTINATIONS_MAX {
            destinations.clear();
        }
        let destination = Arc::new(single(
            "passthrough",
            address,
            None,
            settings.passthrough_connect_timeout,
        ));
        destinations.insert(address, destination.clone());
        destination
    }

    /// One instance of a service, spoken to as the service says.
    pub fn instance(&self, service: &Arc<Destination>, address: SocketAddr) -> Arc<Destination> {
        let mut instances = self.instances.borrow_mut();
        if let Some([of, destination]) = instances.get(&address)
            && Arc::ptr_eq(of, service)
        {
            return destination.clone();
        }
        if instances.len() >= DESTINATIONS_MAX {
            instances.clear();
        }
        let destination = Arc::new(Destination {
            cluster: one_endpoint(service.cluster.key.service.clone(), address),
            hashing: None,
            ..Destination::clone(service)
        });
        instances.insert(address, [service.clone(), destination.clone()]);
        destination
    }

    /// The address of a name outside the mesh, asked for on a thread of its own.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<SocketAddr, Failure> {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(SocketAddr::new(address, port));
        }
        let key = format!("{host}:{port}").into_boxed_str();
        if let Some((address, until)) = self.names.borrow().get(&key)
            && Instant::now() < *until
        {
            return Ok(*address);
        }
        let failed = |reason: String| Failure::ConnectFailed {
            endpoint: key.to_string(),
            error: ConnectError::Io(reason),
        };
        let found =
            tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((host, port))).await;
        let address = match found {
            Ok(Ok(mut addresses)) => addresses
                .next()
                .ok_or_else(|| failed("the name has no address".into()))?,
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(_) => return Err(failed("the name server did not answer".into())),
        };
        let mut names = self.names.borrow_mut();
        if names.len() >= NAMES_MAX {
            names.clear();
        }
        names.insert(key, (address, Instant::now() + NAME_TTL));
        Ok(address)
    }
}

/// A destination with one endpoint.
pub fn single(
    name: &str,
    address: SocketAddr,
    protocol: Option<Protocol>,
    connect_timeout: Duration,
) -> Destination {
    Destination {
        failover: None,
        hashing: None,
        gray: None,
        cluster: one_endpoint(Name::new("", name), address),
        label: name.into(),
        protocol,
        security: Security::Plain,
        connect_timeout,
        lane: None,
        series: Arc::default(),
    }
}

/// A cluster without ejection, since there is nothing else to go to.
fn one_endpoint(name: Name, address: SocketAddr) -> Arc<Cluster> {
    let service = Arc::new(Service {
        outlier: Outlier::none(),
        circuit: Circuit {
            endpoint_connections_max: Circuit::default().connections_max,
            ..Circuit::default()
        },
        ..Service::new(name)
    });
    let key = ClusterKey {
        service: service.name.clone(),
        subset: None,
        port: None,
    };
    let cluster = Cluster::new(key, &service, None);
    cluster.set_endpoints(vec![Endpoint::new(Address::Socket(address))]);
    cluster
}
