use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Name, Protocol};

/// What a sidecar's own listeners are, from its bootstrap file.
#[derive(Clone, Debug)]
pub struct Sidecar {
    /// Intercepted and explicitly proxied traffic of the application; None serves none.
    pub outbound: Option<SocketAddr>,
    /// Intercepted traffic to the application, and the explicit listeners below; None serves none.
    pub inbound: Option<SocketAddr>,
    /// How intercepted connections come to `inbound`.
    pub inbound_mode: InboundMode,
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

/// How a connection that arrives for the application is brought to the sidecar.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum InboundMode {
    /// Its destination is translated; the application sees the sidecar as its client.
    #[default]
    Redirect,
    /// It keeps both addresses, so that the application sees its client's. The sidecar needs the capability NET_RAW.
    Tproxy,
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
    pub health: AppHealth,
}

/// How a sidecar tells whether its application can be reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppHealth {
    pub probe: AppProbe,
    /// Between two probes; after a failure they follow faster.
    pub interval: Duration,
    /// How long the answer may take.
    pub timeout: Duration,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AppProbe {
    /// It counts as reachable.
    None,
    /// Its port is listened on; no connection is made.
    Listening,
    /// It accepts a connection.
    Tcp,
    /// It answers a GET of this path with 200 to 399.
    Http { path: Arc<str> },
}
