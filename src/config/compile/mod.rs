//! All documents together: references resolved, conflicts found, and the [`Snapshot`] built.
//!
//! Results are kept from one time to the next, so that a service or route that did not change stays the same `Arc`.

mod gateways;
mod interfaces;
#[cfg(test)]
mod interfaces_tests;
mod policies;
mod reach;
mod references;
mod rivals;
mod routes;
mod secrets;
mod services;

use std::collections::HashMap;
use std::sync::Arc;

use super::decode::Suggester;
use super::problem::{Finding, Page, Problem};
use super::source::Origin;
use super::spec::{Document, Head, Identity, Kind, Spec};
use crate::model::{Condition, Name, Snapshot, Status};

pub use interfaces::interfaces;
use references::{Grants, Namespaces};
use routes::RouteCache;
use secrets::Secrets;
use services::CachedService;

/// A document at its place in a source.
pub struct Placed<'s> {
    pub origin: &'s Origin,
    pub page: Page<'s>,
    pub document: Arc<Document>,
}

/// What was compiled the time before.
#[derive(Default)]
pub struct Cache {
    services: HashMap<Name, CachedService>,
    routes: RouteCache,
}

/// A document that takes part: its head and its place; `spec` is of the kind the caller asked for.
struct Part<'p, S> {
    placed: &'p Placed<'p>,
    head: &'p Head,
    spec: &'p S,
}

impl<S> Part<'_, S> {
    fn name(&self) -> &Name {
        &self.head.identity.name
    }
}

/// The snapshot of all documents, as far as there is one, and all problems.
pub fn compile(placed: &[Placed<'_>], cache: &mut Cache) -> (Snapshot, Vec<Problem>) {
    let mut problems = Vec::new();
    for document in placed {
        let findings = document.document.findings.iter();
        problems.extend(findings.map(|finding| document.page.problem(finding)));
    }
    let chosen = choose(placed, &mut problems);
    let suggester = Suggester::default();
    let secrets = Secrets::of(&chosen);
    let services = services::compile(
        &chosen,
        &secrets,
        &suggester,
        &mut cache.services,
        &mut problems,
    );
    let grants = Grants::of(&chosen);
    let gateways = gateways::gateways(&chosen, Namespaces::of(&chosen), &suggester);
    let routes = routes::compile(
        &chosen,
        &services,
        &gateways,
        &grants,
        &mut cache.routes,
        &mut problems,
    );
    let (binds, mut statuses) = gateways::binds(
        &gateways,
        &routes,
        &services,
        &grants,
        &secrets,
        &mut problems,
    );
    statuses.extend(classes(&chosen));
    statuses.extend(routes.statuses);
    statuses.extend(services.statuses);
    statuses.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    let snapshot = Snapshot {
        revision: 0,
        binds,
        mesh_routes: routes.mesh,
        services: services.compiled,
        statuses,
    };
    (snapshot, problems)
}

/// Every class is accepted: it is the Gateways that count.
fn classes(chosen: &[&Placed<'_>]) -> Vec<Status> {
    let classes = parts(chosen, Kind::GatewayClass, Some);
    let status = |part: &Part<'_, Spec>| Status {
        kind: Kind::GatewayClass.as_str(),
        name: part.name().clone(),
        conditions: vec![Condition::holds("Accepted", "Accepted")],
        listeners: Vec::new(),
        parents: Vec::new(),
    };
    classes.iter().map(status).collect()
}

/// One document for each identity: a file's before the registry's; two of a kind are a problem.
fn choose<'p>(placed: &'p [Placed<'p>], problems: &mut Vec<Problem>) -> Vec<&'p Placed<'p>> {
    let mut chosen: HashMap<&Identity, (usize, &Head)> = HashMap::with_capacity(placed.len());
    for (index, document) in placed.iter().enumerate() {
        let Some(head) = &document.document.head else {
            continue;
        };
        let Some(&(before, head_before)) = chosen.get(&head.identity) else {
            chosen.insert(&head.identity, (index, head));
            continue;
        };
        let (one, other) = ((&placed[before], head_before), (document, head));
        if placed[before].origin.is_registry() && !document.origin.is_registry() {
            chosen.insert(&head.identity, (index, head));
            problems.push(clash(other, one));
        } else {
            problems.push(clash(one, other));
        }
    }
    let mut chosen: Vec<usize> = chosen.into_values().map(|(index, _)| index).collect();
    chosen.sort_unstable();
    chosen.into_iter().map(|index| &placed[index]).collect()
}

/// What is to say of a document in whose place another of its identity is used.
fn clash(winner: (&Placed<'_>, &Head), loser: (&Placed<'_>, &Head)) -> Problem {
    let (placed, head) = loser;
    let identity = &head.identity;
    let place = format!(
        "{}:{}",
        winner.0.origin,
        winner.0.page.line(winner.1.spot.mark)
    );
    let finding = if placed.origin.is_registry() && !winner.0.origin.is_registry() {
        let message = format!("{identity} of the registry is not used");
        Finding::note(
            head.spot.clone(),
            message,
            format!("{place} takes its place"),
        )
    } else {
        let message = format!("{identity} is there twice");
        Finding::error(head.spot.clone(), message, format!("the first is {place}"))
    };
    placed.page.problem(&finding)
}

/// The parts of one kind, of those documents that could be read.
fn parts<'p, S>(
    chosen: &[&'p Placed<'p>],
    kind: Kind,
    pick: fn(&'p Spec) -> Option<&'p S>,
) -> Vec<Part<'p, S>> {
    let parts = chosen.iter().filter_map(|placed| {
        let head = placed
            .document
            .head
            .as_ref()
            .filter(|head| head.identity.kind == kind)?;
        let spec = pick(placed.document.spec.as_ref()?)?;
        Some(Part { placed, head, spec })
    });
    parts.collect()
}
