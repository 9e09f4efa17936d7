//! `pillion proxy`: a sidecar or a gateway, from its bootstrap to its last connection.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::application::Application;
use super::documents::{Documents, wire_problem};
use super::main_process;
use super::view;
use crate::admin;
use crate::api::ClientOptions;
use crate::base::memory;
use crate::config::bootstrap;
use crate::config::watch::Watch;
use crate::config::{Loaded, Problem, SidecarBootstrap};
use crate::discovery::{self, Changes, Discovery, DocumentsChange, EndpointsChange};
use crate::dns;
use crate::model::{Name, Sidecar, Snapshot};
use crate::proxy::cluster::{Clusters, health, outlier, resolve};
use crate::proxy::data_plane::{DataPlane, ListenError, Start};
use crate::proxy::events::EVENTS_MAX;
use crate::proxy::http1::codec;
use crate::proxy::settings::Settings;
use crate::telemetry::access_log::{self, AccessLog, AccessLogError};
use crate::telemetry::log::{self, LogError};
use crate::telemetry::metrics::{Counter, Gauge, Registry};

/// Looking after certificate files and the like.
const TICK: Duration = Duration::from_secs(1);
/// By then everything that only the start needs has run.
const SETTLED: Duration = Duration::from_secs(3);
/// How often the last connections are counted while draining.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// Why a process could not start; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    AccessLog(#[from] AccessLogError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("admin address {address}: {error}; choose another with admin.address")]
    Admin {
        address: SocketAddr,
        error: std::io::Error,
    },
    #[error(transparent)]
    Dns(#[from] dns::StartError),
    #[error("registry: {0}")]
    Discovery(#[from] discovery::StartError),
    #[error("registry.{key} {path}: {error}")]
    RegistryFile {
        key: &'static str,
        path: String,
        error: std::io::Error,
    },
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the mesh documents have problems, and nothing else is there to serve from")]
    Documents(Vec<Problem>),
}

/// Runs until a signal or `/drain` ends it and its connections are done.
pub async fn run(bootstrap: SidecarBootstrap) -> Result<(), StartError> {
    let level = log::install(&bootstrap.log.level, bootstrap.log.format)?;
    // Before anything is served: until then a signal would end the process in the middle of it.
    let mut signals = Signals::new()?;
    let metrics = Arc::new(Registry::default());
    crate::telemetry::metrics::register_process(&metrics);
    let access_log = match bootstrap.access_log.clone() {
        Some(wanted) => Some(access_log::start(wanted, &metrics)?),
        None => None,
    };
    let plane = DataPlane::start(Start {
        settings: settings(&bootstrap),
        workers: workers(&bootstrap),
        sidecar: sidecar(&bootstrap),
        metrics: metrics.clone(),
        access_log: access_log.as_ref(),
    })?;
    let names = bootstrap
        .dns
        .as_ref()
        .map(|dns| dns::start(dns.address, upstreams(dns), &metrics))
        .transpose()?;
    let resolving = tokio::spawn(resolve_names(plane.clusters().clone()));
    let probing = tokio::spawn(health::prober::run(
        plane.clusters().clone(),
        plane.client_tls().clone(),
    ));
    let comparing = tokio::spawn(outlier::run(plane.clusters().clone()));
    view::register_metrics(&metrics, plane.clusters().clone());
    let status = Arc::new(Status::new(&metrics));
    let mut process = Process {
        documents: Documents::new(bootstrap.mesh.clone()),
        discovery: None,
        application: Application::follow(&bootstrap.apps).await,
        status: status.clone(),
        plane,
        names,
        namespace: bootstrap.namespace.clone(),
        access_log,
    };
    if bootstrap.mesh.is_some() {
        let loaded = process.documents.reload_files();
        if let Err(problems) = process.take(loaded, "file") {
            // A registry may still bring good documents; without one there is nothing to wait for.
            if bootstrap.registry.is_none() {
                return Err(StartError::Documents(problems));
            }
        }
    }
    let mut changes = process.discover(&bootstrap)?;
    let admin = TcpListener::bind(bootstrap.admin)
        .await
        .map_err(|error| StartError::Admin {
            address: bootstrap.admin,
            error,
        })?;
    process.register_metrics(&metrics);
    let state = process.admin_state(metrics, level);
    tokio::spawn(async move { match admin::serve(admin, Arc::new(state)).await {} });
    tracing::info!(admin = %bootstrap.admin, workers = workers(&bootstrap), "Serving");
    process
        .serve(&bootstrap, &mut changes, &mut signals)
        .await?;
    process.leave(&bootstrap, changes).await;
    resolving.abort();
    probing.abort();
    comparing.abort();
    Ok(())
}

/// What the system tells the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Everything that the control thread holds.
struct Process {
    plane: DataPlane,
    /// The name server, where there is one.
    names: Option<dns::Server>,
    /// Services of this one are called by their bare names.
    namespace: Arc<str>,
    documents: Documents,
    discovery: Option<Discovery>,
    application: Application,
    status: Arc<Status>,
    /// Dropped last of all: that writes what is still in its buffers.
    access_log: Option<AccessLog>,
}

/// What the admin pages ask about.
struct Status {
    snapshot: Mutex<Arc<Snapshot>>,
    problems: Mutex<Vec<Problem>>,
    refused: Mutex<bool>,
    not_listening: Mutex<Vec<String>>,
    drain: Notify,
    revision: Gauge,
    rejected: Counter,
}

impl Status {
    fn new(metrics: &Registry) -> Self {
        Self {
            snapshot: Mutex::default(),
            problems: Mutex::default(),
            refused: Mutex::new(false),
            not_listening: Mutex::default(),
            drain: Notify::new(),
            revision: metrics.gauge(
                "pillion_config_revision",
                "Revision of the snapshot in effect, counted by this process.",
            ),
            rejected: metrics.counter(
                "pillion_config_rejected_total",
                "Changes of documents that were refused.",
            ),
        }
    }
}

/// What these locks guard is replaced whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Process {
    /// Puts what was loaded into effect, or keeps what is in effect and says why, everywhere.
    fn take(
        &mut self,
        loaded: Result<Loaded, Vec<Problem>>,
        source: &'static str,
    ) -> Result<(), Vec<Problem>> {
        match loaded {
            Ok(Loaded { snapshot, remarks }) => {
                let revision = snapshot.revision;
                let errors = self.plane.apply(snapshot);
                self.tell_names();
                for error in &errors {
                    tracing::error!(%error, "Listener");
                }
                *lock(&self.status.not_listening) =
                    errors.iter().map(ToString::to_string).collect();
                *lock(&self.status.snapshot) = self.plane.snapshot().clone();
                for remark in &remarks {
                    tracing::warn!(problem = %remark, "Configuration");
                }
                *lock(&self.status.problems) = remarks;
                *lock(&self.status.refused) = false;
                self.status.revision.set(revision as i64);
                tracing::info!(revision, source, "Configuration in effect");
                Ok(())
            }
            Err(problems) => {
                for problem in &problems {
                    if problem.is_error() {
                        tracing::error!(%problem, "Configuration refused");
                    } else {
                        tracing::warn!(%problem, "Configuration");
                    }
                }
                self.status.rejected.increment();
                *lock(&self.status.problems) = problems.clone();
                *lock(&self.status.refused) = true;
                Err(problems)
            }
        }
    }

    /// Tells the name server which services there are now.
    fn tell_names(&self) {
        if let Some(server) = &self.names {
            server.set_names(dns::Names::new(
                self.plane.virtual_addresses(),
                &self.namespace,
            ));
        }
    }

    fn discover(&mut self, bootstrap: &SidecarBootstrap) -> Result<Option<Changes>, StartError> {
        let Some(registry) = &bootstrap.registry else {
            return Ok(None);
        };
        let read = |key, path: &Option<std::path::PathBuf>| match path {
            Some(path) => fs::read(path)
                .map(Some)
                .map_err(|error| StartError::RegistryFile {
                    key,
                    path: path.display().to_string(),
                    error,
                }),
            None => Ok(None),
        };
        let token = read("token_file", &registry.token_file)?;
        let token = token.map(|token| String::from_utf8_lossy(&token).trim().to_owned());
        let ca = read("ca", &registry.ca)?;
        let options = registry.addresses.iter().map(|url| ClientOptions {
            token: token.clone(),
            ca: ca.clone(),
            ..ClientOptions::new(url)
        });
        let name = sidecar_name(bootstrap);
        let mut settings = discovery::Settings::new(&name, options.collect());
        settings.services = wanted_services(&registry.services, &bootstrap.namespace);
        settings.snapshot = bootstrap.snapshot.clone();
        let events = self.plane.clusters().events().clone();
        settings.events = Some(Box::new(move |since, max| events.since(since, max)));
        let advertise = advertised(bootstrap);
        settings.registrations = discovery::registrations(&name, &advertise, &bootstrap.apps);
        for (_, registration) in &mut settings.registrations {
            registration.zone = bootstrap.zone.as_deref().map(str::to_owned);
            registration.weight = bootstrap.weight;
            registration.labels = bootstrap
                .labels
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect();
        }
        let (discovery, changes) = Discovery::start(settings)?;
        discovery.announce(self.application.state());
        self.discovery = Some(discovery);
        Ok(Some(changes))
    }

    /// How discovery stands, as gauges.
    fn register_metrics(&self, metrics: &Registry) {
        if let Some(discovery) = &self.discovery {
            discovery.register_metrics(metrics);
        }
    }

    fn admin_state(&self, metrics: Arc<Registry>, level: log::Level) -> admin::State {
        let clusters: Arc<Clusters> = self.plane.clusters().clone();
        let events = clusters.events().clone();
        let (config, problems, drain) = (
            self.status.clone(),
            self.status.clone(),
            self.status.clone(),
        );
        let discovery = self.discovery.as_ref().map(Discovery::status_handle);
        let discovered = discovery.clone();
        let started = Arc::new(started(self.status.clone(), discovery));
        let (ready, obstacles) = (started.clone(), self.application.obstacles());
        let current = level.clone();
        admin::State {
            started: Box::new(move || none_of(started())),
            ready: Box::new(move || none_of([ready(), obstacles()].concat())),
            config: Box::new(move || view::snapshot(&lock(&config.snapshot).clone())),
            problems: Box::new(move || {
                let rejected = discovered.as_ref().and_then(|status| status().rejected);
                view::problems(
                    &lock(&problems.problems),
                    *lock(&problems.refused),
                    rejected.as_ref(),
                )
            }),
            clusters: Box::new(move || view::clusters(&clusters)),
            events: Box::new(move |since| events.since(since, EVENTS_MAX)),
            metrics: Box::new(move |openmetrics| {
                metrics.encode(if openmetrics {
                    crate::telemetry::metrics::Format::OpenMetrics
                } else {
                    crate::telemetry::metrics::Format::Prometheus
                })
            }),
            drain: Box::new(move || drain.drain.notify_one()),
            log_level: Box::new(move || current.current().unwrap_or_default()),
            set_log_level: Box::new(move |wanted| {
                level.set(wanted).map_err(|error| error.to_string())
            }),
        }
    }

    /// Follows files, registry and signals until the process is to end.
    async fn serve(
        &mut self,
        bootstrap: &SidecarBootstrap,
        changes: &mut Option<Changes>,
        signals: &mut Signals,
    ) -> Result<(), StartError> {
        let mut watch = bootstrap
            .mesh
            .clone()
            .map(|path| Watch::start(vec![path]))
            .transpose()?;
        let mut tick = tokio::time::interval(TICK);
        let mut settled = std::pin::pin!(tokio::time::sleep(SETTLED));
        let mut started = true;
        let status = self.status.clone();
        let mut main_process = std::pin::pin!(main_process_end(bootstrap));
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return Ok(()),
                _ = signals.interrupt.recv() => return Ok(()),
                () = status.drain.notified() => return Ok(()),
                () = &mut main_process => return Ok(()),
                () = file_change(&mut watch) => self.reload_files(),
                _ = signals.hangup.recv() => {
                    self.access_log.iter().for_each(AccessLog::reopen);
                    self.reload_files();
                }
                change = next_change(changes) => self.follow(change),
                () = self.application.changed() => {
                    if let Some(discovery) = &self.discovery {
                        discovery.announce(self.application.state());
                    }
                }
                () = &mut settled, if started => {
                    started = false;
                    memory::release_startup_code();
                }
                _ = tick.tick() => {
                    for error in self.plane.reload_certificates() {
                        tracing::error!(%error, "Certificate not reloaded; the one before stays in use");
                    }
                }
            }
        }
    }

    fn reload_files(&mut self) {
        let loaded = self.documents.reload_files();
        // What is wrong has been said, and the last good snapshot stays in effect.
        let _ = self.take(loaded, "file");
    }

    /// Puts a change of the registry into effect and answers it.
    fn follow(&mut self, change: RegistryChange) {
        match change {
            RegistryChange::Documents(change) => {
                let loaded = self.documents.change(&change.changed, &change.removed);
                match self.take(loaded, "registry") {
                    Ok(()) => change.accepted(),
                    Err(problems) => change.rejected(problems.iter().map(wire_problem).collect()),
                }
            }
            RegistryChange::Endpoints(mut change) => {
                let mut is_new = false;
                for update in change.updates.drain(..) {
                    is_new |= self.plane.set_endpoints(update);
                }
                if is_new {
                    self.tell_names();
                }
                change.applied();
            }
        }
    }

    /// Deregisters, serves on until peers know, then ends what is under way within the drain's deadline.
    async fn leave(mut self, bootstrap: &SidecarBootstrap, mut changes: Option<Changes>) {
        tracing::info!("Draining");
        if let Some(discovery) = self.discovery.take() {
            {
                let leaving = discovery.leave(bootstrap.drain.acknowledge_timeout);
                tokio::pin!(leaving);
                // Others may leave at the same time, and wait for our acknowledgement as we do for theirs.
                let departure = loop {
                    tokio::select! {
                        departure = &mut leaving => break departure,
                        change = next_change(&mut changes) => self.follow(change),
                    }
                };
                tracing::info!(?departure, "Deregistered");
            }
            discovery.stop().await;
        }
        self.plane.drain();
        let deadline = Instant::now() + bootstrap.drain.timeout;
        while self.plane.connections() > 0 && Instant::now() < deadline {
            tokio::time::sleep(DRAIN_POLL).await;
        }
        let left = self.plane.connections();
        if left > 0 {
            tracing::warn!(
                connections = left,
                "Connections were cut at the drain's deadline"
            );
        }
        tracing::info!("Stopped");
    }
}

