//! `pillion proxy`: a sidecar or a gateway, from its bootstrap to its last connection.

mod ending;
mod status;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use self::status::{Status, draining, lock, none_of, started};
use super::application::Application;
use super::documents::{Documents, wire_problem};
use super::doors::Doors;
use super::handover::{Successor, TakeOverError};
use super::load;
use super::loops;
use super::main_process;
use super::terms;
use super::view;
use crate::admin;
use crate::api::ClientOptions;
use crate::base::memory;
use crate::config::watch::Watch;
use crate::config::{Loaded, Problem, SidecarBootstrap};
use crate::discovery::{self, Changes, Discovery, DocumentsChange, EndpointsChange};
use crate::dns;
use crate::model::AppPort;
use crate::proxy::cluster::Clusters;
use crate::proxy::data_plane::{DataPlane, ListenError, Start};
use crate::proxy::events::EVENTS_MAX;
use crate::proxy::settings::{Settings, Token};
use crate::telemetry::access_log::{self, AccessLog, AccessLogError};
use crate::telemetry::log::{self, LogError};
use crate::telemetry::metrics::Registry;

/// Who guesses a token must not succeed.
const TOKEN_BYTES_MIN: usize = 16;
/// Looking after certificate files and the like.
const TICK: Duration = Duration::from_secs(1);
/// By then everything that only the start needs has run.
const SETTLED: Duration = Duration::from_secs(3);
/// Where a registry has told nothing until then, and nothing is on disk, traffic is taken without: to destinations that are not of
/// the mesh it goes as it would.
const OPEN_AT_LATEST: Duration = Duration::from_secs(2);
/// How often is looked until then.
const OPEN_POLL: Duration = Duration::from_millis(5);

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
    #[error("handover at {}: {error}", path.display())]
    Handover { path: PathBuf, error: TakeOverError },
    #[error("registry: {0}")]
    Discovery(#[from] discovery::StartError),
    #[error("admin.token_file {}: {error}", path.display())]
    AdminToken { path: PathBuf, error: io::Error },
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
    let (mut doors, handover) = Doors::open(&bootstrap).await?;
    let plane = DataPlane::start(Start {
        settings: Settings {
            admin_token: admin_token(&bootstrap)?,
            ..terms::settings(&bootstrap)
        },
        workers: terms::workers(&bootstrap),
        sidecar: terms::sidecar(&bootstrap),
        metrics: metrics.clone(),
        access_log: access_log.as_ref(),
        handover,
    })?;
    let loops = loops::start(&plane, &bootstrap);
    view::register_metrics(&metrics, plane.clusters().clone());
    let status = Arc::new(Status::new(&metrics));
    let mut process = Process {
        documents: Documents::new(bootstrap.mesh.clone()),
        discovery: None,
        application: Application::follow(&bootstrap.apps).await,
        status: status.clone(),
        plane,
        names: None,
        namespace: bootstrap.namespace.clone(),
        metrics: metrics.clone(),
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
    process.register_metrics(&metrics, &bootstrap.apps);
    let pages = Arc::new(process.admin_state(metrics, level));
    let takes_over = doors.is_waiting();
    if process.discovery.is_none() {
        process.open(&bootstrap, &mut doors, &pages)?;
    }
    if !takes_over {
        process.show(&bootstrap, &mut doors, &pages)?;
    }
    let end = process
        .serve(&bootstrap, &mut doors, &pages, &mut changes, &mut signals)
        .await?;
    let mut was_registered = false;
    match end {
        // The instance is the one before still.
        End::Asked if doors.is_waiting() => {}
        End::Asked => was_registered = process.deregister(&bootstrap, changes).await,
        End::Relieved => process.hand_on(doors),
    }
    process.drain(&bootstrap, was_registered).await;
    drop(loops);
    Ok(())
}

/// Why a process ends.
enum End {
    /// By a signal, an admin request, or the end of its main process.
    Asked,
    /// Another serves in its place.
    Relieved,
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
    /// The name server, where there is one, while this process serves.
    names: Option<dns::Server>,
    /// Services of this one are called by their bare names.
    namespace: Arc<str>,
    documents: Documents,
    discovery: Option<Discovery>,
    application: Application,
    status: Arc<Status>,
    metrics: Arc<Registry>,
    /// Dropped last of all: that writes what is still in its buffers.
    access_log: Option<AccessLog>,
}

fn admin_token(bootstrap: &SidecarBootstrap) -> Result<Option<Token>, StartError> {
    let Some(path) = bootstrap.admin_token_file.clone() else {
        return Ok(None);
    };
    match fs::read_to_string(&path) {
        Ok(text) if text.trim().len() >= TOKEN_BYTES_MIN => Ok(Some(Token::new(text.trim()))),
        Ok(_) => {
            let short = format!("a token of at least {TOKEN_BYTES_MIN} characters is wanted");
            let error = io::Error::other(short);
            Err(StartError::AdminToken { path, error })
        }
        Err(error) => Err(StartError::AdminToken { path, error }),
    }
}

/// A problem that does not stand against the configuration.
fn tell(problem: &Problem) {
    match problem.is_error() {
        true => tracing::error!(%problem, "Configuration, of which not all has an effect"),
        false => tracing::warn!(%problem, "Configuration"),
    }
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
                    tell(remark);
                }
                *lock(&self.status.problems) = remarks;
                *lock(&self.status.refused) = false;
                self.status.revision.set(revision as i64);
                tracing::info!(revision, source, "Configuration in effect");
                Ok(())
            }
            Err(problems) => {
                for problem in &problems {
                    match problem.stands_against() {
                        true => tracing::error!(%problem, "Configuration refused"),
                        false => tell(problem),
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
        let name = terms::sidecar_name(bootstrap);
        let mut settings = discovery::Settings::new(&name, options.collect());
        settings.services = terms::wanted_services(&registry.services, &bootstrap.namespace);
        settings.snapshot = bootstrap.snapshot.clone();
        let events = self.plane.clusters().events().clone();
        settings.events = Some(Box::new(move |since, max| events.since(since, max)));
        settings.load = Some(load::of_frames(&self.plane));
        let advertise = terms::advertised(bootstrap);
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
        self.discovery = Some(discovery);
        Ok(Some(changes))
    }

    /// Serves names and the admin pages from now on.
    fn show(
        &mut self,
        bootstrap: &SidecarBootstrap,
        doors: &mut Doors,
        pages: &Arc<admin::State>,
    ) -> Result<(), StartError> {
        self.names = doors.serve_names(bootstrap, &self.metrics)?;
        self.tell_names();
        doors.serve_pages(pages.clone())?;
        tracing::info!(admin = %bootstrap.admin, workers = terms::workers(bootstrap), "Serving");
        Ok(())
    }

    /// Takes traffic from now on, says so to the registry, and relieves the process before where there is one.
    fn open(
        &mut self,
        bootstrap: &SidecarBootstrap,
        doors: &mut Doors,
        pages: &Arc<admin::State>,
    ) -> Result<(), StartError> {
        self.plane.open()?;
        self.status.is_open.store(true, Ordering::Relaxed);
        self.announce();
        if doors.is_waiting() {
            self.show(bootstrap, doors, pages)?;
        }
        doors.relieve()
    }

    /// Whether what there is to know when we start is in effect: traffic that came before would be taken for a stranger's.
    fn is_informed(&self) -> bool {
        let status = self.discovery.as_ref().map(Discovery::status);
        status.is_none_or(|status| status.is_in_effect())
    }

    /// Tells the registry how the application is, once others may come to it.
    fn announce(&self) {
        if let Some(discovery) = &self.discovery
            && self.plane.is_open()
        {
            discovery.announce(self.application.state());
        }
    }

    /// How discovery and the application stand, as gauges.
    fn register_metrics(&self, metrics: &Registry, apps: &[AppPort]) {
        self.application.register_metrics(metrics, apps);
        if let Some(discovery) = &self.discovery {
            discovery.register_metrics(metrics);
        }
    }

    fn admin_state(&self, metrics: Arc<Registry>, level: log::Level) -> admin::State {
        let clusters: Arc<Clusters> = self.plane.clusters().clone();
        let events = clusters.events().clone();
        let lanes = self.plane.lanes().clone();
        let (config, problems, leave, drain) = (
            self.status.clone(),
            self.status.clone(),
            self.status.clone(),
            self.status.clone(),
        );
        let discovery = self.discovery.as_ref().map(Discovery::status_handle);
        let discovered = discovery.clone();
        let started = Arc::new(started(self.status.clone(), discovery));
        let (ready, obstacles) = (started.clone(), self.application.obstacles());
        let ends = self.status.clone();
        let current = level.clone();
        let explained = self.status.clone();
        let (known, namespace) = (clusters.clone(), self.namespace.clone());
        admin::State {
            started: Box::new(move || none_of(started())),
            ready: Box::new(move || none_of([draining(&ends), ready(), obstacles()].concat())),
            config: Box::new(move || view::snapshot(&lock(&config.snapshot).clone())),
            problems: Box::new(move || {
                let rejected = discovered.as_ref().and_then(|status| status().rejected);
                view::problems(
                    &lock(&problems.problems),
                    *lock(&problems.refused),
                    rejected.as_ref(),
                )
            }),
            explain: Box::new(move |asked| {
                let snapshot = lock(&explained.snapshot).clone();
                view::explained(asked, &snapshot, &namespace, &known)
            }),
            clusters: Box::new(move || view::clusters(&clusters)),
            events: Box::new(move |since| events.since(since, EVENTS_MAX)),
            lanes: Box::new(move || view::lanes(&lanes)),
            metrics: Box::new(move |openmetrics| {
                metrics.encode(if openmetrics {
                    crate::telemetry::metrics::Format::OpenMetrics
                } else {
                    crate::telemetry::metrics::Format::Prometheus
                })
            }),
            leave: Box::new(move || leave.leave.notify_one()),
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
        doors: &mut Doors,
        pages: &Arc<admin::State>,
        changes: &mut Option<Changes>,
        signals: &mut Signals,
    ) -> Result<End, StartError> {
        let mut watch = bootstrap
            .mesh
            .clone()
            .map(|path| Watch::start(vec![path]))
            .transpose()?;
        let mut tick = tokio::time::interval(TICK);
        let mut looks = tokio::time::interval(OPEN_POLL);
        let open_at_latest = Instant::now() + OPEN_AT_LATEST;
        let mut settled = std::pin::pin!(tokio::time::sleep(SETTLED));
        let mut started = true;
        let mut relief = Relief::default();
        let status = self.status.clone();
        let mut main_process = std::pin::pin!(main_process_end(bootstrap));
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return Ok(End::Asked),
                _ = signals.interrupt.recv() => return Ok(End::Asked),
                () = status.drain.notified() => return Ok(End::Asked),
                () = status.leave.notified() => {
                    tracing::info!("Deregistering; what still comes is served");
                    self.discovery.iter().for_each(Discovery::retire);
                }
                () = &mut main_process => return Ok(End::Asked),
                successor = doors.successor(), if relief.is_none() => {
                    relief = self.hand_over(successor, doors).await;
                }
                relieved = finished(&mut relief) => match relieved {
                    Ok(()) => return Ok(End::Relieved),
                    Err(error) => {
                        tracing::warn!(%error, "The process that was to take over did not; this one serves on");
                        relief = None;
                        self.discovery.iter().for_each(Discovery::resume);
                    }
                },
                () = file_change(&mut watch) => self.reload_files(),
                _ = signals.hangup.recv() => {
                    self.access_log.iter().for_each(AccessLog::reopen);
                    self.reload_files();
                }
                change = next_change(changes) => self.follow(change),
                () = self.application.changed() => self.announce(),
                _ = looks.tick(), if !self.plane.is_open() => {
                    doors.expect_in_time()?;
                    let is_late = !doors.is_waiting() && Instant::now() >= open_at_latest;
                    if is_late || self.is_informed() {
                        self.open(bootstrap, doors, pages)?;
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

    /// Gives a process that wants to take over what it needs; this one serves until it says that it does.
    async fn hand_over(&self, successor: Successor, doors: &Doors) -> Relief {
        tracing::info!("Handing over");
        if let Some(discovery) = &self.discovery {
            discovery.hold().await;
        }
        let sockets = doors.sockets(&self.plane);
        Some(Box::pin(async move { successor.relieves(sockets?).await }))
    }
}

/// A successor that gets ready; None where there is none.
type Relief = Option<Pin<Box<dyn Future<Output = std::io::Result<()>>>>>;

/// Done when the successor serves, or does not; never where there is none.
async fn finished(relief: &mut Relief) -> std::io::Result<()> {
    match relief {
        Some(relief) => relief.await,
        None => std::future::pending().await,
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

/// Reads the bootstrap of a proxy.
pub fn read_bootstrap(file: Option<&Path>) -> Result<SidecarBootstrap, Vec<Problem>> {
    SidecarBootstrap::read(file, std::env::vars())
}
