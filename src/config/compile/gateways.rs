use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::routes::Routes;
use super::services::{Services, certificate_in};
use super::{Part, Placed, parts};
use crate::config::decode::Suggester;
use crate::config::defaults;
use crate::config::problem::{Finding, Problem};
use crate::config::spec::{BackendRef, GatewaySpec, Kind, ListenerProtocol, ListenerSpec, Spec};
use crate::model::{
    Backend, BackendTarget, Bind, HostPattern, Listener, ListenerTls, Name, PathMatch, Route,
    RouteMatch, Rule, Timeouts,
};

/// All gateways, by name and by namespace.
pub struct Gateways<'p> {
    list: Vec<Part<'p, GatewaySpec>>,
    by_name: HashMap<Name, usize>,
    by_namespace: HashMap<Arc<str>, Vec<usize>>,
    suggester: &'p Suggester,
}

/// A listener of a gateway, by position.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ListenerId {
    pub gateway: usize,
    pub listener: usize,
}

pub fn gateways<'p>(chosen: &[&'p Placed<'p>], suggester: &'p Suggester) -> Gateways<'p> {
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
}

/// The sockets of all gateways, with the listeners that share each.
pub fn binds(
    gateways: &Gateways<'_>,
    routes: &Routes,
    services: &Services<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<Arc<Bind>> {
    let mut sockets: BTreeMap<SocketAddr, Socket<'_, '_>> = BTreeMap::new();
    for (index, gateway) in gateways.list.iter().enumerate() {
        check_names(gateway, problems);
        for (id, spec) in gateways.listeners(index) {
            let listener = Arc::new(listener(gateway, spec, routes.of(id), services, problems));
            for address in addresses(gateway.spec) {
                let address = SocketAddr::new(address, spec.port);
                let socket = sockets.entry(address).or_default();
                socket.add(
                    Member {
                        gateway,
                        spec,
                        listener: Arc::clone(&listener),
                    },
                    address,
                    problems,
                );
            }
        }
    }
    let binds = sockets
        .into_iter()
        .filter_map(|(address, socket)| socket.bind(address));
    binds.map(Arc::new).collect()
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
    fn add(&mut self, member: Member<'g, 'p>, address: SocketAddr, problems: &mut Vec<Problem>) {
        if let Some((other, message)) = self.conflict(&member, address) {
            let hint = format!(
                "that is listener `{}` of {}; choose another port, address or hostname",
                other.spec.name,
                other.gateway.name()
            );
            let finding = Finding::error(member.spec.spot.clone(), message, hint);
            problems.push(member.gateway.placed.page.problem(&finding));
            return;
        }
        self.hostnames
            .insert(member.spec.hostname.clone(), self.members.len());
        self.members.push(member);
    }

    fn conflict(
        &self,
        member: &Member<'g, 'p>,
        address: SocketAddr,
    ) -> Option<(&Member<'g, 'p>, String)> {
        let first = self.members.first()?;
        let (ours, theirs) = (member.spec.protocol, first.spec.protocol);
        if ours != theirs {
            let (ours, theirs) = (ours.as_str(), theirs.as_str());
            return Some((
                first,
                format!("{address} cannot be {ours} and {theirs} at once"),
            ));
        }
        if ours == ListenerProtocol::Tcp {
            return Some((first, format!("{address} has a TCP listener already")));
        }
        let same = *self.hostnames.get(&member.spec.hostname)?;
        let host = match &member.spec.hostname {
            Some(HostPattern::Exact(host)) => format!("the hostname `{host}`"),
            Some(HostPattern::Wildcard(host)) => format!("the hostname `*.{host}`"),
            None => "a listener for every hostname".to_owned(),
        };
        Some((&self.members[same], format!("{address} has {host} already")))
    }

    fn bind(self, address: SocketAddr) -> Option<Bind> {
        let protocol = self.members.first()?.spec.protocol;
        Some(Bind {
            address,
            tls: protocol == ListenerProtocol::Https,
            opaque: protocol == ListenerProtocol::Tcp,
            listeners: self
                .members
                .into_iter()
                .map(|member| member.listener)
                .collect(),
        })
    }
}

fn listener(
    gateway: &Part<'_, GatewaySpec>,
    spec: &ListenerSpec,
    routes: &[Arc<Route>],
    services: &Services<'_>,
    problems: &mut Vec<Problem>,
) -> Listener {
    let routes = match &spec.backend {
        Some(backend) => vec![Arc::new(tcp_route(gateway, backend, services, problems))],
        None => routes.to_vec(),
    };
    let folder = gateway.placed.origin.folder();
    let tls = spec.tls.as_ref().map(|tls| ListenerTls {
        mode: tls.mode,
        certificates: tls
            .certificates
            .iter()
            .map(|pair| certificate_in(pair, folder))
            .collect(),
    });
    Listener {
        gateway: gateway.name().clone(),
        name: Arc::clone(&spec.name),
        hostname: spec.hostname.clone(),
        tls,
        routes,
        on_half_close: spec.on_half_close,
        path: spec.path,
    }
}

/// A TCP listener's only route: all bytes to its backend.
fn tcp_route(
    gateway: &Part<'_, GatewaySpec>,
    backend: &BackendRef,
    services: &Services<'_>,
    problems: &mut Vec<Problem>,
) -> Route {
    let name = gateway.name();
    let referent = backend.referent(&name.namespace);
    let resolved = if referent.namespace == name.namespace {
        services.resolve(&referent, backend.port)
    } else {
        Err(super::routes::needs_a_grant(&referent))
    };
    let target = match resolved {
        Ok(cluster) => BackendTarget::Cluster(cluster),
        Err(why) => {
            let finding = Finding::error(backend.spot.clone(), &why.message, &why.hint);
            problems.push(gateway.placed.page.problem(&finding));
            BackendTarget::Invalid(why.message.into())
        }
    };
    let everything = RouteMatch {
        path: PathMatch::Prefix("".into()),
        method: None,
        headers: Vec::new(),
        queries: Vec::new(),
    };
    let rule = Rule {
        name: None,
        matches: vec![everything],
        filters: Vec::new(),
        backends: vec![Backend {
            target,
            weight: 1,
            filters: Vec::new(),
        }],
        mirrors: Vec::new(),
        timeouts: Timeouts::default(),
        retry: None,
        hedge: None,
    };
    Route {
        name: name.clone(),
        hostnames: Vec::new(),
        parents: Vec::new(),
        created: 0,
        rules: vec![rule],
    }
}