/// What keeps this process from carrying traffic, its application aside.
fn started(
    status: Arc<Status>,
    discovery: Option<impl Fn() -> discovery::Status + Send + Sync>,
) -> impl Fn() -> Vec<String> + Send + Sync {
    move || {
        let mut reasons = lock(&status.not_listening).clone();
        reasons.extend(discovery.as_ref().and_then(|status| status().not_ready()));
        reasons
    }
}

fn none_of(reasons: Vec<String>) -> Result<(), Vec<String>> {
    match reasons.is_empty() {
        true => Ok(()),
        false => Err(reasons),
    }
}

/// Never where this process does not end with another.
async fn main_process_end(bootstrap: &SidecarBootstrap) {
    match &bootstrap.exit_with {
        Some(name) => main_process::ended(name).await,
        None => std::future::pending().await,
    }
}

async fn file_change(watch: &mut Option<Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

enum RegistryChange {
    Documents(DocumentsChange),
    Endpoints(EndpointsChange),
}

/// Never comes when there is no registry.
async fn next_change(changes: &mut Option<Changes>) -> RegistryChange {
    let Some(changes) = changes else {
        return std::future::pending().await;
    };
    tokio::select! {
        Some(change) = changes.documents.recv() => RegistryChange::Documents(change),
        Some(change) = changes.endpoints.recv() => RegistryChange::Endpoints(change),
        else => std::future::pending().await,
    }
}

async fn resolve_names(clusters: Arc<Clusters>) {
    match resolve::Resolver::system() {
        Ok(resolver) => resolve::run(clusters, resolver).await,
        Err(error) => tracing::error!(%error, "Host names of endpoints cannot be resolved"),
    }
}

fn settings(bootstrap: &SidecarBootstrap) -> Settings {
    let limits = &bootstrap.limits;
    Settings {
        head_limits: codec::Limits {
            head_bytes_max: limits.header_bytes_max,
            fields_max: limits.headers_max as usize,
            ..codec::Limits::DEFAULT
        },
        connect_timeout: limits.connect_timeout,
        passthrough_connect_timeout: limits.passthrough_connect_timeout,
        header_timeout: limits.header_timeout,
        tls_handshake_timeout: limits.tls_handshake_timeout,
        detection_timeout: limits.detection_timeout,
        stream_idle_timeout: limits.stream_idle_timeout,
        downstream_idle_timeout: limits.idle_timeout,
        upstream_idle_timeout: limits.upstream_idle_timeout,
        downstream_connections_max: limits.downstream_connections_max as usize,
        trusted_networks: bootstrap.trusted_networks.clone(),
        ..Settings::default()
    }
}

fn upstreams(dns: &bootstrap::Dns) -> dns::Upstreams {
    match &dns.upstreams[..] {
        [] => dns::Upstreams::File(dns::RESOLV_CONF.into()),
        fixed => dns::Upstreams::Fixed(fixed.to_vec()),
    }
}

/// A sidecar shares its machine with the application it serves; a gateway has it to itself.
fn workers(bootstrap: &SidecarBootstrap) -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let default = if bootstrap.outbound.is_some() || bootstrap.inbound.is_some() {
        cpus.min(2)
    } else {
        cpus
    };
    bootstrap.workers.unwrap_or(default)
}

