//! The data plane as the rest of the process sees it: workers, listening sockets, and what they route by.
//!
//! Lives on the control thread. A change of documents swaps each entry's routing as a whole; requests under way keep
//! what they began with. A change of endpoints touches the clusters of one service and nothing else.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::cluster::Clusters;
use super::destination::{Destination, Security, Tls, alpn};
use super::entry::{App, AppDestination, Entry, Mesh, Role, Routing, ServiceHost};
use super::instance_load::InstanceLoad;
use super::lane::{Lane, Lanes, Side};
use super::passthrough::single;
use super::route::{Listeners, MeshRoutes};
use super::settings::Settings;
use super::sockets::{Handover, Sockets};
use super::worker::{self, Shared};
use crate::identity::{ALPN_HTTP, ALPN_HTTP1, ClientConfigs, Reload, ServerTls, TlsError};
use crate::model::{
    self, Bind, ClusterKey, EndpointUpdate, InboundMode, Name, PathNormalization, Protocol,
    Sidecar, Snapshot, VirtualAddresses,
};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Registry;

/// What the data plane is started with.
pub struct Start<'a> {
    pub settings: Settings,
    pub workers: usize,
    /// What this process does for an application; None for a gateway.
    pub sidecar: Option<Sidecar>,
    pub metrics: Arc<Registry>,
    /// Each worker gets a writer of its own.
    pub access_log: Option<&'a AccessLog>,
    pub handover: Handover,
}

/// Why a socket that the configuration asks for is not served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {address}: {error}")]
    Bind {
        address: SocketAddr,
        error: io::Error,
    },
    #[error(
        "cannot listen on {address} with `inbound: {{mode: tproxy}}`: that needs the capability NET_RAW (docker run --cap-add NET_RAW; \
         for a user other than root the binary needs it too: setcap cap_net_raw+ep pillion), or say `mode: redirect`"
    )]
    NotPermitted { address: SocketAddr },
    #[error("listeners on {address}: {reason}")]
    Tls { address: SocketAddr, reason: String },
    #[error("cannot start a worker: {0}")]
    Worker(io::Error),
}

pub struct DataPlane {
    settings: Arc<Settings>,
    sidecar: Option<Sidecar>,
    metrics: Arc<Registry>,
    clusters: Arc<Clusters>,
    lanes: Lanes,
    sockets: Sockets,
    shared: Arc<Shared>,
    gateways: HashMap<SocketAddr, Gateway>,
    outbound: Option<Arc<Entry>>,
    /// The entries of the application's ports.
    inbound: Vec<Arc<Entry>>,
    snapshot: Arc<Snapshot>,
    /// Services that discovery has told of, with a document or without.
    discovered: HashSet<Name>,
    virtual_addresses: VirtualAddresses,
    client_tls: Arc<ClientConfigs>,
}

struct Gateway {
    entry: Arc<Entry>,
    certificates: Vec<model::Certificate>,
    /// What is in its TLS is not HTTP.
    opaque: bool,
}

