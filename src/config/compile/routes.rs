use std::collections::HashMap;
use std::sync::Arc;

use super::gateways::{Gateways, ListenerId};
use super::services::{Services, Unresolved};
use super::{Part, Placed, parts};
use crate::config::problem::{Finding, Problem};
use crate::config::source::Origin;
use crate::config::spec::{
    AllowedNamespaces, BackendRef, Document, Form, Kind, ListenerProtocol, ListenerSpec,
    ParentKind, ParentRef, RouteSpec, Spec,
};
use crate::model::{Backend, BackendTarget, HostPattern, Mirror, Name, Route, Rule, ServiceParent};

/// A route as it was compiled, and the document it was compiled from.
pub struct CachedRoute {
    document: Arc<Document>,
    route: Arc<Route>,
}

/// All routes, where they apply.
pub struct Routes {
    pub mesh: Vec<Arc<Route>>,
    listeners: HashMap<ListenerId, Vec<Arc<Route>>>,
}

impl Routes {
    pub fn of(&self, listener: ListenerId) -> &[Arc<Route>] {
        self.listeners.get(&listener).map_or(&[], Vec::as_slice)
    }
}

pub fn compile<'p>(
    chosen: &[&'p Placed<'p>],
    services: &Services<'_>,
    gateways: &Gateways<'p>,
    cache: &mut HashMap<Name, CachedRoute>,
    problems: &mut Vec<Problem>,
) -> Routes {
    let parts = parts(chosen, Kind::HttpRoute, |spec| match spec {
        Spec::HttpRoute(spec) => Some(spec),
        _ => None,
    });
    let mut routes = Routes {
        mesh: Vec::new(),
        listeners: HashMap::new(),
    };
    let mut kept = HashMap::with_capacity(parts.len());
    for part in &parts {
        let mut compiler = RouteCompiler {
            part,
            services,
            gateways,
            findings: Vec::new(),
        };
        let reach = compiler.reach();
        let route = compiler.route(&reach, cache.remove(part.name()));
        problems.extend(
            compiler
                .findings
                .iter()
                .map(|finding| part.placed.page.problem(finding)),
        );
        reach.attach(&route, gateways, &mut routes);
        let document = Arc::clone(&part.placed.document);
        kept.insert(part.name().clone(), CachedRoute { document, route });
    }
    *cache = kept;
    routes
}

/// Where a route applies.
#[derive(Default)]
struct Reach {
    listeners: Vec<ListenerId>,
    parents: Vec<ServiceParent>,
    /// By hostname, in the outbound traffic of sidecars.
    mesh: bool,
}

impl Reach {
    fn attach(&self, route: &Arc<Route>, gateways: &Gateways<'_>, routes: &mut Routes) {
        if self.mesh || !self.parents.is_empty() {
            routes.mesh.push(Arc::clone(route));
        }
        for id in &self.listeners {
            let hostname = gateways.listener(*id).hostname.as_ref();
            let narrowed = narrowed(route, hostname);
            routes.listeners.entry(*id).or_default().push(narrowed);
        }
    }
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

/// Is there a host that both match?
fn overlap(one: &HostPattern, other: &HostPattern) -> bool {
    match (one, other) {
        (HostPattern::Exact(one), HostPattern::Exact(other)) => one == other,
        (HostPattern::Exact(host), HostPattern::Wildcard(suffix))
        | (HostPattern::Wildcard(suffix), HostPattern::Exact(host)) => is_below(host, suffix),
        (HostPattern::Wildcard(one), HostPattern::Wildcard(other)) => {
            one == other || is_below(one, other) || is_below(other, one)
        }
    }
}

fn is_below(host: &str, suffix: &str) -> bool {
    let labels = host
        .strip_suffix(suffix)
        .and_then(|rest| rest.strip_suffix('.'));
    labels.is_some_and(|labels| !labels.is_empty())
}

struct RouteCompiler<'c, 'p> {
    part: &'c Part<'p, RouteSpec>,
    services: &'c Services<'c>,
    gateways: &'c Gateways<'p>,
    findings: Vec<Finding>,
}

impl RouteCompiler<'_, '_> {
    fn reach(&mut self) -> Reach {
        let mut reach = Reach::default();
        for parent in &self.part.spec.parents {
            match parent.kind {
                ParentKind::Gateway => self.attach_to_gateway(parent, &mut reach),
                ParentKind::Service => self.attach_to_service(parent, &mut reach),
            }
        }
        if self.part.spec.parents.is_empty() {
            self.reach_of_orphan(&mut reach);
        }
        reach.listeners.sort_unstable();
        reach.listeners.dedup();
        reach
    }

