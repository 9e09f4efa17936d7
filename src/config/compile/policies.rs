//! `BackendTLSPolicy`: which services, or ports of them, are spoken to over TLS, and how.

use std::collections::HashMap;
use std::sync::Arc;

use super::references::Unresolved;
use super::secrets::Secrets;
use super::{Part, Placed, parts};
use crate::config::problem::Problem;
use crate::config::spec::{BackendTlsPolicySpec, Kind, Spec, TargetRef};
use crate::model::{Condition, Name, ParentStatus, Status, UpstreamTls};

/// TLS of a whole service, or of one port by its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Secured {
    pub port_name: Option<Arc<str>>,
    pub tls: UpstreamTls,
}

/// What policies say of each service; of two for one target the older counts.
#[derive(Default)]
pub struct Policies {
    by_service: HashMap<Name, Vec<Secured>>,
    pub statuses: Vec<Status>,
}

impl Policies {
    pub fn take(&mut self, service: &Name) -> Vec<Secured> {
        self.by_service.remove(service).unwrap_or_default()
    }
}

/// `ports` tells the names of a service's ports; None where there is no such service.
pub fn policies<'p>(
    chosen: &[&'p Placed<'p>],
    secrets: &Secrets<'p>,
    ports: impl Fn(&Name) -> Option<Vec<Arc<str>>>,
    problems: &mut Vec<Problem>,
) -> Policies {
    let mut parts = parts(chosen, Kind::BackendTlsPolicy, |spec| match spec {
        Spec::BackendTlsPolicy(spec) => Some(spec),
        _ => None,
    });
    parts.sort_by_cached_key(|part| (part.head.created.unwrap_or(0), part.name().to_string()));
    let mut policies = Policies::default();
    for part in parts {
        let mut unresolved = None;
        let tls = upstream(&part, secrets, &mut unresolved, problems);
        let mut parents = Vec::new();
        for target in &part.spec.targets {
            let service = Name {
                namespace: Arc::clone(&part.name().namespace),
                name: Arc::clone(&target.name),
            };
            let placed = policies.place(&service, target, &tls, ports(&service));
            if let Err(why) = &placed {
                let finding = why.finding(target.spot.clone());
                problems.push(part.placed.page.problem(&finding));
            }
            parents.push(status(service, target, placed, unresolved.as_ref()));
        }
        policies.statuses.push(Status {
            kind: Kind::BackendTlsPolicy.as_str(),
            name: part.name().clone(),
            conditions: Vec::new(),
            listeners: Vec::new(),
            parents,
        });
    }
    policies
}

fn upstream<'p>(
    part: &Part<'p, BackendTlsPolicySpec>,
    secrets: &Secrets<'p>,
    unresolved: &mut Option<Unresolved>,
    problems: &mut Vec<Problem>,
) -> UpstreamTls {
    let spec = part.spec;
    let authorities = || {
        let namespace = &part.name().namespace;
        secrets.authorities(namespace, &spec.authorities, |reference, why| {
            let finding = why.finding(reference.spot.clone());
            problems.push(part.placed.page.problem(&finding));
            unresolved.get_or_insert(why);
        })
    };
    UpstreamTls {
        sni: spec.hostname.clone(),
        subjects: spec.subjects.clone(),
        ca: (!spec.authorities.is_empty()).then(authorities),
        certificate: None,
    }
}

impl Policies {
    fn place(
        &mut self,
        service: &Name,
        target: &TargetRef,
        tls: &UpstreamTls,
        ports: Option<Vec<Arc<str>>>,
    ) -> Result<(), Unresolved> {
        let Some(ports) = ports else {
            let hint = "add a document `kind: Service` of that name";
            let message = format!("there is no service {service}");
            return Err(Unresolved::new("TargetNotFound", message, hint));
        };
        if let Some(section) = &target.section
            && !ports.contains(section)
        {
            let message = format!("service {service} has no port named {section}");
            let hint = format!("it has {}", ports.join(", "));
            return Err(Unresolved::new("TargetNotFound", message, hint));
        }
        let before = self.by_service.entry(service.clone()).or_default();
        if before.iter().any(|one| one.port_name == target.section) {
            let message = format!("an older policy is for service {service} already");
            return Err(Unresolved::new(
                "Conflicted",
                message,
                "leave one of them out",
            ));
        }
        before.push(Secured {
            port_name: target.section.clone(),
            tls: tls.clone(),
        });
        Ok(())
    }
}

fn status(
    service: Name,
    target: &TargetRef,
    placed: Result<(), Unresolved>,
    unresolved: Option<&Unresolved>,
) -> ParentStatus {
    let nobody_trusted = unresolved.map(|why| ("NoValidCACertificate", &why.message));
    let refused = placed.as_ref().err().map(|why| (why.reason, &why.message));
    let accepted = match refused.or(nobody_trusted) {
        None => Condition::holds("Accepted", "Accepted"),
        Some((reason, message)) => Condition::fails("Accepted", reason, message),
    };
    let resolved = match unresolved {
        None => Condition::holds("ResolvedRefs", "ResolvedRefs"),
        Some(why) => Condition::fails("ResolvedRefs", why.reason, &why.message),
    };
    ParentStatus {
        kind: "Service",
        name: service,
        section: target.section.clone(),
        port: None,
        conditions: vec![accepted, resolved],
    }
}
