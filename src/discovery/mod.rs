//! The sidecar's side of the registry: registering, frames, watching, the last good snapshot on disk.
//!
//! [`Discovery::start`] gives the app two channels. Documents come as texts, because compiling them is `config`'s, and
//! endpoints come one service at a time, so that a change costs what it costs and not the whole. The app answers each
//! change; only then is it acknowledged to the registry and kept on disk. Nothing here decides about a request: when no
//! registry answers, the last good state stays in effect for as long as it takes.

#[cfg(test)]
mod tests;

mod changes;
mod endpoints;
mod keeper;
mod lane;
mod link;
mod metrics;
pub mod mirror;
mod registration;
mod saved;
mod settings;
mod shared;
pub mod snapshot;
mod status;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::api::{Client, ClientError, InstanceState};
use crate::telemetry::metrics::Registry;

pub use changes::{DocumentsChange, EndpointsChange};
pub use registration::registrations;
pub use settings::{MeasureLoad, Settings};
pub use status::{Source, Status};

use keeper::Keeper;
use link::{Leave, Left, Link};
use shared::Shared;

/// How long peers get to acknowledge that we have left; serving goes on meanwhile.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Without a connection there is nobody to tell; this long it may come back.
const LEAVE_TIMEOUT_DISCONNECTED: Duration = Duration::from_secs(1);

/// A registry that answers early, because a peer refused something, is asked again after this.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Dropping it ends the connection without deregistering; see [`Discovery::leave`].
pub struct Discovery {
    shared: Arc<Shared>,
    announced: watch::Sender<Option<InstanceState>>,
    leaves: mpsc::Sender<Leave>,
    /// Deregistering has begun, and nothing is registered any more.
    is_retired: AtomicBool,
    sidecar: String,
    tasks: Vec<JoinHandle<()>>,
}

/// What the app follows and answers.
pub struct Changes {
    pub documents: mpsc::Receiver<DocumentsChange>,
    pub endpoints: mpsc::Receiver<EndpointsChange>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("no registry is given; write registry.addresses, or leave discovery out")]
    NoRegistry,
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// How leaving went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Departure {
    /// Nothing of ours was registered.
    NothingRegistered,
    /// No sidecar sends us anything any more that follows the registry.
    Acknowledged,
    /// Time is up; these have not said that they know.
    Unacknowledged { missing: Vec<String> },
    /// No registry could be told; it will miss our frames.
    Untold,
}

impl Discovery {
    /// Begins to watch, on the current runtime. The state on disk is loaded before this returns, and handed out when a
    /// registry has confirmed it or none answers in time. Nothing is registered before [`Discovery::announce`].
    pub fn start(settings: Settings) -> Result<(Self, Changes), StartError> {
        let clients = settings
            .registries
            .iter()
            .map(Client::new)
            .collect::<Result<Vec<_>, _>>()?;
        if clients.is_empty() {
            return Err(StartError::NoRegistry);
        }
        let (mirror, damage) = load(&settings);
        let status = Status {
            snapshot_damage: damage,
            ..Status::default()
        };
        let keeper = settings.snapshot.clone().map(Keeper::start);
        let (documents_sender, documents) = mpsc::channel(1);
        let (endpoints_sender, endpoints) = mpsc::channel(1);
        let shared = Shared::new(
            mirror,
            settings.services.clone(),
            keeper,
            status,
            documents_sender,
            endpoints_sender,
        );
        let (announced, announced_receiver) = watch::channel(None);
        let (leaves, leaves_receiver) = mpsc::channel(1);
        let sidecar = settings.sidecar.clone();
        let first_answer = release_after(shared.clone(), settings.first_answer_timeout);
        let link = Link::new(
            shared.clone(),
            clients,
            settings,
            announced_receiver,
            leaves_receiver,
        );
        let tasks = vec![
            tokio::spawn(first_answer),
            tokio::spawn(async move { match link.run().await {} }),
        ];
        Ok((
            Self {
                shared,
                announced,
                leaves,
                is_retired: AtomicBool::new(false),
                sidecar,
                tasks,
            },
            Changes {
                documents,
                endpoints,
            },
        ))
    }

