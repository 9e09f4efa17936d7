//! The kinds of documents, their API groups and the versions that are served.

use std::fmt;

use crate::config::decode::{Cursor, closest};
use crate::model::RouteKind;

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Kind {
    GatewayClass,
    Gateway,
    Route(RouteKind),
    ReferenceGrant,
    BackendTlsPolicy,
    Namespace,
    ConfigMap,
    Secret,
    Service,
    /// `kind: Service` with `apiVersion: v1`; it merges with ours of the same name.
    KubernetesService,
    EndpointSlice,
}

/// The Gateway API's group, with the versions a kind was ever served in.
const GATEWAY_API: [&str; 2] = [
    "gateway.networking.k8s.io/v1",
    "gateway.networking.k8s.io/v1beta1",
];
const GATEWAY_API_YOUNGER: [&str; 4] = [
    "gateway.networking.k8s.io/v1",
    "gateway.networking.k8s.io/v1beta1",
    "gateway.networking.k8s.io/v1alpha3",
    "gateway.networking.k8s.io/v1alpha2",
];
const OURS: [&str; 1] = ["pillion.dev/v1"];
const CORE: [&str; 1] = ["v1"];
const DISCOVERY: [&str; 2] = ["discovery.k8s.io/v1", "discovery.k8s.io/v1beta1"];

impl Kind {
    const ALL: [Kind; 14] = [
        Kind::GatewayClass,
        Kind::Gateway,
        Kind::Route(RouteKind::Http),
        Kind::Route(RouteKind::Grpc),
        Kind::Route(RouteKind::Tls),
        Kind::Route(RouteKind::Tcp),
        Kind::ReferenceGrant,
        Kind::BackendTlsPolicy,
        Kind::Namespace,
        Kind::ConfigMap,
        Kind::Secret,
        Kind::Service,
        Kind::KubernetesService,
        Kind::EndpointSlice,
    ];

    /// The kind as the registry and the command line name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::GatewayClass => "GatewayClass",
            Kind::Gateway => "Gateway",
            Kind::Route(kind) => kind.as_str(),
            Kind::ReferenceGrant => "ReferenceGrant",
            Kind::BackendTlsPolicy => "BackendTLSPolicy",
            Kind::Namespace => "Namespace",
            Kind::ConfigMap => "ConfigMap",
            Kind::Secret => "Secret",
            Kind::Service => "Service",
            Kind::KubernetesService => "Service.v1",
            Kind::EndpointSlice => "EndpointSlice",
        }
    }

    fn versions(self) -> &'static [&'static str] {
        match self {
            Kind::GatewayClass | Kind::Gateway | Kind::Route(RouteKind::Http) => &GATEWAY_API,
            Kind::Route(_) | Kind::ReferenceGrant | Kind::BackendTlsPolicy => &GATEWAY_API_YOUNGER,
            Kind::Service => &OURS,
            Kind::Namespace | Kind::ConfigMap | Kind::Secret | Kind::KubernetesService => &CORE,
            Kind::EndpointSlice => &DISCOVERY,
        }
    }

    /// Whether its full form has its fields under `spec`; the others have them beside `metadata`.
    pub(super) fn has_spec(self) -> bool {
        !matches!(
            self,
            Kind::Namespace | Kind::ConfigMap | Kind::Secret | Kind::EndpointSlice
        )
    }

    /// Whether its labels mean something here.
    pub(super) fn has_labels(self) -> bool {
        matches!(self, Kind::Namespace | Kind::EndpointSlice)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Reads `kind`, which is of the group and version that `apiVersion` says, if it says any.
pub(super) fn kind(cursor: Cursor<'_>, api: Option<&str>) -> Option<Kind> {
    let written = cursor.text()?;
    let kind = match (written, api) {
        ("Service", Some("v1")) => return Some(Kind::KubernetesService),
        ("Service.v1", _) => None,
        _ => Kind::ALL.into_iter().find(|kind| kind.as_str() == written),
    };
    let Some(kind) = kind else {
        return unknown_kind(cursor, written);
    };
    let versions = kind.versions();
    match api {
        Some(version) if !versions.contains(&version) => cursor.error(
            format!("there is no {kind} of apiVersion `{version}`"),
            format!("write `apiVersion: {}` or leave it out", versions[0]),
        ),
        _ => Some(kind),
    }
}

fn unknown_kind(cursor: Cursor<'_>, written: &str) -> Option<Kind> {
    let known = || {
        let all = Kind::ALL.into_iter().map(Kind::as_str);
        all.filter(|kind| *kind != "Service.v1")
    };
    let hint = match closest(written, known()) {
        _ if matches!(written, "UDPRoute" | "ListenerSet") => {
            "this kind of the Gateway API is not built yet".to_owned()
        }
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("one of {}", known().collect::<Vec<_>>().join(", ")),
    };
    cursor.error(format!("unknown kind `{written}`"), hint)
}
