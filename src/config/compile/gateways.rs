use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::references::{Grants, Namespaces, Referrer, Unresolved};
use super::routes::Routes;
use super::secrets::Secrets;
use super::services::{Services, certificate_in};
use super::{Part, Placed, parts};
use crate::config::decode::Suggester;
use crate::config::defaults;
use crate::config::problem::{Finding, Problem, Spot};
use crate::config::spec::{
    BackendRef, CertificateRef, GatewaySpec, Kind, ListenerProtocol, ListenerSpec, Spec, TlsSpec,
};
use crate::model::{
    Backend, BackendTarget, Bind, Certificate, Condition, HostPattern, Listener, ListenerStatus,
    ListenerTls, Name, Route, RouteKind, RouteMatch, Rule, Status, Timeouts, TlsMode,
};

/// All gateways, by name and by namespace.
pub struct Gateways<'p> {
    list: Vec<Part<'p, GatewaySpec>>,
    by_name: HashMap<Name, usize>,
    by_namespace: HashMap<Arc<str>, Vec<usize>>,
    namespaces: Namespaces<'p>,
    suggester: &'p Suggester,
}

/// A listener of a gateway, by position.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ListenerId {
    pub gateway: usize,
    pub listener: usize,
}

pub fn gateways<'p>(
    chosen: &[&'p Placed<'p>],
    namespaces: Namespaces<'p>,
    suggester: &'p Suggester,
) -> Gateways<'p> {
    let list = parts(chosen, Kind::Gateway, |spec| match spec {
        Spec::Gateway(spec) => Some(spec),
        _ => None,
    });
    let mut by_namespace: HashMap<Arc<str>, Vec<usize>> = HashMap::new();
    for (index, part) in list.iter().enumerate() {
        let namespace = Arc::clone(&part.name().namespace);
        by_namespace.entry(namespace).or_default().push(index);
    }
    let by_name = list
        .iter()
        .enumerate()
        .map(|(index, part)| (part.name().clone(), index));
    Gateways {
        by_name: by_name.collect(),
        list,
        by_namespace,
        namespaces,
        suggester,
    }
}

impl<'p> Gateways<'p> {
    pub fn named(&self, name: &Name) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The gateway of a namespace that a name that leads nowhere probably means.
    pub fn near(&self, name: &Name) -> Option<&str> {
        let known = self.of_namespace(&name.namespace).iter();
        let known = known.map(|gateway| &*self.name(*gateway).name);
        self.suggester.closest(&name.name, known)
    }

    pub fn of_namespace(&self, namespace: &str) -> &[usize] {
        self.by_namespace.get(namespace).map_or(&[], Vec::as_slice)
    }

    pub fn listeners(
        &self,
        gateway: usize,
    ) -> impl Iterator<Item = (ListenerId, &'p ListenerSpec)> {
        let listeners = self.list[gateway].spec.listeners.iter().enumerate();
        listeners.map(move |(listener, spec)| (ListenerId { gateway, listener }, spec))
    }

    pub fn listener(&self, id: ListenerId) -> &'p ListenerSpec {
        &self.list[id.gateway].spec.listeners[id.listener]
    }

    pub fn name(&self, gateway: usize) -> &Name {
        self.list[gateway].name()
    }

    /// Whether a listener of this gateway takes routes of a namespace.
    pub fn allow(&self, listener: &ListenerSpec, gateway: &Name, namespace: &str) -> bool {
        let allowed = &listener.allowed.namespaces;
        self.namespaces
            .allow(allowed, &gateway.namespace, namespace)
    }
}

