//! Routes of different kinds never share hosts of a listener, nor a service: whose they are.
//!
//! On a listener the older route has them (Gateway API, `GRPCRoute.spec.hostnames`); at a service the more specific kind
//! (GEP-1426: gRPC before HTTP).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::gateways::ListenerId;
use super::reach::{Belonging, overlap};
use super::references::Unresolved;
use super::routes::Draft;
use crate::model::{HostPattern, RouteKind};

/// Where routes of two kinds may meet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Ground {
    Listener(ListenerId),
    /// All sidecars, by hostname.
    Mesh,
}

/// Takes routes away from where a rival of another kind is.
pub fn settle(drafts: &mut [Draft<'_>]) {
    let mut kinds = drafts.iter().map(|draft| draft.kind);
    let first = kinds.next();
    if kinds.all(|kind| Some(kind) == first) {
        return;
    }
    let mut order: Vec<usize> = (0..drafts.len()).collect();
    order.sort_by_cached_key(|&index| {
        (drafts[index].created, drafts[index].part.name().to_string())
    });
    settle_hosts(drafts, &order);
    order.sort_by_key(|&index| Reverse(drafts[index].kind));
    settle_services(drafts, &order);
}

fn settle_hosts(drafts: &mut [Draft<'_>], oldest_first: &[usize]) {
    let mut taken: BTreeMap<Ground, Vec<usize>> = BTreeMap::new();
    for &index in oldest_first {
        for ground in grounds(&drafts[index]) {
            let before = taken.entry(ground.clone()).or_default();
            let rival = before
                .iter()
                .find(|&&other| are_rivals(&drafts[index], &drafts[other]));
            match rival.copied() {
                None => before.push(index),
                Some(rival) => yield_hosts(drafts, index, rival, &ground),
            }
        }
    }
}

fn grounds(draft: &Draft<'_>) -> Vec<Ground> {
    let listeners = draft.reach.listeners().into_iter().map(Ground::Listener);
    listeners
        .chain(draft.reach.mesh.then_some(Ground::Mesh))
        .collect()
}

fn are_rivals(one: &Draft<'_>, other: &Draft<'_>) -> bool {
    let (ours, theirs) = (&one.part.spec.hostnames, &other.part.spec.hostnames);
    let meet = |host: &HostPattern| theirs.iter().any(|other| overlap(host, other));
    one.kind != other.kind && (ours.is_empty() || theirs.is_empty() || ours.iter().any(meet))
}

fn yield_hosts(drafts: &mut [Draft<'_>], index: usize, rival: usize, ground: &Ground) {
    let why = lost_to(
        &drafts[rival],
        "has these hostnames",
        "choose other hostnames",
    );
    let draft = &mut drafts[index];
    let lost = |one: &&mut Belonging| match ground {
        Ground::Listener(id) => one.listeners.contains(id),
        Ground::Mesh => one.is_mesh(),
    };
    for belonging in draft.reach.belongings.iter_mut().filter(lost) {
        if let Ground::Listener(id) = ground {
            belonging.listeners.retain(|listener| listener != id);
        }
        if belonging.listeners.is_empty() {
            draft.findings.push(belonging.refuse(&why));
        }
    }
    draft.reach.mesh &= *ground != Ground::Mesh;
}

fn settle_services(drafts: &mut [Draft<'_>], most_specific_first: &[usize]) {
    let mut taken: Vec<(usize, RouteKind, crate::model::ServiceParent)> = Vec::new();
    for &index in most_specific_first {
        let kind = drafts[index].kind;
        for place in 0..drafts[index].reach.belongings.len() {
            let Some(ours) = drafts[index].reach.belongings[place].service.clone() else {
                continue;
            };
            let rival = taken.iter().find(|(_, other, theirs)| {
                let ports = [ours.port, theirs.port];
                let meet = ports[0] == ports[1] || ports.contains(&None);
                *other != kind && theirs.service == ours.service && meet
            });
            match rival {
                None => taken.push((index, kind, ours)),
                Some(&(rival, ..)) => {
                    let hint = "attach all routes of a service with one kind";
                    let why = lost_to(&drafts[rival], "is attached to this service", hint);
                    let draft = &mut drafts[index];
                    let finding = draft.reach.belongings[place].refuse(&why);
                    draft.findings.push(finding);
                }
            }
        }
    }
}

fn lost_to(rival: &Draft<'_>, has: &str, hint: &str) -> Unresolved {
    let message = format!("{} {} {has}", rival.kind.as_str(), rival.part.name());
    Unresolved::new("HostnameConflict", message, hint)
}
