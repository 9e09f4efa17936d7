//! One way into the proxy: a listening socket, its role, and what its requests are routed by at the moment.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::cluster::Instances;
use super::destination::Destination;
use super::lane::Lane;
use super::route::{Listeners, MeshRoutes};
use crate::identity::ServerTls;
use crate::model::{InboundMode, Name, PathNormalization};
use crate::telemetry::metrics::{ListenerRequests, RequestSeries};

/// Whose traffic a socket takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// A `Gateway` document's listeners.
    Gateway,
    /// What the application beside this proxy sends.
    Outbound,
    /// What is sent to the application beside this proxy, brought here in this way.
    Inbound(InboundMode),
}

impl Role {
    pub fn is_inbound(self) -> bool {
        matches!(self, Role::Inbound(_))
    }
}

pub struct Entry {
    pub role: Role,
    pub address: SocketAddr,
    /// Swapped as a whole when documents change; a request loads it once.
    pub routing: ArcSwap<Routing>,
    /// Swapped apart from it, since a handshake needs nothing else.
    pub tls: ArcSwap<Option<Arc<ServerTls>>>,
    /// All listeners of the socket, where TLS is passed through for some.
    pub passthrough: ArcSwap<Option<Listeners<Arc<Destination>>>>,
}

/// What the requests of one entry are routed by.
pub enum Routing {
    Gateway(Listeners<Arc<Destination>>),
    Mesh(Mesh),
    App(App),
    /// Connections whose bytes are not looked at, by the name that TLS asked for.
    Opaque(Listeners<Arc<Destination>>),
}

/// Outbound: routes first, then services by their names, then the outside world.
pub struct Mesh {
    pub routes: MeshRoutes<Arc<Destination>>,
    pub requests: ListenerRequests,
    /// `cart`, `cart.shop`, `cart.shop.mesh` and the like, in lower case.
    pub services: HashMap<Box<str>, ServiceHost>,
    /// Services by the virtual addresses that name queries were answered with.
    pub virtual_hosts: HashMap<Ipv4Addr, ServiceHost>,
    /// Services by the addresses of their endpoints; they change apart from all else here.
    pub instances: Arc<Instances>,
    /// Some service has a `path` of its own: without, nobody needs to find out which service a request is for.
    pub normalizes: bool,
    /// Destinations that are not in the mesh are passed through.
    pub passthrough: bool,
}

impl Mesh {
    /// The service that a virtual address stands for.
    pub fn virtual_host(&self, address: IpAddr) -> Option<&ServiceHost> {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.virtual_hosts.get(&v4),
            IpAddr::V6(_) => None,
        }
    }
}

/// A service by its host name, for requests that no route is for.
#[derive(Clone)]
pub struct ServiceHost {
    pub name: Name,
    /// For a host without a port, or with one that is not declared.
    pub default: Arc<Destination>,
    pub ports: Vec<(u16, Arc<Destination>)>,
    pub path: PathNormalization,
    pub requests: Arc<RequestSeries>,
}

impl ServiceHost {
    pub fn at(&self, port: Option<u16>) -> &Arc<Destination> {
        let declared =
            port.and_then(|port| self.ports.iter().find(|(declared, _)| *declared == port));
        declared.map_or(&self.default, |(_, destination)| destination)
    }

    /// For bytes of which nothing but the port is known: only a port that is declared, where any is.
    pub fn exactly(&self, port: u16) -> Option<&Arc<Destination>> {
        let mut declared = self.ports.iter();
        match declared.find(|(declared, _)| *declared == port) {
            Some((_, destination)) => Some(destination),
            None => self.ports.is_empty().then_some(&self.default),
        }
    }

    /// The port that [`ServiceHost::at`] goes to; a service without declared ports takes any.
    pub fn port(&self, port: Option<u16>) -> Option<u16> {
        let is_declared = |port: &u16| self.ports.iter().any(|(declared, _)| declared == port);
        let first = self.ports.first().map(|(first, _)| *first);
        port.filter(|port| first.is_none() || is_declared(port))
            .or(first)
    }
}

/// Inbound: the application's ports.
pub struct App {
    pub ports: Vec<AppDestination>,
    pub requests: ListenerRequests,
}

#[derive(Clone)]
pub struct AppDestination {
    /// The service's.
    pub port: u16,
    /// The application's own, which is what intercepted connections were made to.
    pub app_port: u16,
    /// The sidecar's own listener for it, without interception.
    pub listen: Option<SocketAddr>,
    pub destination: Arc<Destination>,
    /// Of the service that the port belongs to.
    pub path: PathNormalization,
    /// Of the service; None lets everything in.
    pub lane: Option<Lane>,
    /// Callers of the service go by its load.
    pub tells_load: bool,
    pub requests: Arc<RequestSeries>,
}

impl Entry {
    pub fn new(
        role: Role,
        address: SocketAddr,
        routing: Routing,
        tls: Option<Arc<ServerTls>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            role,
            address,
            routing: ArcSwap::from_pointee(routing),
            tls: ArcSwap::from_pointee(tls),
            passthrough: ArcSwap::default(),
        })
    }
}