/// The sockets of all gateways, with the listeners that share each; and what became of every gateway.
pub fn binds(
    gateways: &Gateways<'_>,
    routes: &Routes,
    services: &Services<'_>,
    grants: &Grants<'_>,
    secrets: &Secrets<'_>,
    problems: &mut Vec<Problem>,
) -> (Vec<Arc<Bind>>, Vec<Status>) {
    let mut sockets: BTreeMap<SocketAddr, Socket<'_, '_>> = BTreeMap::new();
    let mut statuses = Vec::new();
    for (index, gateway) in gateways.list.iter().enumerate() {
        check_names(gateway, problems);
        let mut listeners = Vec::new();
        for (id, spec) in gateways.listeners(index) {
            let mut compiler = ListenerCompiler {
                gateway,
                spec,
                services,
                grants,
                secrets,
                problems,
                unresolved: None,
            };
            let listener = Arc::new(compiler.listener(routes.of(id)));
            let unresolved = compiler.unresolved;
            let mut conflict = None;
            for address in addresses(gateway.spec)
                .into_iter()
                .filter(|_| !is_mute(&listener))
            {
                let address = SocketAddr::new(address, spec.port);
                let socket = sockets.entry(address).or_default();
                let listener = Arc::clone(&listener);
                let member = Member {
                    gateway,
                    spec,
                    listener,
                };
                if let Err(why) = socket.add(member, address) {
                    let finding = why.finding(spec.spot.clone());
                    problems.push(gateway.placed.page.problem(&finding));
                    conflict = Some(why);
                }
            }
            listeners.push(listener_status(&listener, spec, unresolved, conflict));
        }
        statuses.push(gateway_status(gateway.name(), listeners));
    }
    let binds = sockets
        .into_iter()
        .filter_map(|(address, socket)| socket.bind(address));
    (binds.map(Arc::new).collect(), statuses)
}

/// Without a certificate there is nothing to answer a client with.
fn is_mute(listener: &Listener) -> bool {
    listener
        .tls
        .as_ref()
        .is_some_and(|tls| tls.mode == TlsMode::Terminate && tls.certificates.is_empty())
}

fn listener_status(
    listener: &Listener,
    spec: &ListenerSpec,
    unresolved: Option<Unresolved>,
    conflict: Option<Unresolved>,
) -> ListenerStatus {
    let mut conditions = match &conflict {
        None => vec![
            Condition::holds("Accepted", "Accepted"),
            Condition::fails("Conflicted", "NoConflicts", ""),
        ],
        Some(why) => vec![
            Condition::fails("Accepted", why.reason, &why.message),
            Condition {
                holds: true,
                ..Condition::fails("Conflicted", why.reason, &why.message)
            },
        ],
    };
    conditions.push(match &unresolved {
        None => Condition::holds("ResolvedRefs", "ResolvedRefs"),
        Some(why) => Condition::fails("ResolvedRefs", why.reason, &why.message),
    });
    // Of what does not resolve, only a missing certificate keeps all traffic away.
    conditions.push(
        match conflict.or(unresolved.filter(|_| is_mute(listener))) {
            None => Condition::holds("Programmed", "Programmed"),
            Some(why) => Condition::fails("Programmed", "Invalid", why.message),
        },
    );
    ListenerStatus {
        name: Arc::clone(&spec.name),
        kinds: spec.kinds().into_iter().map(RouteKind::as_str).collect(),
        attached_routes: match spec.backend {
            Some(_) => 0,
            None => listener.routes.len(),
        },
        conditions,
    }
}

/// A gateway is accepted as long as one of its listeners is.
fn gateway_status(name: &Name, listeners: Vec<ListenerStatus>) -> Status {
    let holds = |listener: &ListenerStatus, condition: &str| {
        let mut conditions = listener.conditions.iter();
        conditions.any(|one| one.condition == condition && one.holds)
    };
    let all = |condition| listeners.iter().all(|listener| holds(listener, condition));
    let any = |condition| listeners.iter().any(|listener| holds(listener, condition));
    let accepted = match (all("Accepted"), any("Accepted")) {
        (true, _) => Condition::holds("Accepted", "Accepted"),
        (false, some) => Condition {
            holds: some,
            ..Condition::fails(
                "Accepted",
                "ListenersNotValid",
                "not every listener is valid",
            )
        },
    };
    let programmed = match listeners.is_empty() || any("Programmed") {
        true => Condition::holds("Programmed", "Programmed"),
        false => Condition::fails("Programmed", "Invalid", "no listener is valid"),
    };
    Status {
        kind: Kind::Gateway.as_str(),
        name: name.clone(),
        conditions: vec![accepted, programmed],
        listeners,
        parents: Vec::new(),
    }
}

fn addresses(spec: &GatewaySpec) -> Vec<IpAddr> {
    match &spec.addresses[..] {
        [] => vec![defaults::GATEWAY_ADDRESS],
        given => given.to_vec(),
    }
}