fn sidecar(bootstrap: &SidecarBootstrap) -> Option<Sidecar> {
    if bootstrap.outbound.is_none() && bootstrap.inbound.is_none() {
        return None;
    }
    Some(Sidecar {
        outbound: bootstrap.outbound.as_ref().map(|outbound| outbound.address),
        inbound: bootstrap.inbound.as_ref().map(|inbound| inbound.address),
        inbound_mode: bootstrap
            .inbound
            .as_ref()
            .map(|inbound| inbound.mode)
            .unwrap_or_default(),
        intercept: bootstrap.intercept,
        apps: bootstrap.apps.clone(),
        zone: bootstrap.zone.clone(),
        namespace: bootstrap.namespace.clone(),
        passthrough: bootstrap
            .outbound
            .as_ref()
            .is_none_or(|outbound| outbound.passthrough == bootstrap::Passthrough::Allow),
    })
}

/// The same after a restart, and another on every host and for every admin address on one host.
fn sidecar_name(bootstrap: &SidecarBootstrap) -> String {
    if let Some(instance) = &bootstrap.instance {
        return instance.to_string();
    }
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .to_ascii_lowercase();
    format!("{host}-{}", bootstrap.admin.port())
}

/// The host by which others reach this instance: as given, else the address of the first listener that is not a
/// wildcard, else the one this machine would use to reach others.
fn advertised(bootstrap: &SidecarBootstrap) -> String {
    if let Some(advertise) = &bootstrap.advertise {
        return advertise.to_string();
    }
    let listens = bootstrap.apps.iter().filter_map(|app| app.listen);
    if let Some(listen) = listens
        .into_iter()
        .find(|listen| !listen.ip().is_unspecified())
    {
        return listen.ip().to_string();
    }
    own_address().map_or_else(|| "127.0.0.1".to_owned(), |address| address.to_string())
}

/// Connecting a UDP socket sends nothing; it only asks the kernel for a route.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket
        .local_addr()
        .ok()
        .map(|address| address.ip())
        .filter(|address| !address.is_unspecified())
}

/// None is all: also where a pattern asks for more than single services.
fn wanted_services(patterns: &[String], namespace: &str) -> Option<Vec<Name>> {
    if patterns.is_empty() || patterns.iter().any(|pattern| pattern.contains('*')) {
        return None;
    }
    let name = |pattern: &String| match pattern.split_once('/') {
        Some((namespace, name)) => Name::new(namespace, name),
        None => Name::new(namespace, pattern),
    };
    Some(patterns.iter().map(name).collect())
}

/// Reads the bootstrap of a proxy.
pub fn read_bootstrap(file: Option<&Path>) -> Result<SidecarBootstrap, Vec<Problem>> {
    SidecarBootstrap::read(file, std::env::vars())
}
