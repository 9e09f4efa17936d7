//! What documents say of others: whether they may, and why a reference leads nowhere.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Placed, parts};
use crate::config::problem::{Finding, Spot};
use crate::config::spec::{AllowedNamespaces, BackendRef, GrantSpec, Kind, Labels, Spec};
use crate::model::Name;

/// Why a reference leads nowhere, the standard's word for it, and what to do.
pub struct Unresolved {
    pub reason: &'static str,
    pub message: String,
    pub hint: String,
}

impl Unresolved {
    pub fn new(reason: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            hint: hint.into(),
        }
    }

    pub fn finding(&self, spot: Spot) -> Finding {
        Finding::unmet(spot, self.reason, &self.message, &self.hint)
    }
}

/// A document that refers to others.
#[derive(Clone, Copy)]
pub struct Referrer<'r> {
    pub kind: Kind,
    pub namespace: &'r Arc<str>,
}

/// Every `ReferenceGrant`, by the namespace it opens.
pub struct Grants<'p>(HashMap<&'p str, Vec<&'p GrantSpec>>);

impl<'p> Grants<'p> {
    pub fn of(chosen: &[&'p Placed<'p>]) -> Self {
        let grants = parts(chosen, Kind::ReferenceGrant, |spec| match spec {
            Spec::ReferenceGrant(spec) => Some(spec),
            _ => None,
        });
        let mut by_namespace: HashMap<&str, Vec<&GrantSpec>> = HashMap::new();
        for grant in grants {
            let namespace = &*grant.head.identity.name.namespace;
            by_namespace.entry(namespace).or_default().push(grant.spec);
        }
        Self(by_namespace)
    }

    /// Whether a document may refer to this one of a kind: freely in its own namespace, else where a grant there says so.
    pub fn check(&self, from: Referrer<'_>, kind: &str, to: &Name) -> Result<(), Unresolved> {
        if *from.namespace == to.namespace || self.grants(from, kind, to) {
            return Ok(());
        }
        let message = format!("{} {to} is in another namespace", kind.to_lowercase());
        let hint = format!(
            "add a ReferenceGrant to `{}` that lets {}s of `{}` refer to it",
            to.namespace, from.kind, from.namespace
        );
        Err(Unresolved::new("RefNotPermitted", message, hint))
    }

    fn grants(&self, from: Referrer<'_>, kind: &str, to: &Name) -> bool {
        let grants = self.0.get(&*to.namespace).into_iter().flatten();
        grants.into_iter().any(|grant| {
            let grantee = grant.from.iter().any(|grantee| {
                *grantee.kind == *from.kind.as_str() && grantee.namespace == *from.namespace
            });
            let granted = grant.to.iter().any(|granted| {
                let named = granted.name.as_ref();
                *granted.kind == *kind && named.is_none_or(|name| *name == to.name)
            });
            grantee && granted
        })
    }
}

/// The label that Kubernetes puts on every namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The labels of every `Namespace` that has a document.
pub struct Namespaces<'p>(HashMap<&'p str, &'p Labels>);

impl<'p> Namespaces<'p> {
    pub fn of(chosen: &[&'p Placed<'p>]) -> Self {
        let namespaces = parts(chosen, Kind::Namespace, Some);
        let labels = namespaces
            .iter()
            .map(|part| (&*part.head.identity.name.name, &part.head.labels));
        Self(labels.collect())
    }

    /// Whether a listener of namespace `own` takes routes of this one.
    pub fn allow(&self, allowed: &AllowedNamespaces, own: &str, namespace: &str) -> bool {
        match allowed {
            AllowedNamespaces::Same => namespace == own,
            AllowedNamespaces::All => true,
            AllowedNamespaces::None => false,
            AllowedNamespaces::Selected(selector) => {
                let mut labels = self.0.get(namespace).copied().cloned().unwrap_or_default();
                labels.insert(NAME_LABEL.into(), namespace.into());
                selector.selects(&labels)
            }
        }
    }
}

impl BackendRef {
    /// The name it refers to, from a document of this namespace.
    pub fn referent(&self, namespace: &Arc<str>) -> Name {
        Name {
            namespace: Arc::clone(self.namespace.as_ref().unwrap_or(namespace)),
            name: Arc::clone(&self.name),
        }
    }

    /// As [`Self::referent`], where it means a service at all.
    pub fn service(&self, namespace: &Arc<str>) -> Result<Name, Unresolved> {
        match &self.foreign {
            None => Ok(self.referent(namespace)),
            Some(kind) => Err(Unresolved::new(
                "InvalidKind",
                format!("requests cannot go to a {kind}"),
                "refer to a Service",
            )),
        }
    }
}
