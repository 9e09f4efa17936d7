use std::net::SocketAddr;
use std::sync::Arc;

use super::{Name, Protocol};

/// What a sidecar's own listeners are, from its bootstrap file.
#[derive(Clone, Debug)]
pub struct Sidecar {
    /// Intercepted and explicitly proxied traffic of the application; None serves none.
    pub outbound: Option<SocketAddr>,
    /// Intercepted traffic to the application, and the explicit listeners below; None serves none.
    pub inbound: Option<SocketAddr>,
    /// Redirect rules lead to these two, which keep a connection's family: their ports are served over IPv6 as well.
    pub intercept: bool,
    /// The ports of the application beside this sidecar.
    pub apps: Vec<AppPort>,
    /// Its zone, for preferring endpoints of the same one.
    pub zone: Option<Arc<str>>,
    /// Names of services without a namespace are looked up in this one.
    pub namespace: Arc<str>,
    /// Destinations that no service knows are passed through unchanged.
    pub passthrough: bool,
}

/// One port of the application beside this sidecar.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppPort {
    pub service: Name,
    /// Where the application listens.
    pub app: SocketAddr,
    /// The service port it serves.
    pub port: u16,
    pub protocol: Option<Protocol>,
    /// Without interception: the sidecar's own listener for this port, which is what it registers.
    pub listen: Option<SocketAddr>,
}
