//! The mesh as plain immutable data: public fields, no serde, no IO.
//!
//! `config` compiles documents into a [`Snapshot`]; `proxy` turns a snapshot into what a request meets.
//! Endpoints that discovery finds change far more often than documents, so they travel apart from the snapshot,
//! one service at a time, as an [`EndpointUpdate`].

mod compression;
mod cors;
mod endpoint;
mod filter;
mod gray;
mod health;
mod lane;
mod listener;
mod name;
mod path;
mod pem;
mod route;
mod service;
mod sidecar;
mod snapshot;
mod status;
mod virtual_address;

pub use compression::{Coding, Compression};
pub use cors::{AnyOf, Cors, OriginHost, OriginPattern};
pub use endpoint::{Address, Endpoint, EndpointState, EndpointUpdate};
pub use filter::{
    DirectResponse, Fault, FaultInjection, Filter, HeaderModifier, PathModifier, RateLimit,
    RateLimitKey, RedirectScheme, RequestRedirect, UrlRewrite, What,
};
pub use gray::Gray;
pub use health::{HealthCheck, HealthProbe};
pub use lane::{Class, Discipline, Floors, Lane, LaneLimit};
pub use listener::{Bind, Certificate, HostPattern, Listener, ListenerTls, OnHalfClose, TlsMode};
pub use name::Name;
pub use path::{PathAction, PathNormalization};
pub use pem::Pem;
pub use route::{
    Backend, BackendTarget, HeaderMatch, Hedge, HedgeAfter, Mirror, PathMatch, QueryMatch, Retry,
    Route, RouteKind, RouteMatch, Rule, ServiceParent, SessionCarrier, SessionPersistence,
    Timeouts, ValueMatch,
};
pub use service::{
    Balance, Circuit, CircuitBreaker, ClusterKey, HashKey, Hashing, IssuedCookie, LeastRequest,
    Outlier, Policy, Port, Protocol, Service, SlowStart, SubjectName, Subset, UpstreamTls,
};
pub use sidecar::{AppHealth, AppPort, AppProbe, InboundMode, Sidecar};
pub use snapshot::Snapshot;
pub use status::{Condition, ListenerStatus, ParentStatus, Status};
pub use virtual_address::{VIRTUAL_NETWORK, VIRTUAL_PREFIX, VirtualAddresses, is_virtual};
