use std::collections::HashMap;
use std::sync::Arc;

use super::gateways::{Gateways, ListenerId};
use super::reach::{Attachment, Reach, overlap};
use super::references::{Grants, Referrer, Unresolved};
use super::services::Services;
use super::{Part, Placed, parts, rivals};
use crate::config::problem::{Finding, Problem};
use crate::config::source::Origin;
use crate::config::spec::{BackendRef, Document, Kind, MirrorSpec, RouteSpec, Spec};
use crate::model::{
    Backend, BackendTarget, HostPattern, Mirror, Name, Route, RouteKind, Rule, ServiceParent,
    Status,
};

/// A route as it was compiled, and the document it was compiled from.
pub struct CachedRoute {
    document: Arc<Document>,
    route: Arc<Route>,
}

pub type RouteCache = HashMap<(RouteKind, Name), CachedRoute>;

/// All routes, where they apply.
#[derive(Default)]
pub struct Routes {
    pub mesh: Vec<Arc<Route>>,
    pub statuses: Vec<Status>,
    listeners: HashMap<ListenerId, Vec<Arc<Route>>>,
}

impl Routes {
    pub fn of(&self, listener: ListenerId) -> &[Arc<Route>] {
        self.listeners.get(&listener).map_or(&[], Vec::as_slice)
    }

    fn attach(&mut self, route: &Arc<Route>, reach: &Reach, gateways: &Gateways<'_>) {
        if reach.mesh || !route.parents.is_empty() {
            self.mesh.push(Arc::clone(route));
        }
        for id in reach.listeners() {
            let hostname = gateways.listener(id).hostname.as_ref();
            let narrowed = narrowed(route, hostname);
            self.listeners.entry(id).or_default().push(narrowed);
        }
    }
}

/// A route of which is known where it applies, not yet where its requests go.
pub struct Draft<'p> {
    pub kind: RouteKind,
    pub part: Part<'p, RouteSpec>,
    pub created: i64,
    pub reach: Reach,
    pub findings: Vec<Finding>,
}

pub fn compile<'p>(
    chosen: &[&'p Placed<'p>],
    services: &Services<'_>,
    gateways: &Gateways<'p>,
    grants: &Grants<'p>,
    cache: &mut RouteCache,
    problems: &mut Vec<Problem>,
) -> Routes {
    let mut drafts = drafts(chosen, services, gateways);
    rivals::settle(&mut drafts);
    let mut routes = Routes::default();
    let mut kept = HashMap::with_capacity(drafts.len());
    for mut draft in drafts {
        let key = (draft.kind, draft.part.name().clone());
        let (route, unresolved) = draft.route(services, grants, cache.remove(&key));
        routes.attach(&route, &draft.reach, gateways);
        let page = &draft.part.placed.page;
        problems.extend(draft.findings.iter().map(|finding| page.problem(finding)));
        routes.statuses.push(Status {
            kind: draft.kind.as_str(),
            name: draft.part.name().clone(),
            conditions: Vec::new(),
            listeners: Vec::new(),
            parents: draft.reach.statuses(unresolved.as_ref()),
        });
        let document = Arc::clone(&draft.part.placed.document);
        kept.insert(key, CachedRoute { document, route });
    }
    *cache = kept;
    routes
}

fn drafts<'p>(
    chosen: &[&'p Placed<'p>],
    services: &Services<'_>,
    gateways: &Gateways<'p>,
) -> Vec<Draft<'p>> {
    let of_kind = |kind| {
        let parts = parts(chosen, Kind::Route(kind), |spec| match spec {
            Spec::Route(spec) => Some(spec),
            _ => None,
        });
        parts.into_iter().map(move |part| (kind, part))
    };
    let all = RouteKind::ALL.into_iter().flat_map(of_kind);
    let draft = |(kind, part): (RouteKind, Part<'p, RouteSpec>)| {
        let mut attachment = Attachment {
            kind,
            part: &part,
            services,
            gateways,
            findings: Vec::new(),
        };
        let reach = attachment.reach();
        Draft {
            kind,
            created: created(&part),
            reach,
            findings: attachment.findings,
            part,
        }
    };
    all.map(draft).collect()
}

/// Age, for precedence: what Kubernetes says, else when the registry took it, else 0.
fn created(part: &Part<'_, RouteSpec>) -> i64 {
    let revision = match part.placed.origin {
        Origin::Registry { revision, .. } => i64::try_from(*revision).unwrap_or(i64::MAX),
        Origin::File(_) | Origin::Text(_) => 0,
    };
    part.head.created.unwrap_or(revision)
}

