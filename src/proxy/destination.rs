//! Where a rule sends its requests: a cluster with what is needed to speak to its endpoints.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::time::Instant;

use crate::identity::{ALPN_HTTP, ALPN_HTTP1, ClientTls, server_name};
use crate::model::{Gray, Hashing, Protocol, UpstreamTls};
use crate::proxy::cluster::{Cluster, Endpoint, Pass};
use crate::proxy::failure::Failure;
use crate::proxy::lane::Lane;
use crate::telemetry::metrics::ServiceSeries;

#[derive(Clone)]
pub struct Destination {
    pub cluster: Arc<Cluster>,
    /// As logs and metrics name it: `namespace/service`, with the subset where there is one.
    pub label: Arc<str>,
    /// What the port speaks; None follows the downstream.
    pub protocol: Option<Protocol>,
    pub security: Security,
    pub connect_timeout: Duration,
    /// Where requests go while nobody of the cluster is healthy; that one has none of its own.
    pub failover: Option<Arc<Destination>>,
    /// What of a request says where it goes; None where the policy does not hash.
    pub hashing: Option<Arc<Hashing>>,
    /// How requests name a traffic lane of the service; None has no lanes.
    pub gray: Option<Arc<Gray>>,
    /// In front of the service, at this proxy; None sends everything at once.
    pub lane: Option<Lane>,
    /// Counts what happens towards its endpoints.
    pub series: Arc<ServiceSeries>,
}

/// How bytes to the endpoints are protected.
#[derive(Clone)]
pub enum Security {
    Plain,
    Tls(Tls),
    /// TLS is asked for and cannot be had; nothing is sent in the clear instead.
    Unavailable(Arc<str>),
}

#[derive(Clone)]
pub struct Tls {
    pub settings: UpstreamTls,
    /// Offers HTTP/2 where the port may speak it.
    pub http: Arc<ClientTls>,
    pub http1: Arc<ClientTls>,
}

/// What one connection's handshake needs.
pub type Handshake = (Arc<ClientConfig>, ServerName<'static>);

/// What TLS offers to speak to a port of this protocol.
pub fn alpn(protocol: Option<Protocol>) -> &'static [&'static [u8]] {
    match protocol {
        Some(Protocol::Tcp) => &[],
        Some(Protocol::Http) => ALPN_HTTP1,
        Some(Protocol::Http2 | Protocol::Grpc) | None => ALPN_HTTP,
    }
}

impl Destination {
    /// Asks the circuit for the right to send a request there; None where it has no breaker.
    pub fn enter(
        &self,
        now: Instant,
        rng: &RefCell<fastrand::Rng>,
    ) -> Result<Option<Pass>, Failure> {
        let entered = self.cluster.enter(now, &mut rng.borrow_mut());
        entered.map_err(|open| Failure::CircuitOpen {
            cluster: self.label.to_string(),
            open,
        })
    }

    /// Whether a request goes out over HTTP/2, when TLS does not negotiate it. An unknown port gets what the client
    /// speaks in the clear, since such a client counts on it; gRPC needs HTTP/2 in any case.
    pub fn wants_http2(&self, downstream_prior_knowledge: bool, grpc: bool) -> bool {
        match self.protocol {
            Some(Protocol::Http2 | Protocol::Grpc) => true,
            Some(Protocol::Http | Protocol::Tcp) => false,
            None => downstream_prior_knowledge || grpc,
        }
    }

    /// The handshake of a new connection to an endpoint; None speaks plain.
    pub fn handshake(
        &self,
        endpoint: &Endpoint,
        http1_only: bool,
    ) -> Result<Option<Handshake>, String> {
        let tls = match &self.security {
            Security::Plain => return Ok(None),
            Security::Unavailable(reason) => return Err(reason.to_string()),
            Security::Tls(tls) => tls,
        };
        let name = server_name(
            &tls.settings,
            &endpoint.model.address,
            &self.cluster.key.service,
        )
        .map_err(|error| error.to_string())?;
        let client = if http1_only { &tls.http1 } else { &tls.http };
        Ok(Some((client.config(), name)))
    }

    pub fn is_tls(&self) -> bool {
        !matches!(self.security, Security::Plain)
    }
}
