//! The limits, times and trust of the data plane that no document sets, with their defaults.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::http1::codec::Limits;
use crate::base::cidr::Cidr;
use crate::base::net::Liveness;

#[derive(Clone, Debug)]
pub struct Settings {
    /// For a connection to an endpoint of the mesh.
    pub connect_timeout: Duration,
    /// For a connection to a destination that is passed through.
    pub passthrough_connect_timeout: Duration,
    /// How large heads may be, of requests and of answers.
    pub head_limits: Limits,
    /// From a request's first byte to its head's last.
    pub header_timeout: Duration,
    pub tls_handshake_timeout: Duration,
    /// How long a connection whose protocol is unknown may be silent before it counts as opaque.
    pub detection_timeout: Duration,
    /// An exchange in which nothing moves is ended; tunnels and gRPC streams are exempt.
    pub stream_idle_timeout: Duration,
    /// A downstream connection without a request is closed.
    pub downstream_idle_timeout: Duration,
    /// An idle upstream connection is retired at the latest after this; sooner where the upstream is known to close sooner.
    pub upstream_idle_timeout: Duration,
    /// When a peer counts as gone that acknowledges nothing. Tunnels are only probed for it, since a reader may pause for long.
    pub liveness: Liveness,
    /// A request body is kept for a replay up to this many bytes.
    pub replay_bytes_max: usize,
    /// Idle upstream connections kept for an endpoint, in each worker.
    pub idle_per_endpoint_max: usize,
    /// Downstream connections of all workers; more are closed at once.
    pub downstream_connections_max: usize,
    /// Concurrent streams on one downstream HTTP/2 connection.
    pub http2_streams_max: u32,
    /// Attempts on different endpoints after a connect failure or a provably safe reset.
    pub safe_attempts_max: usize,
    /// Peers of a gateway that are believed when they say whom they forward for.
    pub trusted_networks: Vec<Cidr>,
    /// Who says it in `x-mesh-explain` is told where his request went; None tells nobody.
    pub admin_token: Option<Token>,
}

/// A secret, which no log shows.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl Token {
    pub fn new(token: &str) -> Self {
        Self(token.into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            passthrough_connect_timeout: Duration::from_secs(10),
            head_limits: Limits::DEFAULT,
            header_timeout: Duration::from_secs(10),
            tls_handshake_timeout: Duration::from_secs(10),
            detection_timeout: Duration::from_secs(3),
            stream_idle_timeout: Duration::from_secs(300),
            downstream_idle_timeout: Duration::from_secs(600),
            upstream_idle_timeout: Duration::from_secs(30),
            liveness: Liveness::new(Duration::from_secs(60)),
            replay_bytes_max: 64 * 1024,
            idle_per_endpoint_max: 256,
            downstream_connections_max: 100_000,
            http2_streams_max: 256,
            safe_attempts_max: 8,
            trusted_networks: Vec::new(),
            admin_token: None,
        }
    }
}