/// The route with those of its hostnames that a listener's requests can have. They stay as written, not cut down to the
/// listener's, as the more exact of two routes must win by what each says.
fn narrowed(route: &Arc<Route>, listener: Option<&HostPattern>) -> Arc<Route> {
    let Some(listener) = listener else {
        return Arc::clone(route);
    };
    if route
        .hostnames
        .iter()
        .all(|hostname| overlap(hostname, listener))
    {
        return Arc::clone(route);
    }
    let mut narrowed = Route::clone(route);
    narrowed
        .hostnames
        .retain(|hostname| overlap(hostname, listener));
    Arc::new(narrowed)
}

impl Draft<'_> {
    /// The compiled route, which is the one of last time where nothing about it changed; and the first reference that leads nowhere.
    fn route(
        &mut self,
        services: &Services<'_>,
        grants: &Grants<'_>,
        cached: Option<CachedRoute>,
    ) -> (Arc<Route>, Option<Unresolved>) {
        let mut unresolved = None;
        let targets = self.targets(services, grants, &mut unresolved);
        let parents = self.reach.services();
        if let Some(CachedRoute { document, route }) = cached
            && Arc::ptr_eq(&document, &self.part.placed.document)
            && route.created == self.created
            && route.parents == parents
            && route_targets(&route).eq(targets.iter().flatten())
        {
            return (route, unresolved);
        }
        (Arc::new(self.compiled(parents, targets)), unresolved)
    }

    fn compiled(&self, parents: Vec<ServiceParent>, targets: Vec<Vec<BackendTarget>>) -> Route {
        let rules = self.part.spec.rules.iter().zip(targets);
        let rules = rules.map(|(rule, targets)| {
            let mut of_backends = targets;
            let of_mirrors = &mut of_backends.split_off(rule.backends.len()).into_iter();
            let mirrors = compiled_mirrors(&rule.mirrors, of_mirrors);
            let backends = rule.backends.iter().zip(of_backends);
            let backends = backends.map(|(backend, target)| Backend {
                target,
                weight: backend.weight,
                filters: backend.filters.clone(),
                mirrors: compiled_mirrors(&backend.mirrors, of_mirrors),
            });
            Rule {
                name: rule.name.clone(),
                matches: rule.matches.clone(),
                filters: rule.filters.clone(),
                backends: backends.collect(),
                mirrors,
                timeouts: rule.timeouts,
                retry: rule.retry.clone(),
                hedge: rule.hedge,
                session: rule.session.clone(),
            }
        });
        Route {
            kind: self.kind,
            name: self.part.name().clone(),
            hostnames: self.part.spec.hostnames.clone(),
            parents,
            created: self.created,
            rules: rules.collect(),
        }
    }

    /// What each rule's references resolve to.
    fn targets(
        &mut self,
        services: &Services<'_>,
        grants: &Grants<'_>,
        unresolved: &mut Option<Unresolved>,
    ) -> Vec<Vec<BackendTarget>> {
        let findings = &mut self.findings;
        let (part, kind) = (&self.part, Kind::Route(self.kind));
        let of_gateways = self.reach.is_of_gateways();
        let mut target = |backend: &BackendRef| {
            let from = Referrer {
                kind,
                namespace: &part.name().namespace,
            };
            let found = backend.service(from.namespace).and_then(|service| {
                // In the mesh, who may call whom is not the routes' to say.
                if of_gateways {
                    grants.check(from, "Service", &service)?;
                }
                services.resolve(&service, backend.port)
            });
            match found {
                Ok(cluster) => BackendTarget::Cluster(cluster),
                Err(why) => {
                    findings.push(why.finding(backend.spot.clone()));
                    let reason = why.message.as_str().into();
                    unresolved.get_or_insert(why);
                    BackendTarget::Invalid(reason)
                }
            }
        };
        let rules = part.spec.rules.iter();
        rules
            .map(|rule| rule.references().map(&mut target).collect())
            .collect()
    }
}

fn compiled_mirrors(
    mirrors: &[MirrorSpec],
    targets: &mut impl Iterator<Item = BackendTarget>,
) -> Vec<Mirror> {
    let mirrors = mirrors.iter().zip(targets);
    let compiled = mirrors.map(|(mirror, target)| Mirror {
        target,
        chance: mirror.chance,
    });
    compiled.collect()
}

/// In the order of the references.
fn route_targets(route: &Route) -> impl Iterator<Item = &BackendTarget> {
    route.rules.iter().flat_map(|rule| {
        let backends = rule.backends.iter().map(|backend| &backend.target);
        let of_backends = rule.backends.iter().flat_map(|backend| &backend.mirrors);
        let mirrors = rule.mirrors.iter().chain(of_backends);
        backends.chain(mirrors.map(|mirror| &mirror.target))
    })
}
