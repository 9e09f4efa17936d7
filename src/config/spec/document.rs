use std::fmt;
use std::sync::Arc;

use super::{GatewaySpec, KubernetesServiceSpec, RouteSpec, ServiceSpec};
use crate::config::decode::{Cursor, Fields, closest, decode};
use crate::config::problem::{Finding, Spot};
use crate::config::yaml;
use crate::model::Name;

/// One mesh document, read as far as it can be.
#[derive(Debug)]
pub struct Document {
    /// Who it is; None where even that cannot be told.
    pub head: Option<Head>,
    /// What it says; None where it cannot be read at all.
    pub spec: Option<Spec>,
    pub findings: Vec<Finding>,
}

#[derive(Clone, Debug)]
pub struct Head {
    pub identity: Identity,
    pub form: Form,
    /// Seconds since 1970, from `metadata.creationTimestamp`.
    pub created: Option<i64>,
    /// Where the name is written.
    pub spot: Spot,
}

/// What tells a document from the others; a later text of the same identity replaces it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Identity {
    pub kind: Kind,
    pub name: Name,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Kind {
    Gateway,
    HttpRoute,
    Service,
    /// `kind: Service` with `apiVersion: v1`; it merges with ours of the same name.
    KubernetesService,
}

impl Kind {
    /// The kind as the registry and the command line name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Gateway => "Gateway",
            Kind::HttpRoute => "HTTPRoute",
            Kind::Service => "Service",
            Kind::KubernetesService => "Service.v1",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a document is written; both mean the same, but for a route without `parentRefs`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// The name and the fields of `spec` at the top.
    Short,
    /// `apiVersion`, `metadata`, `spec`, as in Kubernetes.
    Full,
}

#[derive(Debug)]
pub enum Spec {
    Gateway(GatewaySpec),
    HttpRoute(RouteSpec),
    Service(ServiceSpec),
    KubernetesService(KubernetesServiceSpec),
}

impl Document {
    /// Reads the text of one document.
    pub fn read(text: &str) -> Self {
        let (root, mut findings) = yaml::parse(text);
        let read = root.and_then(|root| {
            decode(&root, &mut findings, |cursor| {
                cursor.fields(|fields| Some(document(fields)))
            })
        });
        let (head, spec) = read.unwrap_or_default();
        Document {
            head,
            spec,
            findings,
        }
    }
}

fn document(fields: &mut Fields<'_, '_>) -> (Option<Head>, Option<Spec>) {
    let api = fields.optional("apiVersion", |c| c.owned_text());
    let kind = fields.required("kind", |cursor| kind(cursor, api.as_deref()));
    let Some(kind) = kind else {
        fields.ignore_rest();
        return (None, None);
    };
    let form = form(fields, kind);
    let head = match form {
        Form::Short => short_head(fields, kind),
        Form::Full => full_head(fields, kind),
    };
    // Without a name there is no head, so nobody will see this one.
    let name = head
        .as_ref()
        .map_or_else(|| Name::local(""), |head| head.identity.name.clone());
    let spec = match form {
        Form::Short => spec(kind, name, fields),
        Form::Full => {
            fields.ignore(&["status"]);
            fields.otherwise("beside `metadata`, fields stand under `spec`");
            fields.required("spec", |cursor| {
                cursor.fields(|fields| spec(kind, name, fields))
            })
        }
    };
    (head, spec)
}

fn form(fields: &Fields<'_, '_>, kind: Kind) -> Form {
    let full = fields.has("metadata") || fields.has("spec") || kind == Kind::KubernetesService;
    if full { Form::Full } else { Form::Short }
}

const GATEWAY_API: [&str; 2] = [
    "gateway.networking.k8s.io/v1",
    "gateway.networking.k8s.io/v1beta1",
];
const OURS: [&str; 1] = ["pillion.dev/v1"];

fn kind(cursor: Cursor<'_>, api: Option<&str>) -> Option<Kind> {
    let (kind, versions): (Kind, &[&str]) = match cursor.text()? {
        "Gateway" => (Kind::Gateway, &GATEWAY_API),
        "HTTPRoute" => (Kind::HttpRoute, &GATEWAY_API),
        "Service" if api == Some("v1") => return Some(Kind::KubernetesService),
        "Service" => (Kind::Service, &OURS),
        other => return unknown_kind(cursor, other),
    };
    match api {
        Some(version) if !versions.contains(&version) => {
            let message = format!("there is no {kind} of apiVersion `{version}`");
            cursor.error(
                message,
                format!("write `apiVersion: {}` or leave it out", versions[0]),
            )
        }
        _ => Some(kind),
    }
}

fn unknown_kind(cursor: Cursor<'_>, kind: &str) -> Option<Kind> {
    const KNOWN: [&str; 3] = ["Gateway", "HTTPRoute", "Service"];
    let hint = match kind {
        "GatewayClass" => "no class is needed: leave this document out".to_owned(),
        "GRPCRoute" | "TCPRoute" | "TLSRoute" | "ReferenceGrant" | "BackendTLSPolicy" => {
            "this kind of the Gateway API is not built yet".to_owned()
        }
        _ => match closest(kind, KNOWN) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("one of {}", KNOWN.join(", ")),
        },
    };
    cursor.error(format!("unknown kind `{kind}`"), hint)
}

fn short_head(fields: &mut Fields<'_, '_>, kind: Kind) -> Option<Head> {
    let namespace = fields.optional("namespace", |c| c.namespace());
    let (name, spot) = fields.required("name", |cursor| Some((cursor.name()?, cursor.spot())))?;
    Some(head(kind, Form::Short, namespace, name, None, spot))
}

fn full_head(fields: &mut Fields<'_, '_>, kind: Kind) -> Option<Head> {
    let metadata = fields.required("metadata", |cursor| {
        cursor.fields(|fields| {
            let namespace = fields.optional("namespace", |c| c.namespace());
            let created = fields.optional("creationTimestamp", timestamp);
            let name = fields.required("name", |cursor| Some((cursor.name()?, cursor.spot())));
            // Labels, annotations and what else Kubernetes keeps there are its own.
            fields.ignore_rest();
            Some((namespace, created, name?))
        })
    });
    let (namespace, created, (name, spot)) = metadata?;
    Some(head(kind, Form::Full, namespace, name, created, spot))
}

fn head(
    kind: Kind,
    form: Form,
    namespace: Option<Arc<str>>,
    name: Arc<str>,
    created: Option<i64>,
    spot: Spot,
) -> Head {
    let namespace = namespace.unwrap_or_else(|| Name::DEFAULT_NAMESPACE.into());
    let name = Name { namespace, name };
    Head {
        identity: Identity { kind, name },
        form,
        created,
        spot,
    }
}

fn timestamp(cursor: Cursor<'_>) -> Option<i64> {
    match cursor.text()?.parse::<jiff::Timestamp>() {
        Ok(timestamp) => Some(timestamp.as_second()),
        Err(_) => cursor.error("not a time", "such as 2025-01-31T12:00:00Z"),
    }
}

fn spec(kind: Kind, name: Name, fields: &mut Fields<'_, '_>) -> Option<Spec> {
    Some(match kind {
        Kind::Gateway => Spec::Gateway(super::gateway::read(fields)),
        Kind::HttpRoute => Spec::HttpRoute(super::route::read(fields)),
        Kind::Service => Spec::Service(super::service::read(fields, name)),
        Kind::KubernetesService => Spec::KubernetesService(super::kubernetes_service::read(fields)),
    })
}
