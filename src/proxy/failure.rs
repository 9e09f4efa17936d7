//! Why a request got no answer from an application, whose side that was, and what the client is told.
//!
//! The log and the metrics see a [`Failure`]; the client sees the [`Answer`] made of it: status, a sentence that
//! says who refused and what to do, and a `Proxy-Status` field (RFC 9209). The mapping is the one function
//! [`Failure::answer`].

use std::fmt;
use std::time::Duration;

use super::http::deadline::Whose;
use crate::lane::{self, Reason, Refusal};
use crate::model::Class;
use crate::proxy::cluster::{CircuitOpen, PickError};
use crate::telemetry::flags::Flag;

#[derive(Clone, Debug)]
pub enum Failure {
    /// The client's bytes are not a valid request, or ask for what is not allowed.
    BadRequest { status: u16, reason: &'static str },
    /// The client did not send the rest of its request in time.
    RequestTimeout,
    /// The client left before its answer was complete.
    ClientGone,
    /// The route's rate limit is reached; the next request may come after `wait`.
    RateLimited { wait: Duration },
    /// The request's body is longer than the route allows.
    BodyTooLarge { max: u64 },
    /// The route refuses requests on purpose.
    FaultInjected { status: u16 },
    /// No route matches the request's host, or no rule of those that do.
    NoRoute { host: bool },
    /// HTTP/2 over TLS: the authority belongs to another listener than the one the connection's SNI chose.
    Misdirected,
    /// The chosen backend does not resolve.
    InvalidBackend { reason: String },
    /// Every backend of the rule has weight 0, or there is none.
    NoBackend,
    /// The destination is not of the mesh, and the policy is `registered-only`.
    NotRegistered,
    /// The service has no endpoint, or none that may be used.
    NoEndpoint { cluster: String, why: String },
    /// A circuit limit is reached.
    Overflow {
        cluster: String,
        limit: &'static str,
    },
    /// The service's circuit is open: it is spared, and the client's time.
    CircuitOpen { cluster: String, open: CircuitOpen },
    /// The lane in front of the application had no room, or no time.
    Shed {
        service: String,
        refusal: Refusal,
        /// Whom it lets in, where not everybody.
        admits: Option<Class>,
    },
    /// The lanes of the service's instances have said that they let nobody of this class in.
    NotAdmitted { cluster: String, class: Class },
    ConnectFailed {
        endpoint: String,
        error: ConnectError,
    },
    /// The upstream closed or reset the connection before an answer.
    UpstreamGone { endpoint: String, reset: bool },
    /// The connection was lost in the middle of the answer.
    UpstreamCut { endpoint: String, reset: bool },
    /// The upstream's bytes are not a valid answer.
    UpstreamProtocol {
        endpoint: String,
        reason: &'static str,
    },
    /// No whole answer in the time that the route or the caller gives.
    UpstreamTimeout { limit: Duration, whose: Whose },
    /// Nothing moved on the exchange for this long.
    StreamIdle { limit: Duration },
}

#[derive(Clone, Debug)]
pub enum ConnectError {
    Refused,
    Timeout,
    Tls(String),
    Io(String),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Refused => f.write_str("connection refused"),
            ConnectError::Timeout => f.write_str("connect timed out"),
            ConnectError::Tls(reason) => write!(f, "TLS: {reason}"),
            ConnectError::Io(reason) => f.write_str(reason),
        }
    }
}

/// What the proxy itself answers.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub flag: Flag,
    /// The error type of RFC 9209, section 2.3.
    pub proxy_status: &'static str,
    /// Who refused and why.
    pub message: String,
    /// What the reader can do next.
    pub next: &'static str,
}

impl Failure {
    /// No endpoint of this cluster could be had.
    pub fn not_picked(cluster: &str, error: PickError) -> Self {
        let cluster = cluster.to_owned();
        match error {
            PickError::Overflow(limit) => Failure::Overflow {
                cluster,
                limit: limit.limit(),
            },
            PickError::NotAdmitted(class) => Failure::NotAdmitted { cluster, class },
            other => Failure::NoEndpoint {
                cluster,
                why: other.to_string(),
            },
        }
    }

