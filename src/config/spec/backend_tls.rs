//! `BackendTLSPolicy` (GEP-1897): that the endpoints of a service speak TLS, under which name and on whose word.

use std::sync::Arc;

use crate::config::decode::{Cursor, Fields};
use crate::config::problem::Spot;

#[derive(Debug)]
pub struct BackendTlsPolicySpec {
    pub targets: Vec<TargetRef>,
    /// Sent and verified.
    pub hostname: Option<Arc<str>>,
    /// Empty trusts the system's roots.
    pub authorities: Vec<AuthorityRef>,
}

/// A service of the policy's namespace, or one port of it by name.
#[derive(Debug)]
pub struct TargetRef {
    pub name: Arc<str>,
    pub section: Option<Arc<str>>,
    pub spot: Spot,
}

/// A `ConfigMap` of the policy's namespace with a bundle of certificates.
#[derive(Debug)]
pub struct AuthorityRef {
    pub kind: Arc<str>,
    pub name: Arc<str>,
    pub spot: Spot,
}

pub(super) fn read(fields: &mut Fields<'_, '_>) -> BackendTlsPolicySpec {
    fields.ignore(&["options"]);
    let targets = fields.required("targetRefs", |cursor| {
        let targets = cursor.list(|cursor| cursor.fields(target))?;
        if targets.is_empty() {
            return cursor.error(
                "a policy without targets does nothing",
                "[{kind: Service, name: cart}]",
            );
        }
        Some(targets)
    });
    let validation = fields.required("validation", |cursor| cursor.fields(validation));
    let (hostname, authorities) = validation.unwrap_or_default();
    BackendTlsPolicySpec {
        targets: targets.unwrap_or_default(),
        hostname,
        authorities,
    }
}

fn target(fields: &mut Fields<'_, '_>) -> Option<TargetRef> {
    fields.optional("group", |cursor| {
        cursor.choice(&[("", ()), ("core", ()), ("pillion.dev", ())])
    });
    fields.optional("kind", |cursor| cursor.choice(&[("Service", ())]));
    let named = fields.required("name", |cursor| Some((cursor.name()?, cursor.spot())));
    let section = fields.optional("sectionName", |c| c.name());
    let (name, spot) = named?;
    Some(TargetRef {
        name,
        section,
        spot,
    })
}

fn validation(fields: &mut Fields<'_, '_>) -> Option<(Option<Arc<str>>, Vec<AuthorityRef>)> {
    fields.not_built(&[("subjectAltNames", "; the name in `hostname` is verified")]);
    let hostname = fields.required("hostname", |c| c.precise_hostname());
    let system = fields.optional("wellKnownCACertificates", |cursor| {
        cursor.choice(&[("System", ())])
    });
    let authorities = fields.list("caCertificateRefs", |cursor| cursor.fields(authority));
    let here = fields.cursor();
    let given = !authorities.is_empty();
    match (system, given) {
        (Some(()), true) => here.error(
            "`wellKnownCACertificates` and `caCertificateRefs` exclude each other",
            "say one of them",
        ),
        (None, false)
            if !fields.has("wellKnownCACertificates") && !fields.has("caCertificateRefs") =>
        {
            let hint = "wellKnownCACertificates: System, or caCertificateRefs: [{kind: ConfigMap, name: ca}]";
            here.error("nothing says whose certificates are trusted", hint)
        }
        _ => Some((hostname, authorities)),
    }
}

fn authority(fields: &mut Fields<'_, '_>) -> Option<AuthorityRef> {
    fields.optional("group", |c| c.owned_text());
    let kind = fields.required("kind", |c| c.filled_text().map(Arc::from));
    let named = fields.required("name", |cursor: Cursor<'_>| {
        Some((cursor.name()?, cursor.spot()))
    });
    let (name, spot) = named?;
    Some(AuthorityRef {
        kind: kind?,
        name,
        spot,
    })
}