fn check_names(gateway: &Part<'_, GatewaySpec>, problems: &mut Vec<Problem>) {
    let mut names = HashSet::new();
    for listener in &gateway.spec.listeners {
        if !names.insert(&listener.name) {
            let message = format!("the listener `{}` is there twice", listener.name);
            let finding = Finding::error(listener.spot.clone(), message, "give it another name");
            problems.push(gateway.placed.page.problem(&finding));
        }
    }
}

/// What listens on one socket.
#[derive(Default)]
struct Socket<'g, 'p> {
    members: Vec<Member<'g, 'p>>,
    /// Which member has which hostname.
    hostnames: HashMap<Option<HostPattern>, usize>,
}

struct Member<'g, 'p> {
    gateway: &'g Part<'p, GatewaySpec>,
    spec: &'g ListenerSpec,
    listener: Arc<Listener>,
}

impl<'g, 'p> Socket<'g, 'p> {
    fn add(&mut self, member: Member<'g, 'p>, address: SocketAddr) -> Result<(), Unresolved> {
        self.check(&member, address)?;
        self.hostnames
            .insert(member.spec.hostname.clone(), self.members.len());
        self.members.push(member);
        Ok(())
    }

    fn check(&self, member: &Member<'g, 'p>, address: SocketAddr) -> Result<(), Unresolved> {
        let Some((other, reason, message)) = self.conflict(member, address) else {
            return Ok(());
        };
        let hint = format!(
            "that is listener `{}` of {}; choose another port, address or hostname",
            other.spec.name,
            other.gateway.name()
        );
        Err(Unresolved::new(reason, message, hint))
    }

    fn conflict(
        &self,
        member: &Member<'g, 'p>,
        address: SocketAddr,
    ) -> Option<(&Member<'g, 'p>, &'static str, String)> {
        let first = self.members.first()?;
        let (ours, theirs) = (member.spec.protocol, first.spec.protocol);
        if !self.goes_with(member.spec) {
            let (ours, theirs) = (ours.as_str(), theirs.as_str());
            let message = format!("{address} cannot be {ours} and {theirs} at once");
            return Some((first, "ProtocolConflict", message));
        }
        if ours == ListenerProtocol::Tcp {
            let message = format!("{address} has a TCP listener already");
            return Some((first, "HostnameConflict", message));
        }
        let same = *self.hostnames.get(&member.spec.hostname)?;
        let host = match &member.spec.hostname {
            Some(host) => format!("the hostname `{host}`"),
            None => "a listener for every hostname".to_owned(),
        };
        let message = format!("{address} has {host} already");
        Some((&self.members[same], "HostnameConflict", message))
    }

    /// TLS that is passed through goes with any other that is; what is left must be of one protocol.
    fn goes_with(&self, spec: &ListenerSpec) -> bool {
        let is_tls = |spec: &ListenerSpec| {
            matches!(
                spec.protocol,
                ListenerProtocol::Https | ListenerProtocol::Tls
            )
        };
        self.members.iter().all(|member| {
            let passes = member.spec.passes_through() || spec.passes_through();
            let both_tls = is_tls(member.spec) && is_tls(spec);
            member.spec.protocol == spec.protocol || (passes && both_tls)
        })
    }

    fn bind(self, address: SocketAddr) -> Option<Bind> {
        self.members.first()?;
        let read = |member: &&Member<'_, '_>| !member.spec.passes_through();
        let protocol = self
            .members
            .iter()
            .find(read)
            .map(|member| member.spec.protocol);
        Some(Bind {
            address,
            tls: matches!(
                protocol,
                Some(ListenerProtocol::Https | ListenerProtocol::Tls)
            ),
            opaque: !matches!(
                protocol,
                Some(ListenerProtocol::Http | ListenerProtocol::Https)
            ),
            listeners: self
                .members
                .into_iter()
                .map(|member| member.listener)
                .collect(),
        })
    }
}

/// One listener of a gateway, and what stands against it.
struct ListenerCompiler<'c, 'p> {
    gateway: &'c Part<'p, GatewaySpec>,
    spec: &'c ListenerSpec,
    services: &'c Services<'c>,
    grants: &'c Grants<'p>,
    secrets: &'c Secrets<'p>,
    problems: &'c mut Vec<Problem>,
    /// The first reference that leads nowhere.
    unresolved: Option<Unresolved>,
}

