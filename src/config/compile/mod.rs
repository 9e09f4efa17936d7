//! All documents together: references resolved, conflicts found, and the [`Snapshot`] built.
//!
//! Results are kept from one time to the next, so that a service or route that did not change stays the same `Arc`.

mod gateways;
mod routes;
mod services;

use std::collections::HashMap;
use std::sync::Arc;

use super::problem::{Finding, Problem, Severity};
use super::source::Origin;
use super::spec::{Document, Head, Identity, Kind, Spec};
use crate::model::{Name, Snapshot};

use routes::CachedRoute;
use services::CachedService;

/// A document at its place in a source.
pub struct Placed<'s> {
    pub origin: &'s Origin,
    pub first_line: u32,
    pub text: &'s str,
    pub document: Arc<Document>,
}

impl Placed<'_> {
    pub fn problem(&self, finding: &Finding) -> Problem {
        finding.in_document(&self.origin.to_string(), self.first_line, self.text)
    }
}

/// What was compiled the time before.
#[derive(Default)]
pub struct Cache {
    services: HashMap<Name, CachedService>,
    routes: HashMap<Name, CachedRoute>,
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
        problems.extend(findings.map(|finding| document.problem(finding)));
    }
    let chosen = choose(placed, &mut problems);
    let services = services::compile(&chosen, &mut cache.services, &mut problems);
    let gateways = gateways::gateways(&chosen);
    let routes = routes::compile(
        &chosen,
        &services,
        &gateways,
        &mut cache.routes,
        &mut problems,
    );
    let binds = gateways::binds(&gateways, &routes, &services, &mut problems);
    let snapshot = Snapshot {
        revision: 0,
        binds,
        mesh_routes: routes.mesh,
        services: services.compiled,
    };
    (snapshot, problems)
}

/// One document for each identity: a file's before the registry's; two of a kind are a problem.
fn choose<'p>(placed: &'p [Placed<'p>], problems: &mut Vec<Problem>) -> Vec<&'p Placed<'p>> {
    let mut chosen: HashMap<&Identity, usize> = HashMap::with_capacity(placed.len());
    for (index, document) in placed.iter().enumerate() {
        let Some(head) = &document.document.head else {
            continue;
        };
        let Some(&first) = chosen.get(&head.identity) else {
            chosen.insert(&head.identity, index);
            continue;
        };
        let winner = match (
            placed[first].origin.is_registry(),
            document.origin.is_registry(),
        ) {
            (true, false) => index,
            _ => first,
        };
        let loser = if winner == index { first } else { index };
        problems.push(clash(&placed[winner], &placed[loser], head));
        chosen.insert(&head.identity, winner);
    }
    let mut chosen: Vec<usize> = chosen.into_values().collect();
    chosen.sort_unstable();
    chosen.into_iter().map(|index| &placed[index]).collect()
}

fn clash(winner: &Placed<'_>, loser: &Placed<'_>, head: &Head) -> Problem {
    let identity = &head.identity;
    let spot = match &loser.document.head {
        Some(head) => head.spot.clone(),
        None => Default::default(),
    };
    let line = winner.first_line
        + winner
            .document
            .head
            .as_ref()
            .map_or(0, |head| head.spot.mark.line.saturating_sub(1));
    let place = format!("{}:{line}", winner.origin);
    let mut finding = if loser.origin.is_registry() && !winner.origin.is_registry() {
        let message = format!("{identity} of the registry is not used");
        Finding::warning(
            spot,
            message,
            format!("the file's takes its place: {place}"),
        )
    } else {
        let message = format!("{identity} is there twice");
        Finding::error(spot, message, format!("the first is {place}"))
    };
    if finding.severity == Severity::Warning {
        finding.severity = Severity::Note;
    }
    loser.problem(&finding)
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
