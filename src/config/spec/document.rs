use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::kind::{Kind, kind};
use super::{
    BackendTlsPolicySpec, ConfigMapSpec, EndpointSliceSpec, GatewaySpec, GrantSpec,
    KubernetesServiceSpec, RouteSpec, SecretSpec, ServiceSpec,
};
use crate::config::decode::{Cursor, Fields, decode};
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
    /// Of kinds whose labels mean something here.
    pub labels: Labels,
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

pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

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
    /// A class says nothing that a Gateway here needs.
    GatewayClass,
    Gateway(GatewaySpec),
    Route(RouteSpec),
    ReferenceGrant(GrantSpec),
    BackendTlsPolicy(BackendTlsPolicySpec),
    /// Of a namespace, the labels count.
    Namespace,
    ConfigMap(ConfigMapSpec),
    Secret(SecretSpec),
    Service(ServiceSpec),
    KubernetesService(KubernetesServiceSpec),
    EndpointSlice(EndpointSliceSpec),
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
        if may_be_secret(text, head.as_ref()) {
            findings.iter_mut().for_each(Finding::show_no_text);
        }
        Document {
            head,
            spec,
            findings,
        }
    }
}

/// Whether the text may say what nobody must see in a log.
fn may_be_secret(text: &str, head: Option<&Head>) -> bool {
    match head {
        Some(head) => head.identity.kind == Kind::Secret,
        None => text.contains("Secret"),
    }
}

fn document(fields: &mut Fields<'_, '_>) -> (Option<Head>, Option<Spec>) {
    let api = fields.optional("apiVersion", |c| c.owned_text());
    if !fields.has("kind") && (fields.has("openapi") || fields.has("swagger")) {
        fields.ignore_rest();
        let hint =
            "keep it in a folder of its own, and name it as `api` in the document of its Service";
        let _: Option<()> = fields
            .cursor()
            .error("this is an OpenAPI description", hint);
        return (None, None);
    }
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
    if form == Form::Short || !kind.has_spec() {
        return (head, spec(kind, name, fields));
    }
    fields.ignore(&["status"]);
    fields.otherwise("beside `metadata`, fields stand under `spec`");
    let spec = fields.required("spec", |cursor| {
        cursor.fields(|fields| spec(kind, name, fields))
    });
    (head, spec)
}

fn form(fields: &Fields<'_, '_>, kind: Kind) -> Form {
    let spec = kind.has_spec() && fields.has("spec");
    let full = fields.has("metadata") || spec || kind == Kind::KubernetesService;
    if full { Form::Full } else { Form::Short }
}

fn short_head(fields: &mut Fields<'_, '_>, kind: Kind) -> Option<Head> {
    let namespace = fields.optional("namespace", |c| c.namespace());
    let labels = fields.optional_if(kind.has_labels(), "labels", |c| c.labels());
    let (name, spot) = fields.required("name", |cursor| Some((cursor.name()?, cursor.spot())))?;
    Some(Head {
        identity: identity(kind, namespace, name),
        form: Form::Short,
        created: None,
        labels: labels.unwrap_or_default(),
        spot,
    })
}

fn full_head(fields: &mut Fields<'_, '_>, kind: Kind) -> Option<Head> {
    fields.required("metadata", |cursor| {
        cursor.fields(|fields| {
            let namespace = fields.optional("namespace", |c| c.namespace());
            let created = fields.optional("creationTimestamp", timestamp);
            let labels = fields.optional_if(kind.has_labels(), "labels", |c| c.labels());
            let name = fields.required("name", |cursor| Some((cursor.name()?, cursor.spot())));
            // Annotations and what else Kubernetes keeps there are its own.
            fields.ignore_rest();
            let (name, spot) = name?;
            Some(Head {
                identity: identity(kind, namespace, name),
                form: Form::Full,
                created,
                labels: labels.unwrap_or_default(),
                spot,
            })
        })
    })
}

fn identity(kind: Kind, namespace: Option<Arc<str>>, name: Arc<str>) -> Identity {
    let namespace = namespace.unwrap_or_else(|| Name::DEFAULT_NAMESPACE.into());
    Identity {
        kind,
        name: Name { namespace, name },
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
        Kind::GatewayClass => {
            super::gateway_class::read(fields);
            Spec::GatewayClass
        }
        Kind::Gateway => Spec::Gateway(super::gateway::read(fields)),
        Kind::Route(kind) => Spec::Route(super::route::read(fields, kind)),
        Kind::ReferenceGrant => Spec::ReferenceGrant(super::grant::read(fields)),
        Kind::BackendTlsPolicy => Spec::BackendTlsPolicy(super::backend_tls::read(fields)),
        Kind::ConfigMap => Spec::ConfigMap(super::kubernetes_data::config_map(fields)),
        Kind::Secret => Spec::Secret(super::kubernetes_data::secret(fields)),
        Kind::Namespace => {
            fields.ignore(&["spec", "status"]);
            Spec::Namespace
        }
        Kind::Service => Spec::Service(super::service::read(fields, name)),
        Kind::KubernetesService => Spec::KubernetesService(super::kubernetes_service::read(fields)),
        Kind::EndpointSlice => Spec::EndpointSlice(super::endpoint_slice::read(fields)),
    })
}
