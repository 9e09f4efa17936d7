//! Where a connection goes by the address it was made to, when no host name says it: a virtual address is its service, an
//! instance's own address that instance, and anything else the outside world.
//!
//! Whoever dials one instance means that one (a shard, a leader, a peer), so it is not balanced away; it counts as traffic of
//! its service and is spoken to as its service says. A virtual address that no service has any more is refused: there
//! is nobody behind it.

use std::net::SocketAddr;
use std::sync::Arc;

use super::destination::Destination;
use super::entry::{Mesh, ServiceHost};
use super::failure::Failure;
use super::session::Session;
use crate::model::{Protocol, is_virtual};
use crate::telemetry::metrics::RequestSeries;

/// A destination, and where its requests are counted.
pub type Found = (Arc<Destination>, Arc<RequestSeries>);

/// The destination of bytes: at exactly the port that was dialled.
pub fn opaque(session: &Session, mesh: &Mesh, address: SocketAddr) -> Result<Found, Failure> {
    match mesh.virtual_host(address.ip()) {
        Some(host) => match host.exactly(address.port()) {
            Some(destination) => Ok((destination.clone(), host.requests.clone())),
            None => Err(Failure::NotRegistered),
        },
        None => elsewhere(session, mesh, address),
    }
}

/// The destination of a request whose host is nobody's; its service has more ways to choose the port.
pub fn http(session: &Session, mesh: &Mesh, address: SocketAddr) -> Result<Found, Failure> {
    match mesh.virtual_host(address.ip()) {
        Some(host) => {
            let destination = host.at(Some(address.port())).clone();
            Ok((destination, host.requests.clone()))
        }
        None => elsewhere(session, mesh, address),
    }
}

fn elsewhere(session: &Session, mesh: &Mesh, address: SocketAddr) -> Result<Found, Failure> {
    if is_virtual(address.ip()) {
        return Err(Failure::NotRegistered);
    }
    let passthrough = &session.worker.passthrough;
    if let Some((host, service)) = instance(mesh, address) {
        let destination = passthrough.instance(service, address);
        return Ok((destination, host.requests.clone()));
    }
    if !mesh.passthrough {
        return Err(Failure::NotRegistered);
    }
    let destination = passthrough.at(address, &session.worker.settings);
    Ok((destination, mesh.requests.unrouted().clone()))
}

/// The service that an address is an instance of, and its destination at the port that the instance serves.
fn instance(mesh: &Mesh, address: SocketAddr) -> Option<(&ServiceHost, &Arc<Destination>)> {
    let owner = mesh.instances.find(address)?;
    let host = mesh.services.get(&*owner.service.full_host())?;
    Some((host, host.at(owner.port)))
}

/// Whether the service at an address is declared to speak something that is not HTTP, so that its bytes are not looked at.
pub fn is_declared_opaque(mesh: &Mesh, address: SocketAddr) -> bool {
    let destination = match mesh.virtual_host(address.ip()) {
        Some(host) => host.exactly(address.port()),
        None => instance(mesh, address).map(|(_, destination)| destination),
    };
    destination.is_some_and(|destination| destination.protocol == Some(Protocol::Tcp))
}
