//! Routes judged by the interfaces of the services they lead to: whether there is a request that a rule matches and an operation
//! serves. The files are read here.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::{Part, Placed, choose, parts};
use crate::config::problem::{Finding, Problem};
use crate::config::spec::{BackendRef, Kind, RouteSpec, RuleSpec, ServiceSpec, Spec};
use crate::interface::Interface;
use crate::model::{
    Filter, Name, PathMatch, PathModifier, RouteKind, RouteMatch, Snapshot, UrlRewrite,
};

/// Operations that are named to whoever asks for another.
const NEAREST: usize = 3;

/// What is to say of these documents, of which `snapshot` was compiled.
pub fn interfaces(placed: &[Placed<'_>], snapshot: &Snapshot) -> Vec<Problem> {
    if snapshot
        .services
        .values()
        .all(|service| service.api.is_empty())
    {
        return Vec::new();
    }
    // What clashes has been told.
    let chosen = choose(placed, &mut Vec::new());
    let mut problems = Vec::new();
    let interfaces = read(&chosen, snapshot, &mut problems);
    for kind in [RouteKind::Http, RouteKind::Grpc] {
        let routes = parts(&chosen, Kind::Route(kind), |spec| match spec {
            Spec::Route(spec) => Some(spec),
            _ => None,
        });
        for route in routes {
            judge(kind, &route, &interfaces, &mut problems);
        }
    }
    problems
}

/// The interface of each service that has a usable one, also by the names of its subsets.
fn read(
    chosen: &[&Placed<'_>],
    snapshot: &Snapshot,
    problems: &mut Vec<Problem>,
) -> HashMap<Name, Arc<Interface>> {
    let services = parts(chosen, Kind::Service, |spec| match spec {
        Spec::Service(spec) => Some(spec),
        _ => None,
    });
    let mut interfaces = HashMap::new();
    for part in services {
        let Some(service) = snapshot.services.get(part.name()) else {
            continue;
        };
        let (interface, unusable) = Interface::read(&service.api);
        for one in &unusable {
            let ServiceSpec { api_spots, .. } = part.spec;
            let files = service.api.iter().zip(api_spots);
            let spots = files.filter(|(file, _)| **file == one.file);
            problems.extend(spots.map(|(_, spot)| {
                let finding = Finding::error(spot.clone(), one.to_string(), one.hint);
                part.placed.page.problem(&finding)
            }));
        }
        if service.api.is_empty() || !unusable.is_empty() {
            continue;
        }
        let interface = Arc::new(interface);
        let subsets = service.subsets.iter().map(|subset| Name {
            namespace: Arc::clone(&service.name.namespace),
            name: Arc::clone(&subset.name),
        });
        let names = std::iter::once(service.name.clone()).chain(subsets);
        interfaces.extend(names.map(|name| (name, Arc::clone(&interface))));
    }
    interfaces
}

fn judge(
    kind: RouteKind,
    route: &Part<'_, RouteSpec>,
    interfaces: &HashMap<Name, Arc<Interface>>,
    problems: &mut Vec<Problem>,
) {
    for rule in &route.spec.rules {
        for backend in &rule.backends {
            let service = backend.service(&route.name().namespace).ok();
            let Some((name, interface)) = service.and_then(|name| interfaces.get_key_value(&name))
            else {
                continue;
            };
            let unserved = unserved(kind, rule, backend, interface);
            problems.extend(unserved.into_iter().map(|(asked, nearest)| {
                let message = format!("no operation of {name} serves {asked}");
                let hint = format!("its interface has {nearest}");
                let finding = Finding::warning(backend.spot.clone(), message, hint);
                route.placed.page.problem(&finding)
            }));
        }
    }
}

/// What a backend is asked for in vain, and the operations nearest to it.
fn unserved(
    kind: RouteKind,
    rule: &RuleSpec,
    backend: &BackendRef,
    interface: &Interface,
) -> BTreeSet<(String, String)> {
    let filters: Vec<&Filter> = rule.filters.iter().chain(&backend.filters).collect();
    let asked = rule.matches.iter().map(|conditions| {
        let method = match kind {
            RouteKind::Grpc => Some("POST"),
            _ => conditions.method.as_deref(),
        };
        (method, rewritten(conditions, &filters))
    });
    let unserved = asked.filter(|(method, path)| !interface.may_serve(*method, path));
    let told = unserved.map(|(method, path)| {
        let path = match path {
            PathMatch::Exact(path) => path.to_string(),
            PathMatch::Prefix(prefix) => format!("{prefix}/…"),
            PathMatch::Regex(regex) => format!("/… like {regex}"),
            PathMatch::Method(method) => format!("/…/{method}"),
        };
        let nearest = interface.nearest(&path, NEAREST);
        let asked = method.map(|method| format!("{method} {path}"));
        (asked.unwrap_or(path), nearest)
    });
    told.collect()
}

/// The path that the backend is asked for.
fn rewritten(conditions: &RouteMatch, filters: &[&Filter]) -> PathMatch {
    let rewrites = filters.iter().filter_map(|filter| match filter {
        Filter::UrlRewrite(UrlRewrite { path, .. }) => path.as_ref(),
        _ => None,
    });
    rewrites.fold(conditions.path.clone(), |path, rewrite| {
        match (rewrite, path) {
            (PathModifier::Full(path), _) => PathMatch::Exact(Arc::clone(path)),
            (PathModifier::Prefix(prefix), PathMatch::Prefix(_)) => {
                PathMatch::Prefix(Arc::clone(prefix))
            }
            (PathModifier::Prefix(_), path) => path,
        }
    })
}