    /// The status and code of the answer, for all but [`Failure::ClientGone`], whose client is not there to read it.
    pub fn answer(&self) -> Answer {
        let (status, flag, proxy_status, next) = match self {
            Failure::BadRequest { status, .. } => (
                *status,
                Flag::DownstreamProtocolError,
                "http_request_error",
                "Correct the request; it was not forwarded.",
            ),
            Failure::RequestTimeout => (
                408,
                Flag::StreamIdleTimeout,
                "http_request_error",
                "Send the whole request sooner.",
            ),
            Failure::ClientGone => (
                499,
                Flag::DownstreamTermination,
                "connection_terminated",
                "Nothing: the client left.",
            ),
            Failure::RateLimited { .. } => (
                429,
                Flag::RateLimited,
                "http_request_denied",
                "Come again after the time in Retry-After; the limit is a RateLimit filter of the route.",
            ),
            Failure::BodyTooLarge { .. } => (
                413,
                Flag::DownstreamProtocolError,
                "http_request_error",
                "Send less; the limit is a RequestSizeLimit filter of the route.",
            ),
            Failure::FaultInjected { status } => (
                *status,
                Flag::FaultAbort,
                "http_request_denied",
                "Nothing is wrong: a FaultInjection filter of the route refuses requests on purpose.",
            ),
            Failure::NoRoute { .. } => (
                404,
                Flag::NoRoute,
                "destination_not_found",
                "Compare the request's host, path, method and headers with the routes on /config of the admin listener.",
            ),
            Failure::Misdirected => (
                421,
                Flag::NoRoute,
                "destination_not_found",
                "Open a new connection for this host.",
            ),
            Failure::InvalidBackend { .. } | Failure::NoBackend => (
                500,
                Flag::NoRoute,
                "proxy_configuration_error",
                "Correct the route's backendRefs; /config/problems lists what is wrong.",
            ),
            Failure::NotRegistered => (
                502,
                Flag::NoRoute,
                "destination_not_found",
                "Add a Service for the destination, or set outbound.passthrough to allow.",
            ),
            Failure::NoEndpoint { .. } => (
                503,
                Flag::NoHealthyUpstream,
                "destination_unavailable",
                "See the endpoints' states on /clusters of the admin listener.",
            ),
            Failure::Overflow { .. } => (
                503,
                Flag::UpstreamOverflow,
                "connection_limit_reached",
                "Retry later, or raise the limit under `circuit` of the Service.",
            ),
            Failure::CircuitOpen { .. } => (
                503,
                Flag::UpstreamOverflow,
                "destination_unavailable",
                "Retry after the time in Retry-After; /clusters of the admin listener shows the circuit.",
            ),
            Failure::Shed { .. } | Failure::NotAdmitted { .. } => (
                match self.shed() {
                    Some(Reason::Deadline) => 504,
                    _ => 503,
                },
                Flag::LaneShed,
                "http_request_denied",
                "Retry after the time in Retry-After; `pillion lanes` at the proxy that refused shows who waits.",
            ),
            Failure::ConnectFailed { error, .. } => {
                let kind = match error {
                    ConnectError::Refused => "connection_refused",
                    ConnectError::Timeout => "connection_timeout",
                    ConnectError::Tls(_) => "tls_protocol_error",
                    ConnectError::Io(_) => "destination_unavailable",
                };
                (
                    503,
                    Flag::UpstreamConnectionFailure,
                    kind,
                    "Check that the endpoint is up and reachable from this proxy.",
                )
            }
            Failure::UpstreamCut { reset, .. } => (
                502,
                lost(*reset),
                "http_response_incomplete",
                "The application ended in the middle of its answer; see its log.",
            ),
            Failure::UpstreamGone { reset, .. } => (
                503,
                lost(*reset),
                "connection_terminated",
                "The request may have reached the application; see its log.",
            ),
            Failure::UpstreamProtocol { .. } => (
                502,
                Flag::UpstreamProtocolError,
                "http_protocol_error",
                "The application's answer is not valid HTTP; see its log.",
            ),
            Failure::UpstreamTimeout {
                whose: Whose::Caller(_),
                ..
            } => (
                504,
                Flag::DurationTimeout,
                "http_response_timeout",
                "Give the request more time, or look why the application is slow.",
            ),
            Failure::UpstreamTimeout { .. } => (
                504,
                Flag::UpstreamTimeout,
                "http_response_timeout",
                "Raise the route's timeouts, or look why the application is slow.",
            ),
            Failure::StreamIdle { .. } => (
                504,
                Flag::UpstreamTimeout,
                "http_response_timeout",
                "Look why the application is silent.",
            ),
        };
        Answer {
            status,
            flag,
            proxy_status,
            message: self.to_string(),
            next,
        }
    }

    /// The service was asked and did not answer as it should; what was refused before says nothing of it.
    pub fn speaks_against_service(&self) -> bool {
        if let Failure::UpstreamTimeout { whose, .. } = self {
            // A caller in a hurry says nothing of the service.
            return !matches!(whose, Whose::Caller(_));
        }
        matches!(
            self,
            Failure::ConnectFailed { .. }
                | Failure::UpstreamGone { .. }
                | Failure::UpstreamCut { .. }
                | Failure::UpstreamProtocol { .. }
                | Failure::StreamIdle { .. }
        )
    }

