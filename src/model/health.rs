use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// How each endpoint of a service is asked whether it can serve.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HealthCheck {
    pub probe: HealthProbe,
    /// From one probe's begin to the next, give or take a tenth.
    pub interval: Duration,
    /// For the whole of one probe, connecting included.
    pub timeout: Duration,
    /// Passes in a row that bring a failing endpoint back. One that has not been judged yet needs one.
    pub healthy_threshold: u32,
    /// Failures in a row that take a passing endpoint out. One that has never passed is out after one.
    pub unhealthy_threshold: u32,
}

/// What is asked, each time over a new connection, with TLS where the service has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HealthProbe {
    /// A GET, over the version of HTTP that the port speaks.
    Http {
        path: Arc<str>,
        /// The Host that is sent; None sends the endpoint's address as it is written.
        host: Option<Arc<str>>,
        /// The statuses that pass.
        statuses: Vec<RangeInclusive<u16>>,
    },
    /// `grpc.health.v1.Health/Check`, which has to answer SERVING.
    Grpc {
        /// As the server calls it; empty asks about the server as a whole.
        service: Arc<str>,
    },
    /// A connection, and the handshake where there is TLS.
    Tcp,
}

impl HealthProbe {
    /// As documents write it.
    pub fn as_str(&self) -> &'static str {
        match self {
            HealthProbe::Http { .. } => "http",
            HealthProbe::Grpc { .. } => "grpc",
            HealthProbe::Tcp => "tcp",
        }
    }
}