    /// Registers our instances in this state, or changes it. Call it when the listeners that peers will use are open. Without effect
    /// once they have retired.
    pub fn announce(&self, state: InstanceState) {
        if !self.is_retired.load(Ordering::Relaxed) {
            self.announced.send_replace(Some(state));
        }
    }

    /// Begins to deregister our instances for good, so that peers stop using us, and waits for nothing. What waits for the peers is
    /// [`Discovery::leave`].
    pub fn retire(&self) {
        if !self.is_retired.swap(true, Ordering::Relaxed) {
            self.announced.send_replace(None);
            tokio::spawn(deregister(self.leaves.clone()));
        }
    }

    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// A function that gives the status at any later time, for the admin pages.
    pub fn status_handle(&self) -> impl Fn() -> Status + Send + Sync + Clone + use<> {
        let shared = self.shared.clone();
        move || shared.status()
    }

    /// Reports as `pillion_discovery_*`.
    pub fn register_metrics(&self, registry: &Registry) {
        let status = self.status_handle();
        registry.collect(move |scrape| metrics::collect(&status(), scrape));
    }

    /// Deregisters, and waits until every watching peer has stopped using us, `timeout` at most ([`LEAVE_TIMEOUT`] is
    /// what the mesh promises). Keep serving meanwhile. Watching goes on.
    pub async fn leave(&self, timeout: Duration) -> Departure {
        // What is on its way to be registered counts as well.
        let was_announced = self.announced.send_replace(None).is_some();
        if !self.is_retired.swap(false, Ordering::Relaxed) && !was_announced {
            return Departure::NothingRegistered;
        }
        let timeout = match self.status().connected {
            Some(_) => timeout,
            None => timeout.min(LEAVE_TIMEOUT_DISCONNECTED),
        };
        let deadline = Instant::now() + timeout;
        let departure =
            match tokio::time::timeout_at(deadline, deregister(self.leaves.clone())).await {
                Ok(Some(left)) => self.acknowledged(left, deadline).await,
                Ok(None) => Departure::NothingRegistered,
                Err(_) => Departure::Untold,
            };
        info!(?departure, "Left the registry");
        departure
    }

    async fn acknowledged(&self, left: Left, deadline: Instant) -> Departure {
        let mut missing = Vec::new();
        loop {
            let wait = deadline.saturating_duration_since(Instant::now());
            let asked = left
                .client
                .acknowledged(left.revision, Some(&self.sidecar), wait);
            match tokio::time::timeout_at(deadline, asked).await {
                Ok(Ok(answer)) => missing = answer.missing,
                Ok(Err(error)) => {
                    warn!(%error, "Cannot learn whether peers know that we leave");
                    return Departure::Untold;
                }
                Err(_) => {}
            }
            // A peer that refuses documents does use the endpoints that came with them.
            match (missing.is_empty(), Instant::now() >= deadline) {
                (true, false) => return Departure::Acknowledged,
                (_, true) => return Departure::Unacknowledged { missing },
                (false, false) => tokio::time::sleep(ASK_AGAIN).await,
            }
        }
    }

    /// Ends the connection, after what is known is on disk.
    pub async fn stop(self) {
        if let Err(error) = self.shared.flush().await {
            warn!(error, "The last good snapshot could not be written");
        }
    }
}

/// Keeps on asking over as many connections as it takes.
async fn deregister(leaves: mpsc::Sender<Leave>) -> Option<Left> {
    loop {
        let (reply, left) = oneshot::channel();
        if leaves.send(Leave(reply)).await.is_err() {
            return None;
        }
        if let Ok(left) = left.await {
            return left;
        }
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn load(settings: &Settings) -> (mirror::Mirror, Vec<String>) {
    let Some(path) = &settings.snapshot else {
        return Default::default();
    };
    let loaded = snapshot::load(path);
    let (mirror, unreadable) = saved::restore(loaded.saved, &settings.services);
    let mut damage = loaded.problems;
    if unreadable > 0 {
        damage.push(format!(
            "{}: {unreadable} entries could not be read and were left out",
            path.display()
        ));
    }
    damage
        .iter()
        .for_each(|problem| warn!(problem, "The last good snapshot is damaged"));
    (mirror, damage)
}

async fn release_after(shared: Arc<Shared>, timeout: Duration) {
    tokio::time::sleep(timeout).await;
    shared.release();
}
