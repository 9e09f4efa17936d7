//! Every default of the configuration, on one page.
//!
//! Those of balancing, outliers, circuits and lanes are the `Default` of their types in `model`, those of the access log in `telemetry`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

const fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}

// Routes
/// Retries after the first try, where `retry` is there but does not say.
pub const RETRY_ATTEMPTS: u32 = 2;
pub const RETRY_ATTEMPTS_MAX: u64 = 100;
pub const RETRY_BACKOFF: Duration = Duration::from_millis(25);
/// Requests that go to a second endpoint too, where `hedge` is there but does not say how many.
pub const HEDGE_EXTRA_PERCENT: u8 = 5;
pub const BACKEND_WEIGHT: u32 = 1;
/// Of a redirect, as in the Gateway API.
pub const REDIRECT_STATUS: u16 = 302;
/// How long a preflight's answer counts, as in the Gateway API.
pub const CORS_MAX_AGE_SECONDS: u32 = 5;
/// As in the Gateway API, so that a proxy is no server of files.
pub const DIRECT_RESPONSE_BYTES_MAX: usize = 4096;
/// The longest that a request is delayed on purpose.
pub const FAULT_DELAY_MAX: Duration = Duration::from_secs(60);
pub const DIRECT_RESPONSE_TYPE: &str = "text/plain; charset=utf-8";

// Services
pub const ENDPOINT_WEIGHT: u32 = 1;
/// Most of any weight, as in the Gateway API.
pub const WEIGHT_MAX: u64 = 1_000_000;
/// How many endpoints `least_request` may compare.
pub const CHOICES: RangeInclusive<u64> = 2..=10;
/// With more, `least_request` is as good as blind to the weights.
pub const BIAS_MAX: f64 = 100.0;
/// The largest table of `maglev`, as in Envoy; each service that has one costs every proxy four bytes a place.
pub const TABLE_SIZE: RangeInclusive<u64> = 2..=5_000_011;
/// Of a cookie that says where a client's requests go.
pub const COOKIE_PATH: &str = "/";
/// Of the mean, in percent.
pub const BOUNDED_LOAD: RangeInclusive<u32> = 100..=1_000;
/// Most failures in a row that a circuit breaker may wait for, and most requests that try an open circuit at once.
pub const CIRCUIT_FAILURES_MAX: u64 = 10_000;
pub const CIRCUIT_PROBES_MAX: u64 = 100;
/// How far back a circuit breaker may look.
pub const CIRCUIT_WINDOW: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(600);
/// More slow requests open a circuit, where only `slow_after` is said.
pub const CIRCUIT_SLOW_PERCENT: u8 = 50;
/// Most slots of a lane, and most places in its queue.
pub const LANE_SLOTS_MAX: u64 = 1_000_000;
pub const LANE_QUEUE_MAX: u64 = 1_000_000;

// Health checks of endpoints
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// Passes in a row that bring an endpoint back, and failures in a row that take it out.
pub const HEALTHY_THRESHOLD: u32 = 2;
pub const UNHEALTHY_THRESHOLD: u32 = 3;
pub const HEALTH_THRESHOLD_MAX: u64 = 100;
pub const HEALTH_STATUSES: RangeInclusive<u16> = 200..=399;

// Gateways
pub const GATEWAY_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

// The sidecar's own sockets
pub const OUTBOUND_ADDRESS: SocketAddr = loopback(15_001);
pub const INBOUND_ADDRESS: SocketAddr = everywhere(15_006);
pub const ADMIN_ADDRESS: SocketAddr = loopback(15_000);
pub const DNS_ADDRESS: SocketAddr = loopback(15_053);
/// Of an upstream name server that is written without one.
pub const DNS_PORT: u16 = 53;
/// Between two looks at whether the application listens.
pub const APP_LISTENING_INTERVAL: Duration = Duration::from_secs(1);
/// Between two probes of the application that it notices.
pub const APP_HEALTH_INTERVAL: Duration = Duration::from_secs(5);
pub const APP_HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
pub const APP_HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Threads of a sidecar: this, or the number of CPUs where that is less. A gateway takes every CPU.
pub const SIDECAR_WORKERS: usize = 2;
pub const WORKERS_MAX: u64 = 256;

/// Where `proc` and `sys` are, for measuring the load of an instance.
pub const LOAD_ROOT: &str = "/";

// The sidecar's limits
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
pub const DETECTION_TIMEOUT: Duration = Duration::from_secs(3);
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
pub const PASSTHROUGH_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Downstream connections without a request.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Pooled upstream connections without a request; less where the upstream says so.
pub const UPSTREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// HTTP exchanges in which no byte moves either way.
pub const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Without an acknowledgement, of bytes or of keep-alive probes.
pub const DEAD_PEER_TIMEOUT: Duration = Duration::from_secs(60);
pub const DOWNSTREAM_CONNECTIONS_MAX: u32 = 50_000;
pub const HEADER_BYTES_MAX: u64 = 64 << 10;
pub const HEADERS_MAX: u32 = 128;

// Shutting down
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
pub const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(5);

// Records
pub const LOG_LEVEL: &str = "info";

// The registry
pub const REGISTRY_ADDRESS: SocketAddr = loopback(15_010);
pub const REGISTRY_URL: &str = "http://127.0.0.1:15010";
pub const REGISTRY_DATA: &str = "pillion-data";
/// Revisions of each document that are kept.
pub const HISTORY: u32 = 100;
pub const CRITICAL_AFTER: Duration = Duration::from_secs(15);
pub const REMOVE_AFTER: Duration = Duration::from_secs(30);

/// The label of an instance that says its traffic lane.
pub const GRAY_LABEL: &str = "lane";

/// Answers that are shorter gain nothing by compression.
pub const COMPRESSED_LENGTH_MIN: u64 = 1_024;
/// What is text in one way or another, but for streams of events.
pub const COMPRESSED_TYPES: [&str; 12] = [
    "text/html",
    "text/css",
    "text/plain",
    "text/xml",
    "text/csv",
    "text/javascript",
    "application/javascript",
    "application/json",
    "application/xml",
    "application/wasm",
    "application/manifest+json",
    "image/svg+xml",
];
