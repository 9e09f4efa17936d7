//! `BackendTLSPolicy` (GEP-1897): that the endpoints of a service speak TLS, under which name and on whose word.

use std::sync::Arc;

use crate::config::decode::{Cursor, Fields};
use crate::config::problem::Spot;
use crate::model::SubjectName;

#[derive(Debug)]
pub struct BackendTlsPolicySpec {
    pub targets: Vec<TargetRef>,
    /// Sent, and verified where there are no `subjects`.
    pub hostname: Option<Arc<str>>,
    pub subjects: Vec<SubjectName>,
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
    let (hostname, subjects, authorities) = validation.unwrap_or_default();
    BackendTlsPolicySpec {
        targets: targets.unwrap_or_default(),
        hostname,
        subjects,
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

type Validation = (Option<Arc<str>>, Vec<SubjectName>, Vec<AuthorityRef>);

fn validation(fields: &mut Fields<'_, '_>) -> Option<Validation> {
    let hostname = fields.required("hostname", |c| c.precise_hostname());
    let subjects = fields.list("subjectAltNames", |cursor| cursor.fields(subject));
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
        _ => Some((hostname, subjects, authorities)),
    }
}

fn subject(fields: &mut Fields<'_, '_>) -> Option<SubjectName> {
    let is_uri = fields.required("type", |cursor| {
        cursor.choice(&[("Hostname", false), ("URI", true)])
    });
    match is_uri? {
        false => {
            let name = fields.required("hostname", |c| c.host_pattern());
            name.map(|name| SubjectName::Hostname(name.to_string().into()))
        }
        true => {
            let uri = fields.required("uri", |cursor| {
                let uri = cursor.filled_text()?;
                match uri.split_once("://") {
                    Some((scheme, rest)) if !scheme.is_empty() && !rest.is_empty() => {
                        Some(uri.into())
                    }
                    _ => cursor.error(
                        format!("`{uri}` is not a URI with a host"),
                        "such as spiffe://mesh.local/ns/shop/sa/cart",
                    ),
                }
            });
            uri.map(SubjectName::Uri)
        }
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