    /// When the client may come again, in seconds, where that is known (RFC 9110, section 10.2.3).
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Failure::Shed { refusal, .. } => Some(refusal.retry_after.as_secs()),
            Failure::NotAdmitted { .. } => Some(lane::HOLDS.as_secs()),
            Failure::RateLimited { wait } => Some((wait.as_millis() as u64).div_ceil(1_000).max(1)),
            Failure::CircuitOpen { open, .. } => {
                let left = open.left.unwrap_or_default();
                Some((left.as_millis() as u64).div_ceil(1_000).max(1))
            }
            _ => None,
        }
    }

    /// What a lane had against the request.
    pub fn shed(&self) -> Option<Reason> {
        match self {
            Failure::Shed { refusal, .. } => Some(refusal.reason),
            Failure::NotAdmitted { .. } => Some(Reason::Class),
            _ => None,
        }
    }

    /// The gRPC status code that stands for this failure (`0` never).
    pub fn grpc_status(&self) -> u8 {
        match self {
            Failure::NoRoute { .. } | Failure::Misdirected => 12,
            Failure::BadRequest { .. } => 13,
            Failure::RateLimited { .. } | Failure::BodyTooLarge { .. } => 8,
            Failure::FaultInjected { status } => grpc_status_of(*status),
            Failure::ClientGone => 1,
            Failure::UpstreamTimeout { .. }
            | Failure::StreamIdle { .. }
            | Failure::RequestTimeout => 4,
            Failure::Shed { refusal, .. } if refusal.reason == Reason::Deadline => 4,
            Failure::UpstreamProtocol { .. } => 13,
            _ => 14,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::BadRequest { reason, .. } => write!(f, "bad request: {reason}"),
            Failure::RequestTimeout => f.write_str("the request did not arrive in time"),
            Failure::ClientGone => f.write_str("the client left"),
            Failure::RateLimited { .. } => f.write_str("the route's rate limit is reached"),
            Failure::BodyTooLarge { max } => {
                write!(
                    f,
                    "the request's body is longer than the {max} bytes that the route allows"
                )
            }
            Failure::FaultInjected { .. } => f.write_str("a fault is injected"),
            Failure::NoRoute { host: false } => f.write_str("no route for this host"),
            Failure::NoRoute { host: true } => f.write_str("no rule of this host's routes matches"),
            Failure::Misdirected => {
                f.write_str("this host is served by another listener than the TLS name chose")
            }
            Failure::InvalidBackend { reason } => write!(f, "invalid backend: {reason}"),
            Failure::NoBackend => f.write_str("the rule has no backend with a weight above 0"),
            Failure::NotRegistered => f.write_str("the destination is not registered in the mesh"),
            Failure::NoEndpoint { cluster, why } => {
                write!(f, "no healthy endpoint of {cluster}: {why}")
            }
            Failure::Overflow { cluster, limit } => write!(f, "{cluster} is at its limit {limit}"),
            Failure::CircuitOpen { cluster, open } => {
                write!(f, "the circuit of {cluster} is open: {open}")
            }
            Failure::Shed {
                service, refusal, ..
            } => {
                write!(f, "the lane of {service} refused: {}", refusal.reason)
            }
            Failure::NotAdmitted { cluster, class } => write!(
                f,
                "the lanes of {cluster} let in nothing of the class {} just now; it was not sent",
                class.as_str()
            ),
            Failure::ConnectFailed { endpoint, error } => {
                write!(f, "no connection to {endpoint}: {error}")
            }
            Failure::UpstreamGone {
                endpoint,
                reset: true,
            } => write!(f, "{endpoint} reset the connection"),
            Failure::UpstreamGone {
                endpoint,
                reset: false,
            } => {
                write!(f, "{endpoint} closed the connection before answering")
            }
            Failure::UpstreamCut { endpoint, .. } => {
                write!(f, "{endpoint} broke off in the middle of its answer")
            }
            Failure::UpstreamProtocol { endpoint, reason } => {
                write!(f, "invalid answer from {endpoint}: {reason}")
            }
            Failure::UpstreamTimeout { limit, whose } => {
                if limit.is_zero() {
                    return write!(f, "no time left, {whose}");
                }
                write!(f, "no complete answer within {limit:?}, {whose}")
            }
            Failure::StreamIdle { limit } => write!(f, "nothing moved for {limit:?}"),
        }
    }
}

/// "HTTP to gRPC Status Code Mapping" of gRPC.
fn grpc_status_of(status: u16) -> u8 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// How a connection to an upstream was lost.
fn lost(reset: bool) -> Flag {
    match reset {
        true => Flag::UpstreamReset,
        false => Flag::UpstreamConnectionTermination,
    }
}
