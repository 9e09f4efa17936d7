//! Where a route applies: the listeners and services that take it, and what its status says of each it belongs to.

use std::sync::Arc;

use super::Part;
use super::gateways::{Gateways, ListenerId};
use super::references::Unresolved;
use super::services::Services;
use crate::config::problem::{Finding, Spot};
use crate::config::spec::{Form, ListenerSpec, ParentKind, ParentRef, RouteSpec};
use crate::model::{Condition, HostPattern, Name, ParentStatus, RouteKind, ServiceParent};

/// Where a route applies.
#[derive(Default)]
pub struct Reach {
    pub belongings: Vec<Belonging>,
    /// By hostname, in the outbound traffic of sidecars.
    pub mesh: bool,
}

/// One of those that a route belongs to, by what it says or, without `parentRefs`, by its namespace and hostnames.
pub struct Belonging {
    parent: ParentStatus,
    pub spot: Spot,
    pub listeners: Vec<ListenerId>,
    pub service: Option<ServiceParent>,
}

impl Reach {
    pub fn listeners(&self) -> Vec<ListenerId> {
        let all = self.belongings.iter();
        let mut listeners: Vec<_> = all.flat_map(|one| one.listeners.iter().copied()).collect();
        listeners.sort_unstable();
        listeners.dedup();
        listeners
    }

    pub fn services(&self) -> Vec<ServiceParent> {
        let services = self.belongings.iter();
        services.filter_map(|one| one.service.clone()).collect()
    }

    pub fn is_of_gateways(&self) -> bool {
        self.belongings.iter().any(|one| !one.listeners.is_empty())
    }

    /// The status of each parent; `unresolved` is what is wrong with the first reference that leads nowhere.
    pub fn statuses(self, unresolved: Option<&Unresolved>) -> Vec<ParentStatus> {
        let resolved = match unresolved {
            None => Condition::holds("ResolvedRefs", "ResolvedRefs"),
            Some(why) => Condition::fails("ResolvedRefs", why.reason, &why.message),
        };
        let statuses = self.belongings.into_iter().map(|one| {
            let mut parent = one.parent;
            if parent.conditions.is_empty() {
                let accepted = Condition::holds("Accepted", "Accepted");
                parent.conditions.push(accepted);
            }
            parent.conditions.push(resolved.clone());
            parent
        });
        statuses.collect()
    }
}

impl Belonging {
    fn new(kind: &'static str, name: Name, spot: Spot) -> Self {
        Self {
            parent: ParentStatus {
                kind,
                name,
                section: None,
                port: None,
                conditions: Vec::new(),
            },
            spot,
            listeners: Vec::new(),
            service: None,
        }
    }

    /// Whether it stands for all sidecars.
    pub fn is_mesh(&self) -> bool {
        self.parent.kind == "Mesh"
    }

    /// Takes the route away from where it was taken, and says why.
    pub fn refuse(&mut self, why: &Unresolved) -> Finding {
        self.listeners.clear();
        self.service = None;
        let refused = Condition::fails("Accepted", why.reason, &why.message);
        self.parent.conditions = vec![refused];
        why.finding(self.spot.clone())
    }
}

/// Finds out where a route applies.
pub struct Attachment<'a, 'p> {
    pub kind: RouteKind,
    pub part: &'a Part<'p, RouteSpec>,
    pub services: &'a Services<'a>,
    pub gateways: &'a Gateways<'p>,
    pub findings: Vec<Finding>,
}

impl Attachment<'_, '_> {
    pub fn reach(&mut self) -> Reach {
        let parents = &self.part.spec.parents;
        if parents.is_empty() {
            return self.reach_of_orphan();
        }
        Reach {
            belongings: parents
                .iter()
                .map(|parent| self.belonging(parent))
                .collect(),
            mesh: false,
        }
    }

    fn belonging(&mut self, parent: &ParentRef) -> Belonging {
        let namespace = &self.part.name().namespace;
        let name = Name {
            namespace: Arc::clone(parent.namespace.as_ref().unwrap_or(namespace)),
            name: Arc::clone(&parent.name),
        };
        let kind = match parent.kind {
            ParentKind::Gateway => "Gateway",
            ParentKind::Service => "Service",
        };
        let mut belonging = Belonging::new(kind, name.clone(), parent.spot.clone());
        belonging.parent.section = parent.section.clone();
        belonging.parent.port = parent.port;
        let attached = match parent.kind {
            ParentKind::Gateway => self.listeners_of(parent, &name).map(|listeners| {
                belonging.listeners = listeners;
            }),
            ParentKind::Service => self.service_of(parent, name).map(|service| {
                belonging.service = Some(service);
            }),
        };
        if let Err(why) = attached {
            let finding = belonging.refuse(&why);
            self.findings.push(finding);
        }
        belonging
    }