impl ListenerCompiler<'_, '_> {
    fn listener(&mut self, routes: &[Arc<Route>]) -> Listener {
        let routes = match &self.spec.backend {
            Some(backend) => vec![Arc::new(self.tcp_route(backend))],
            None => routes.to_vec(),
        };
        self.check_kinds();
        let tls = self.spec.tls.as_ref().map(|tls| ListenerTls {
            mode: tls.mode,
            certificates: self.certificates(tls),
        });
        Listener {
            gateway: self.gateway.name().clone(),
            name: Arc::clone(&self.spec.name),
            hostname: self.spec.hostname.clone(),
            tls,
            routes,
            on_half_close: self.spec.on_half_close,
            path: self.spec.path,
        }
    }

    fn certificates(&mut self, tls: &TlsSpec) -> Vec<Certificate> {
        let folder = self.gateway.placed.origin.folder();
        let of_files = tls.certificates.iter();
        let mut certificates: Vec<_> = of_files.map(|pair| certificate_in(pair, folder)).collect();
        for reference in &tls.refs {
            match self.certificate(reference) {
                Ok(certificate) => certificates.push(certificate),
                Err(why) => self.miss(why, &reference.spot),
            }
        }
        certificates
    }

    fn certificate(&self, reference: &CertificateRef) -> Result<Certificate, Unresolved> {
        if *reference.kind != *"Secret" {
            let message = format!("a certificate is not taken from a {}", reference.kind);
            let hint = "refer to a Secret";
            return Err(Unresolved::new("InvalidCertificateRef", message, hint));
        }
        let own = &self.gateway.name().namespace;
        let secret = Name {
            namespace: Arc::clone(reference.namespace.as_ref().unwrap_or(own)),
            name: Arc::clone(&reference.name),
        };
        let from = Referrer {
            kind: Kind::Gateway,
            namespace: own,
        };
        self.grants.check(from, "Secret", &secret)?;
        self.secrets.certificate(&secret)
    }

    /// A kind that cannot attach is told; those that can, do.
    fn check_kinds(&mut self) {
        let protocol = self.spec.protocol;
        let possible = self.spec.possible_kinds();
        for allowed in self.spec.allowed.kinds.iter().flatten() {
            if allowed.of(possible).is_some() {
                continue;
            }
            let kinds: Vec<&str> = possible.iter().map(|kind| kind.as_str()).collect();
            let hint = match &kinds[..] {
                [] => "leave it out".to_owned(),
                kinds => format!("it takes {}", kinds.join(", ")),
            };
            let message = format!(
                "a listener of {} takes no {}",
                protocol.as_str(),
                allowed.kind
            );
            self.miss(
                Unresolved::new("InvalidRouteKinds", message, hint),
                &allowed.spot,
            );
        }
    }

    fn miss(&mut self, why: Unresolved, spot: &Spot) {
        let finding = why.finding(spot.clone());
        self.problems
            .push(self.gateway.placed.page.problem(&finding));
        self.unresolved.get_or_insert(why);
    }

    /// A TCP listener's only route: all bytes to its backend.
    fn tcp_route(&mut self, backend: &BackendRef) -> Route {
        let name = self.gateway.name();
        let from = Referrer {
            kind: Kind::Gateway,
            namespace: &name.namespace,
        };
        let resolved = backend.service(from.namespace).and_then(|service| {
            self.grants.check(from, "Service", &service)?;
            self.services.resolve(&service, backend.port)
        });
        let target = match resolved {
            Ok(cluster) => BackendTarget::Cluster(cluster),
            Err(why) => {
                let reason = why.message.as_str().into();
                self.miss(why, &backend.spot);
                BackendTarget::Invalid(reason)
            }
        };
        let rule = Rule {
            name: None,
            matches: vec![RouteMatch::everything()],
            filters: Vec::new(),
            backends: vec![Backend {
                mirrors: Vec::new(),
                target,
                weight: 1,
                filters: Vec::new(),
            }],
            mirrors: Vec::new(),
            timeouts: Timeouts::default(),
            retry: None,
            hedge: None,
            session: None,
        };
        Route {
            kind: RouteKind::Tcp,
            name: name.clone(),
            hostnames: Vec::new(),
            parents: Vec::new(),
            created: 0,
            rules: vec![rule],
        }
    }
}
