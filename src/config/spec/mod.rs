//! Mesh documents as written: each by itself is well formed, but what it refers to may not exist.
//!
//! What can be judged within one document is judged here, into the model's own types; what needs the other documents keeps
//! its [`Spot`](super::problem::Spot) for `compile`.

mod backend_tls;
mod circuit;
mod document;
mod endpoint_slice;
mod filter;
mod gateway;
mod gateway_class;
mod grant;
mod gray;
mod grpc_match;
mod hashing;
mod health;
mod kind;
mod kubernetes_data;
mod kubernetes_service;
mod lane;
mod path;
mod route;
mod route_match;
mod selector;
mod service;
mod session;

pub use backend_tls::{AuthorityRef, BackendTlsPolicySpec, TargetRef};
pub use document::{Document, Form, Head, Identity, Labels, Spec};
pub use endpoint_slice::EndpointSliceSpec;
pub use filter::MirrorSpec;
pub use gateway::{
    AllowedNamespaces, CertificateRef, GatewaySpec, ListenerProtocol, ListenerSpec, TlsSpec,
};
pub use grant::GrantSpec;
pub use kind::Kind;
pub use kubernetes_data::{ConfigMapSpec, SecretSpec};
pub use kubernetes_service::KubernetesServiceSpec;
pub use route::{BackendRef, ParentKind, ParentRef, RouteSpec, RuleSpec};
pub use service::ServiceSpec;
