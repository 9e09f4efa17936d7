use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Name;

/// One address that serves a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    pub address: Address,
    /// The service port it serves, where the registry or the document says so; None serves every port of the service.
    pub port: Option<u16>,
    /// A share against the other endpoints, 0..=1,000,000; 0 gets no new traffic.
    pub weight: u32,
    pub zone: Option<Arc<str>>,
    /// 0 is used first.
    pub priority: u8,
    pub labels: Arc<BTreeMap<Arc<str>, Arc<str>>>,
    pub state: EndpointState,
    /// The registry's instance id, where it comes from there.
    pub instance: Option<Arc<str>>,
}

impl Endpoint {
    /// An endpoint of which nothing but its address is known.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            port: None,
            weight: 1,
            zone: None,
            priority: 0,
            labels: Arc::default(),
            state: EndpointState::Passing,
            instance: None,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Address {
    Socket(SocketAddr),
    /// Resolved off the request path, by the answer's TTL; it may stand for several addresses.
    Name {
        host: Arc<str>,
        port: u16,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Socket(address) => address.fmt(f),
            Address::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// What the registry says of an instance; a document's endpoints are always `Passing`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EndpointState {
    #[default]
    Passing,
    Warning,
    /// Used only when nothing better is left.
    Critical,
    /// Finishes what it holds and gets nothing new.
    Draining,
}

/// The whole current set of endpoints that discovery knows for one service.
#[derive(Clone, Debug)]
pub struct EndpointUpdate {
    pub service: Name,
    pub endpoints: Vec<Endpoint>,
}