    /// A route without `parentRefs`.
    fn reach_of_orphan(&mut self, reach: &mut Reach) {
        if self.part.head.form == Form::Full {
            let hint = "say `parentRefs`, or write the short form, which needs none";
            return self.warn("this route applies to nothing", hint);
        }
        reach.mesh = !self.part.spec.hostnames.is_empty();
        for &gateway in self.gateways.of_namespace(&self.part.name().namespace) {
            let listeners = self.gateways.listeners(gateway);
            let open = listeners.filter(|(_, listener)| self.fits(listener));
            reach.listeners.extend(open.map(|(id, _)| id));
        }
        if !reach.mesh && reach.listeners.is_empty() {
            let hint = "say `hostnames`, or add a Gateway to its namespace";
            self.warn("this route applies to nothing", hint);
        }
    }

    fn warn(&mut self, message: &str, hint: &str) {
        let spot = self.part.head.spot.clone();
        self.findings.push(Finding::warning(spot, message, hint));
    }

    fn fits(&self, listener: &ListenerSpec) -> bool {
        let hostnames = &self.part.spec.hostnames;
        let host = match &listener.hostname {
            Some(listener) if !hostnames.is_empty() => {
                hostnames.iter().any(|hostname| overlap(hostname, listener))
            }
            _ => true,
        };
        host && listener.protocol != ListenerProtocol::Tcp
    }

    fn attach_to_gateway(&mut self, parent: &ParentRef, reach: &mut Reach) {
        let namespace = &self.part.name().namespace;
        let name = Name {
            namespace: Arc::clone(parent.namespace.as_ref().unwrap_or(namespace)),
            name: Arc::clone(&parent.name),
        };
        let Some(gateway) = self.gateways.named(&name) else {
            let hint = match self.gateways.near(&name) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "add a document `kind: Gateway` of that name".to_owned(),
            };
            let message = format!("there is no Gateway {name}");
            return self
                .findings
                .push(Finding::error(parent.spot.clone(), message, hint));
        };
        if let Err(why) = self.attach_to_listeners(parent, gateway, reach) {
            let Unresolved { message, hint } = why;
            self.findings
                .push(Finding::error(parent.spot.clone(), message, hint));
        }
    }

    /// The listeners a parent reference means, narrowed step by step; the step that leaves none is what is wrong.
    fn attach_to_listeners(
        &self,
        parent: &ParentRef,
        gateway: usize,
        reach: &mut Reach,
    ) -> Result<(), Unresolved> {
        let name = self.gateways.name(gateway);
        let unresolved = |message: String, hint: &str| Unresolved {
            message,
            hint: hint.to_owned(),
        };
        let mut listeners: Vec<_> = self.gateways.listeners(gateway).collect();
        let known: Vec<&str> = listeners.iter().map(|(_, spec)| &*spec.name).collect();
        let known = format!("it has {}", known.join(", "));
        if let Some(section) = &parent.section {
            listeners.retain(|(_, spec)| spec.name == *section);
        }
        if let Some(port) = parent.port {
            listeners.retain(|(_, spec)| spec.port == port);
        }
        if listeners.is_empty() {
            return Err(unresolved(
                format!("Gateway {name} has no such listener"),
                &known,
            ));
        }
        listeners.retain(|(_, spec)| {
            let same = name.namespace == self.part.name().namespace;
            same || spec.allowed == AllowedNamespaces::All
        });
        if listeners.is_empty() {
            let message = format!("Gateway {name} takes no routes of other namespaces");
            let hint = "say `allowedRoutes: {namespaces: {from: All}}` in its listener";
            return Err(unresolved(message, hint));
        }
        listeners.retain(|(_, spec)| self.fits(spec));
        if listeners.is_empty() {
            let message = format!("no listener of Gateway {name} has a hostname of this route");
            return Err(unresolved(
                message,
                "make the hostnames meet, or leave one side's out",
            ));
        }
        reach.listeners.extend(listeners.iter().map(|(id, _)| *id));
        Ok(())
    }