    /// A route without `parentRefs`.
    fn reach_of_orphan(&mut self) -> Reach {
        let mut reach = Reach::default();
        if self.part.head.form == Form::Full {
            let hint = "say `parentRefs`, or write the short form, which needs none";
            self.warn("this route applies to nothing", hint);
            return reach;
        }
        let spot = &self.part.head.spot;
        for &gateway in self.gateways.of_namespace(&self.part.name().namespace) {
            let open = self.gateways.listeners(gateway);
            let open =
                open.filter(|(_, listener)| listener.takes(self.kind) && self.fits(listener));
            let name = self.gateways.name(gateway).clone();
            let belonging = Belonging {
                listeners: open.map(|(id, _)| id).collect(),
                ..Belonging::new("Gateway", name, spot.clone())
            };
            if !belonging.listeners.is_empty() {
                reach.belongings.push(belonging);
            }
        }
        let of_requests = matches!(self.kind, RouteKind::Http | RouteKind::Grpc);
        reach.mesh = of_requests && !self.part.spec.hostnames.is_empty();
        if reach.mesh {
            let everyone = Belonging::new("Mesh", Name::local("mesh"), spot.clone());
            reach.belongings.push(everyone);
        }
        if reach.belongings.is_empty() {
            let hint = "say `hostnames`, or add a Gateway to its namespace";
            self.warn("this route applies to nothing", hint);
        }
        reach
    }

    fn warn(&mut self, message: &str, hint: &str) {
        let spot = self.part.head.spot.clone();
        self.findings.push(Finding::warning(spot, message, hint));
    }

    fn fits(&self, listener: &ListenerSpec) -> bool {
        let hostnames = &self.part.spec.hostnames;
        match &listener.hostname {
            Some(listener) if !hostnames.is_empty() => {
                hostnames.iter().any(|hostname| overlap(hostname, listener))
            }
            _ => true,
        }
    }

    fn listeners_of(&self, parent: &ParentRef, name: &Name) -> Result<Vec<ListenerId>, Unresolved> {
        let Some(gateway) = self.gateways.named(name) else {
            let hint = match self.gateways.near(name) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "add a document `kind: Gateway` of that name".to_owned(),
            };
            let message = format!("there is no Gateway {name}");
            return Err(Unresolved::new("NoMatchingParent", message, hint));
        };
        self.listeners_that_take_it(parent, gateway)
    }

    /// The listeners a parent reference means, narrowed step by step; the step that leaves none is what is wrong.
    fn listeners_that_take_it(
        &self,
        parent: &ParentRef,
        gateway: usize,
    ) -> Result<Vec<ListenerId>, Unresolved> {
        let name = self.gateways.name(gateway);
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
            let message = format!("Gateway {name} has no such listener");
            return Err(Unresolved::new("NoMatchingParent", message, known));
        }
        let kind = self.kind.as_str();
        listeners.retain(|(_, spec)| spec.takes(self.kind));
        if listeners.is_empty() {
            let message = format!("Gateway {name} takes no {kind} there");
            let hint = "a listener's protocol and `allowedRoutes: {kinds}` say what it takes";
            return Err(Unresolved::new("NotAllowedByListeners", message, hint));
        }
        let namespace = &self.part.name().namespace;
        listeners.retain(|(_, spec)| self.gateways.allow(spec, name, namespace));
        if listeners.is_empty() {
            let message = format!("Gateway {name} takes no routes of namespace `{namespace}`");
            let hint = "its listener says `allowedRoutes: {namespaces: {from: All}}`, or selects namespaces";
            return Err(Unresolved::new("NotAllowedByListeners", message, hint));
        }
        listeners.retain(|(_, spec)| self.fits(spec));
        if listeners.is_empty() {
            let message = format!("no listener of Gateway {name} has a hostname of this route");
            let hint = "make the hostnames meet, or leave one side's out";
            return Err(Unresolved::new("NoMatchingListenerHostname", message, hint));
        }
        Ok(listeners.into_iter().map(|(id, _)| id).collect())
    }

    fn service_of(&self, parent: &ParentRef, service: Name) -> Result<ServiceParent, Unresolved> {
        if matches!(self.kind, RouteKind::Tls | RouteKind::Tcp) {
            let message = format!("a {} is for Gateways", self.kind.as_str());
            let hint = "connections to a service go to the service itself";
            return Err(Unresolved::new("UnsupportedValue", message, hint));
        }
        let port = parent.port;
        let cluster = self
            .services
            .resolve(&service, port)
            .map_err(|unresolved| Unresolved {
                reason: "NoMatchingParent",
                ..unresolved
            })?;
        if cluster.subset.is_some() {
            let message = format!("{service} is a subset of {}", cluster.service);
            let hint = "attach to the service itself";
            return Err(Unresolved::new("NoMatchingParent", message, hint));
        }
        Ok(ServiceParent { service, port })
    }
}

/// Is there a host that both match?
pub fn overlap(one: &HostPattern, other: &HostPattern) -> bool {
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