impl DataPlane {
    /// Starts the workers, and takes the addresses of the sidecar's own listeners.
    pub fn start(start: Start<'_>) -> Result<Self, ListenError> {
        let settings = Arc::new(start.settings);
        let shared = Arc::new(Shared::new(start.metrics.clone()));
        let mut workers = Vec::new();
        for number in 0..start.workers.max(1) {
            let (sender, commands) = mpsc::unbounded_channel();
            let (settings, shared) = (settings.clone(), shared.clone());
            let access_log = start.access_log.map(AccessLog::writer);
            std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    if let Err(error) = worker::run(settings, shared, access_log, commands) {
                        tracing::error!(%error, "Worker ended");
                    }
                })
                .map_err(ListenError::Worker)?;
            workers.push(sender);
        }
        let liveness = settings.liveness;
        let mut plane = Self {
            settings,
            metrics: start.metrics,
            clusters: match &start.sidecar {
                Some(sidecar) => Clusters::of_sidecar(sidecar),
                None => Clusters::new(None),
            },
            lanes: Lanes::default(),
            sockets: Sockets::new(workers, liveness, start.handover),
            shared,
            gateways: HashMap::new(),
            outbound: None,
            inbound: Vec::new(),
            snapshot: Arc::default(),
            discovered: HashSet::new(),
            virtual_addresses: VirtualAddresses::default(),
            client_tls: Arc::default(),
            sidecar: start.sidecar,
        };
        plane.lanes.register_metrics(&plane.metrics);
        plane.serve_sidecar()?;
        Ok(plane)
    }

    /// All clusters, for reports, for the resolver and for the prober.
    pub fn clusters(&self) -> &Arc<Clusters> {
        &self.clusters
    }

    /// TLS towards endpoints, for the prober.
    pub fn client_tls(&self) -> &Arc<ClientConfigs> {
        &self.client_tls
    }

    /// The lanes in front of the application, for reports.
    pub fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// How busy the instance beside this sidecar is.
    pub fn load(&self) -> &Arc<InstanceLoad> {
        &self.shared.load
    }

    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Every service that the application can call, with the address that it is dialled by.
    pub fn virtual_addresses(&self) -> &VirtualAddresses {
        &self.virtual_addresses
    }

    /// Downstream connections at hand.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// What sees the connections of all workers, after this value is gone.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Puts a snapshot into effect. Sockets that cannot be had are reported; everything else is in effect all the same.
    pub fn apply(&mut self, snapshot: Snapshot) -> Vec<ListenError> {
        self.snapshot = Arc::new(snapshot);
        let snapshot = self.snapshot.clone();
        self.clusters.apply(&snapshot);
        let mut destinations = HashMap::new();
        let mut errors = Vec::new();
        for bind in &snapshot.binds {
            if let Err(error) = self.serve_gateway(bind, &mut destinations) {
                errors.push(error);
            }
        }
        self.retire_gateways(&snapshot);
        if let Some(outbound) = self.outbound.clone() {
            outbound
                .routing
                .store(Arc::new(Routing::Mesh(self.mesh(&mut destinations))));
        }
        self.treat_inbound();
        self.retain_lanes();
        drop(destinations);
        self.clusters.prune();
        errors
    }

    /// Takes over what discovery knows of one service. True where it was not known, and can be called from now on.
    pub fn set_endpoints(&mut self, update: EndpointUpdate) -> bool {
        let name = update.service.clone();
        let is_new =
            !self.snapshot.services.contains_key(&name) && !self.discovered.contains(&name);
        if !update.endpoints.is_empty() {
            self.discovered.insert(name);
        }
        self.clusters.set_endpoints(update);
        if is_new && let Some(outbound) = self.outbound.clone() {
            // Its name is a host from now on.
            outbound
                .routing
                .store(Arc::new(Routing::Mesh(self.mesh(&mut HashMap::new()))));
        }
        is_new
    }

    /// Reads certificate files again where they have changed; called each second.
    pub fn reload_certificates(&self) -> Vec<TlsError> {
        let mut problems = self.client_tls.reload_if_changed();
        for gateway in self.gateways.values() {
            if let Some(tls) = &**gateway.entry.tls.load()
                && let Reload::Kept(error) = tls.reload_if_changed()
            {
                problems.push(error);
            }
        }
        problems
    }

    /// Takes connections from now on: what they are to be routed by is in effect.
    pub fn open(&mut self) -> Result<(), ListenError> {
        self.sockets.open()
    }

    pub fn is_open(&self) -> bool {
        self.sockets.is_open()
    }

    /// The listening sockets, for the process after this one.
    pub fn kept_sockets(&self) -> impl Iterator<Item = &TcpListener> {
        self.sockets.kept()
    }

    /// Nothing is at hand, and nothing can come.
    pub fn is_done(&self) -> bool {
        // In this order: what was taken from a socket is counted before the socket is uncounted.
        self.shared.sockets.load(Ordering::Acquire) == 0 && self.connections() == 0
    }

    /// Downstream connections that were there when the drain began.
    pub fn connections_before_drain(&self) -> usize {
        let late = self.shared.late_connections.load(Ordering::Relaxed);
        self.connections().saturating_sub(late)
    }

    /// Tells clients with each answer that their connection ends, and closes connections that are quiet.
    pub fn drain(&self) {
        self.sockets.drain();
    }

    /// Takes no more connections of other machines.
    pub fn close_to_others(&mut self) {
        let inbound = self.inbound.iter().map(|entry| entry.address);
        for address in self.gateways.keys().copied().chain(inbound) {
            self.sockets.close(address);
        }
    }

    /// Takes no more connections of the application beside this proxy either.
    pub fn close(&mut self) {
        self.close_to_others();
        if let Some(outbound) = &self.outbound {
            self.sockets.close(outbound.address);
        }
    }

    fn serve_sidecar(&mut self) -> Result<(), ListenError> {
        let Some(sidecar) = self.sidecar.clone() else {
            return Ok(());
        };
        if let Some(address) = sidecar.outbound {
            let routing = Routing::Mesh(self.mesh(&mut HashMap::new()));
            let entry = Entry::new(Role::Outbound, address, routing, None);
            self.sockets.listen(&entry)?;
            if sidecar.intercept {
                self.sockets.listen_over_ipv6(&entry)?;
            }
            self.outbound = Some(entry);
        }
        let listens = sidecar.apps.iter().filter_map(|app| app.listen);
        for address in sidecar.inbound.into_iter().chain(listens) {
            let mode = match sidecar.inbound == Some(address) {
                true => sidecar.inbound_mode,
                false => InboundMode::Redirect,
            };
            let entry = Entry::new(
                Role::Inbound(mode),
                address,
                Routing::App(self.app(&sidecar)),
                None,
            );
            self.sockets.listen(&entry)?;
            if sidecar.intercept && sidecar.inbound == Some(address) {
                self.sockets.listen_over_ipv6(&entry)?;
            }
            self.inbound.push(entry);
        }
        Ok(())
    }

    /// The application's ports as destinations.
    fn app(&self, sidecar: &Sidecar) -> App {
        let requests = self.metrics.requests().listener("inbound");
        let ports = sidecar.apps.iter().map(|app| {
            let label = app.service.to_string();
            let mut destination =
                single(&label, app.app, app.protocol, self.settings.connect_timeout);
            destination.label = label.as_str().into();
            destination.series = self
                .metrics
                .services()
                .series(&format!("{label} (inbound)"));
            AppDestination {
                port: app.port,
                app_port: app.app.port(),
                listen: app.listen,
                destination: Arc::new(destination),
                path: PathNormalization::default(),
                lane: None,
                tells_load: false,
                requests: requests.series("", &label),
            }
        });
        App {
            ports: ports.collect(),
            requests,
        }
    }

    /// Tells the application's ports what their services say of paths and lanes. All else of them stays what it is.
    fn treat_inbound(&self) {
        let Some(sidecar) = &self.sidecar else {
            return;
        };
        for entry in &self.inbound {
            let Routing::App(app) = &**entry.routing.load() else {
                continue;
            };
            let ports = app.ports.iter().zip(&sidecar.apps).map(|(port, app)| {
                let service = self.snapshot.services.get(&app.service);
                let lane = service.and_then(|service| service.lane.as_ref());
                AppDestination {
                    path: service.map(|service| service.path).unwrap_or_default(),
                    lane: lane.map(|lane| self.lane(&app.service, Side::Inbound, lane)),
                    tells_load: service.is_some_and(|service| service.balance.policy.needs_load()),
                    ..port.clone()
                }
            });
            entry.routing.store(Arc::new(Routing::App(App {
                ports: ports.collect(),
                requests: app.requests.clone(),
            })));
        }
    }

    fn lane(&self, service: &Name, side: Side, settings: &model::Lane) -> Lane {
        self.lanes.set(service, side, settings, Instant::now())
    }

    fn retain_lanes(&self) {
        let has_lane = |name: &Name, side: Side| {
            let service = self.snapshot.services.get(name);
            service.is_some_and(|service| match side {
                Side::Inbound => service.lane.is_some(),
                Side::Outbound => service.outbound_lane.is_some(),
            })
        };
        self.lanes.retain(has_lane);
    }

    fn serve_gateway(
        &mut self,
        bind: &Arc<Bind>,
        destinations: &mut Destinations,
    ) -> Result<(), ListenError> {
        let routing = self.gateway_routing(bind, destinations);
        let certificates: Vec<model::Certificate> = bind
            .listeners
            .iter()
            .filter_map(|listener| listener.tls.as_ref())
            .flat_map(|tls| tls.certificates.iter().cloned())
            .collect();
        let passthrough = self.passthrough(bind, destinations);
        if let Some(gateway) = self.gateways.get_mut(&bind.address) {
            gateway.entry.passthrough.store(Arc::new(passthrough));
            if gateway.certificates != certificates || gateway.opaque != bind.opaque {
                gateway
                    .entry
                    .tls
                    .store(Arc::new(server_tls(bind, &certificates)?));
                gateway.certificates = certificates;
                gateway.opaque = bind.opaque;
            }
            gateway.entry.routing.store(Arc::new(routing));
            return Ok(());
        }
        let tls = server_tls(bind, &certificates)?;
        let entry = Entry::new(Role::Gateway, bind.address, routing, tls);
        entry.passthrough.store(Arc::new(passthrough));
        self.sockets.listen(&entry)?;
        self.gateways.insert(
            bind.address,
            Gateway {
                entry,
                certificates,
                opaque: bind.opaque,
            },
        );
        Ok(())
    }

    fn gateway_routing(&mut self, bind: &Bind, destinations: &mut Destinations) -> Routing {
        let read = bind.listeners.iter().filter(|one| !one.passes_through());
        let read: Vec<_> = read.cloned().collect();
        let listeners = self.listeners(&read, destinations);
        match bind.opaque {
            true => Routing::Opaque(listeners),
            false => Routing::Gateway(listeners),
        }
    }

    /// All listeners of a socket where some pass TLS through: what a name is not passed through for counts too.
    fn passthrough(
        &mut self,
        bind: &Bind,
        destinations: &mut Destinations,
    ) -> Option<Listeners<Arc<Destination>>> {
        let passes = bind.listeners.iter().any(|one| one.passes_through());
        passes.then(|| self.listeners(&bind.listeners, destinations))
    }

    fn listeners(
        &mut self,
        listeners: &[Arc<model::Listener>],
        destinations: &mut Destinations,
    ) -> Listeners<Arc<Destination>> {
        let metrics = self.metrics.clone();
        Listeners::compile(listeners, metrics.requests(), |key| {
            self.destination(key, destinations)
        })
    }

    /// Lets go of sockets that no document asks for any more; connections at hand go on.
    fn retire_gateways(&mut self, snapshot: &Snapshot) {
        let wanted: HashSet<SocketAddr> = snapshot.binds.iter().map(|bind| bind.address).collect();
        let gone: Vec<SocketAddr> = self
            .gateways
            .keys()
            .copied()
            .filter(|address| !wanted.contains(address))
            .collect();
        for address in gone {
            self.gateways.remove(&address);
            self.sockets.unlisten(address);
        }
    }

    fn mesh(&mut self, destinations: &mut Destinations) -> Mesh {
        let snapshot = self.snapshot.clone();
        let requests = self.metrics.requests().listener("outbound");
        let sidecar = self.sidecar.as_ref();
        let namespace = sidecar.map_or(Name::DEFAULT_NAMESPACE.into(), |sidecar| {
            sidecar.namespace.clone()
        });
        let routes = MeshRoutes::compile(&snapshot.mesh_routes, &namespace, &requests, |key| {
            self.destination(key, destinations)
        });
        let documented = snapshot.services.keys();
        let names: HashSet<Name> = documented.chain(&self.discovered).cloned().collect();
        self.virtual_addresses.assign(&names);
        let mut virtual_hosts = HashMap::with_capacity(names.len());
        let mut services = HashMap::new();
        for name in &names {
            let host = self.service_host(name, &requests, destinations);
            for spelling in name.hosts(&namespace) {
                services.insert(spelling, host.clone());
            }
            if let Some(address) = self.virtual_addresses.of(name) {
                virtual_hosts.insert(address, host);
            }
        }
        let normalizes = services
            .values()
            .any(|host: &ServiceHost| host.path != PathNormalization::default());
        let passthrough = self
            .sidecar
            .as_ref()
            .is_none_or(|sidecar| sidecar.passthrough);
        Mesh {
            routes,
            requests,
            services,
            virtual_hosts,
            instances: self.clusters.instances().clone(),
            normalizes,
            passthrough,
        }
    }

    fn service_host(
        &mut self,
        name: &Name,
        requests: &crate::telemetry::metrics::ListenerRequests,
        destinations: &mut Destinations,
    ) -> ServiceHost {
        let (ports, path): (Vec<u16>, _) = match self.snapshot.services.get(name) {
            Some(service) => (
                service.ports.iter().map(|port| port.port).collect(),
                service.path,
            ),
            None => Default::default(),
        };
        let key = |port| ClusterKey {
            service: name.clone(),
            subset: None,
            port,
        };
        let ports: Vec<_> = ports
            .into_iter()
            .map(|port| (port, self.destination(&key(Some(port)), destinations)))
            .collect();
        let default = match ports.first() {
            Some((_, first)) => first.clone(),
            None => self.destination(&key(None), destinations),
        };
        let requests = requests.series("", &default.label);
        ServiceHost {
            name: name.clone(),
            default,
            ports,
            path,
            requests,
        }
    }

    fn destination(
        &mut self,
        key: &ClusterKey,
        destinations: &mut Destinations,
    ) -> Arc<Destination> {
        if let Some(destination) = destinations.get(key) {
            return destination.clone();
        }
        let failover = self.snapshot.services.get(&key.service);
        let failover = failover.and_then(|service| service.failover.clone());
        let destination = Arc::new(Destination {
            failover: failover.map(|key| Arc::new(self.without_failover(&key))),
            ..self.without_failover(key)
        });
        destinations.insert(key.clone(), destination.clone());
        destination
    }

    fn without_failover(&self, key: &ClusterKey) -> Destination {
        let service = self.snapshot.services.get(&key.service).cloned();
        let lane = service
            .as_ref()
            .and_then(|service| service.outbound_lane.as_ref());
        let lane = lane.map(|lane| self.lane(&key.service, Side::Outbound, lane));
        let protocol = service.as_ref().and_then(|service| {
            let declared = |port: &&model::Port| key.port.is_none_or(|wanted| port.port == wanted);
            service
                .ports
                .iter()
                .find(declared)
                .and_then(|port| port.protocol)
        });
        let hashing = service
            .as_ref()
            .and_then(|service| service.balance.hashing());
        let gray = service.as_ref().and_then(|service| service.gray.clone());
        let tls = service.and_then(|service| service.tls_of(key.port).cloned());
        let security = tls.map_or(Security::Plain, |settings| {
            self.security(settings, protocol)
        });
        let label = match &key.subset {
            Some(subset) => format!("{}/{subset}", key.service),
            None => key.service.to_string(),
        };
        Destination {
            failover: None,
            cluster: self.clusters.get_or_create(key),
            protocol,
            security,
            connect_timeout: self.settings.connect_timeout,
            hashing,
            gray,
            lane,
            series: self.metrics.services().series(&label),
            label: label.into(),
        }
    }

    fn security(&self, settings: model::UpstreamTls, protocol: Option<Protocol>) -> Security {
        let alpn = alpn(protocol);
        let http1 = if protocol == Some(Protocol::Tcp) {
            alpn
        } else {
            ALPN_HTTP1
        };
        match (
            self.client_tls.get(&settings, alpn),
            self.client_tls.get(&settings, http1),
        ) {
            (Ok(http), Ok(http1)) => Security::Tls(Tls {
                settings,
                http,
                http1,
            }),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "TLS to a service cannot be set up; its requests fail");
                Security::Unavailable(error.to_string().into())
            }
        }
    }
}

type Destinations = HashMap<ClusterKey, Arc<Destination>>;

fn server_tls(
    bind: &Bind,
    certificates: &[model::Certificate],
) -> Result<Option<Arc<ServerTls>>, ListenError> {
    if !bind.tls {
        return Ok(None);
    }
    let tls = ServerTls::new(certificates, if bind.opaque { &[] } else { ALPN_HTTP }).map_err(
        |error| ListenError::Tls {
            address: bind.address,
            reason: error.to_string(),
        },
    )?;
    Ok(Some(Arc::new(tls)))
}