    fn attach_to_service(&mut self, parent: &ParentRef, reach: &mut Reach) {
        let namespace = &self.part.name().namespace;
        let service = Name {
            namespace: Arc::clone(parent.namespace.as_ref().unwrap_or(namespace)),
            name: Arc::clone(&parent.name),
        };
        match self.services.resolve(&service, parent.port) {
            Ok(cluster) if cluster.subset.is_none() => {
                reach.parents.push(ServiceParent {
                    service,
                    port: parent.port,
                });
            }
            Ok(cluster) => {
                let message = format!("{service} is a subset of {}", cluster.service);
                let hint = "attach to the service itself";
                self.findings
                    .push(Finding::error(parent.spot.clone(), message, hint));
            }
            Err(Unresolved { message, hint }) => {
                self.findings
                    .push(Finding::error(parent.spot.clone(), message, hint));
            }
        }
    }

    /// The compiled route: the one of last time where nothing about it changed.
    fn route(&mut self, reach: &Reach, cached: Option<CachedRoute>) -> Arc<Route> {
        let targets = self.targets(reach);
        let created = self.created();
        if let Some(CachedRoute { document, route }) = cached
            && Arc::ptr_eq(&document, &self.part.placed.document)
            && route.created == created
            && route.parents == reach.parents
            && route_targets(&route).eq(targets.iter().flatten())
        {
            return route;
        }
        let rules = self.part.spec.rules.iter().zip(targets);
        let rules = rules.map(|(rule, targets)| {
            let mut of_backends = targets;
            let of_mirrors = of_backends.split_off(rule.backends.len());
            let backends = rule.backends.iter().zip(of_backends);
            let mirrors = rule.mirrors.iter().zip(of_mirrors);
            Rule {
                name: rule.name.clone(),
                matches: rule.matches.clone(),
                filters: rule.filters.clone(),
                backends: backends
                    .map(|(backend, target)| compiled_backend(backend, target))
                    .collect(),
                mirrors: mirrors
                    .map(|(mirror, target)| Mirror {
                        target,
                        chance: mirror.chance,
                    })
                    .collect(),
                timeouts: rule.timeouts,
                retry: rule.retry.clone(),
                hedge: rule.hedge,
            }
        });
        Arc::new(Route {
            name: self.part.name().clone(),
            hostnames: self.part.spec.hostnames.clone(),
            parents: reach.parents.clone(),
            created,
            rules: rules.collect(),
        })
    }

    /// What each rule's backends and then its mirrors resolve to.
    fn targets(&mut self, reach: &Reach) -> Vec<Vec<BackendTarget>> {
        let rules = self.part.spec.rules.iter();
        let targets = rules.map(|rule| {
            let mirrors = rule.mirrors.iter().map(|mirror| &mirror.backend);
            let backends = rule.backends.iter().chain(mirrors);
            backends
                .map(|backend| self.target(backend, reach))
                .collect()
        });
        targets.collect()
    }

    fn target(&mut self, backend: &BackendRef, reach: &Reach) -> BackendTarget {
        let namespace = &self.part.name().namespace;
        let referent = backend.referent(namespace);
        let crosses = referent.namespace != *namespace;
        let resolved = if crosses && !reach.listeners.is_empty() {
            Err(needs_a_grant(&referent))
        } else {
            self.services.resolve(&referent, backend.port)
        };
        match resolved {
            Ok(cluster) => BackendTarget::Cluster(cluster),
            Err(Unresolved { message, hint }) => {
                self.findings
                    .push(Finding::error(backend.spot.clone(), &message, hint));
                BackendTarget::Invalid(message.into())
            }
        }
    }

    fn created(&self) -> i64 {
        let revision = match self.part.placed.origin {
            Origin::Registry { revision, .. } => i64::try_from(*revision).unwrap_or(i64::MAX),
            Origin::File(_) | Origin::Text(_) => 0,
        };
        self.part.head.created.unwrap_or(revision)
    }
}

pub fn needs_a_grant(referent: &Name) -> Unresolved {
    Unresolved {
        message: format!("service {referent} is in another namespace"),
        hint: "that needs a ReferenceGrant, which is not built yet; move the route there"
            .to_owned(),
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
}

fn compiled_backend(backend: &BackendRef, target: BackendTarget) -> Backend {
    Backend {
        target,
        weight: backend.weight,
        filters: backend.filters.clone(),
    }
}

fn route_targets(route: &Route) -> impl Iterator<Item = &BackendTarget> {
    route.rules.iter().flat_map(|rule| {
        let backends = rule.backends.iter().map(|backend| &backend.target);
        backends.chain(rule.mirrors.iter().map(|mirror| &mirror.target))
    })
}
