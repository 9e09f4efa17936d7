//! The connection to a registry: kept up, and brought back with growing waits, each of the registries in turn.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{error, info, warn};

use crate::api::{
    Client, ClientError, EVENTS_PER_FRAME_MAX, Event, Frame, FrameInstance, InstanceState,
    Registration, WatchQuery, WatchStream,
};
use crate::base::backoff::Backoff;
use crate::model::Name;

use super::settings::{MeasureLoad, ReadEvents, Settings};
use super::shared::{Shared, Standing};

/// Between a frame and the next that only acknowledges, so that a burst of changes is acknowledged together.
const ACKNOWLEDGE_GAP: Duration = Duration::from_millis(20);
/// After a refused registration, before the next try.
const REGISTER_RETRY: Duration = Duration::from_secs(5);

pub(super) struct Link {
    shared: Arc<Shared>,
    sidecar: String,
    clients: Vec<Client>,
    services: Option<Vec<String>>,
    registrations: Vec<(String, Registration)>,
    load: Option<MeasureLoad>,
    events: Option<ReadEvents>,
    /// The last event that a registry has taken. What it has not is told again, as long as it is remembered.
    event_told: u64,
    frame_interval: Duration,
    backoff: Backoff,
    /// What our instances are; None before the process is ready, and after it has left.
    announced: watch::Receiver<Option<InstanceState>>,
    leaves: mpsc::Receiver<Leave>,
    /// A connection that ends is not made again while this is so.
    held: watch::Receiver<bool>,
    /// The ids that the registry has taken; it says so when it has forgotten them.
    registered: HashSet<String>,
    register_at: Instant,
    /// The revision that holds our deregistrations; 0 when there were none.
    left_revision: u64,
    rng: fastrand::Rng,
}

/// Asks to deregister everything; answered with the revision that holds it, or None when nothing was registered.
pub(super) struct Leave(pub oneshot::Sender<Option<Left>>);

pub(super) struct Left {
    pub client: Client,
    pub revision: u64,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    NotConnected(ClientError),
    #[error("{0}")]
    Broken(String),
}

impl Link {
    pub fn new(
        shared: Arc<Shared>,
        clients: Vec<Client>,
        settings: Settings,
        announced: watch::Receiver<Option<InstanceState>>,
        leaves: mpsc::Receiver<Leave>,
        held: watch::Receiver<bool>,
    ) -> Self {
        Self {
            shared,
            sidecar: settings.sidecar,
            clients,
            services: settings
                .services
                .map(|names| names.iter().map(Name::to_string).collect()),
            registrations: settings.registrations,
            load: settings.load,
            events: settings.events,
            event_told: 0,
            frame_interval: settings.frame_interval,
            backoff: settings.backoff,
            announced,
            leaves,
            held,
            registered: HashSet::new(),
            register_at: Instant::now(),
            left_revision: 0,
            rng: fastrand::Rng::new(),
        }
    }

    /// Connects, talks until that fails, and again; `clients` is not empty.
    pub async fn run(mut self) -> Infallible {
        let mut at = self.rng.usize(..self.clients.len());
        // Connections in a row that could not be made, over all registries.
        let mut failures = 0;
        loop {
            // Whoever holds it is gone only when this task is, too.
            let _ = self.held.wait_for(|held| !held).await;
            let client = self.clients[at].clone();
            let ended = self.session(&client).await;
            let reason = ended.to_string();
            warn!(
                registry = client.url(),
                reason, "No connection to the registry"
            );
            self.shared.disconnected(&reason);
            at = (at + 1) % self.clients.len();
            match ended {
                Ended::NotConnected(_) => failures += 1,
                Ended::Broken(_) => failures = 0,
            }
            self.pause(failures).await;
        }
    }

    /// After a broken connection a little, so that not all sidecars come back at once; after a failed one the other
    /// registries are tried first, and when all have failed they get time.
    async fn pause(&mut self, failures: u32) {
        let registries = self.clients.len() as u32;
        if failures >= registries {
            self.shared.release();
        }
        if failures.is_multiple_of(registries) {
            tokio::time::sleep(self.backoff.wait(failures / registries, &mut self.rng)).await;
        }
    }

    async fn session(&mut self, client: &Client) -> Ended {
        let position = self.shared.position();
        let query = WatchQuery {
            sidecar: self.sidecar.clone(),
            from: position.revision,
            store: position.store,
            services: self.services.clone(),
        };
        let stream = match client.watch(&query).await {
            Ok(stream) => stream,
            Err(error) => return Ended::NotConnected(error),
        };
        info!(
            registry = client.url(),
            from = query.from,
            "Watching the registry"
        );
        self.shared.connected(client.url());
        let shared = self.shared.clone();
        let reason = tokio::select! {
            reason = read(stream, &shared) => reason,
            error = self.converse(client) => error.to_string(),
        };
        Ended::Broken(reason)
    }

    /// Sends a frame each second and at once when there is something to say; registers and leaves.
    async fn converse(&mut self, client: &Client) -> ClientError {
        let mut standing = self.shared.standing();
        let mut ticks = tokio::time::interval(self.frame_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                Ok(()) = standing.changed() => tokio::time::sleep(ACKNOWLEDGE_GAP).await,
                Ok(()) = self.announced.changed() => {}
                Some(Leave(reply)) = self.leaves.recv() => match self.leave(client).await {
                    // Whoever asked may have stopped waiting.
                    Ok(left) => drop(reply.send(left)),
                    Err(error) => return error,
                },
            }
            if let Err(error) = self.speak(client, &mut standing).await {
                return error;
            }
        }
    }

    async fn speak(
        &mut self,
        client: &Client,
        standing: &mut watch::Receiver<Standing>,
    ) -> Result<(), ClientError> {
        self.register(client).await?;
        let frame = self.frame(standing);
        let answer = client.send_frame(&self.sidecar, &frame).await?;
        self.events_told(&frame.events);
        for id in &answer.unknown {
            info!(
                instance = id,
                "The registry does not know this instance (any more)"
            );
            self.registered.remove(id);
        }
        self.register(client).await
    }

    /// Registers what is announced and not registered. A refusal is reported and tried again later; watching goes on.
    async fn register(&mut self, client: &Client) -> Result<(), ClientError> {
        let Some(state) = *self.announced.borrow() else {
            return Ok(());
        };
        if self.registered.len() == self.registrations.len() || Instant::now() < self.register_at {
            return Ok(());
        }
        for (id, registration) in &self.registrations {
            if self.registered.contains(id) {
                continue;
            }
            let registration = Registration {
                state,
                ..registration.clone()
            };
            match client.register(id, &registration).await {
                Ok(registered) => {
                    info!(instance = id, revision = registered.revision, "Registered")
                }
                Err(error @ ClientError::Refused { .. }) => {
                    error!(instance = id, %error, "The registry refuses this instance");
                    self.register_at = Instant::now() + REGISTER_RETRY;
                    self.shared
                        .registered(self.registered.len(), Some(error.to_string()));
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            self.registered.insert(id.clone());
        }
        self.shared.registered(self.registered.len(), None);
        Ok(())
    }

    fn frame(&self, standing: &mut watch::Receiver<Standing>) -> Frame {
        let standing = standing.borrow_and_update().clone();
        let state = self.announced.borrow().unwrap_or_default();
        let load = self
            .load
            .as_ref()
            .filter(|_| !self.registered.is_empty())
            .map(|measure| measure());
        let instances = self.registered.iter().map(|id| FrameInstance {
            id: id.clone(),
            state,
            load,
        });
        Frame {
            applied_revision: standing.applied_revision,
            rejected: standing.rejected,
            instances: instances.collect(),
            events: self.new_events(),
        }
    }

    fn new_events(&self) -> Vec<Event> {
        let events = self.events.as_ref();
        let events = events.map(|events| events(self.event_told, EVENTS_PER_FRAME_MAX));
        events.unwrap_or_default().events
    }

    /// A gap before the first of them was forgotten while no registry could be told.
    fn events_told(&mut self, events: &[Event]) {
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return;
        };
        let forgotten = first.id.saturating_sub(self.event_told + 1);
        self.shared.events_forgotten(forgotten);
        self.event_told = last.id;
    }

    async fn leave(&mut self, client: &Client) -> Result<Option<Left>, ClientError> {
        let ids: Vec<String> = self.registered.iter().cloned().collect();
        for id in ids {
            match client.deregister(&id).await {
                Ok(gone) => self.left_revision = self.left_revision.max(gone.revision),
                Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => {}
                Err(error) => return Err(error),
            }
            self.registered.remove(&id);
        }
        self.shared.registered(0, None);
        let revision = self.left_revision;
        Ok((revision > 0).then(|| Left {
            client: client.clone(),
            revision,
        }))
    }
}

/// Feeds the mirror until the stream or its content is no good any more.
async fn read(mut stream: WatchStream, shared: &Arc<Shared>) -> String {
    loop {
        let frame = match stream.next().await {
            Ok(frame) => frame,
            Err(error) => return error.to_string(),
        };
        if let Err(error) = shared.frame(frame) {
            return error.to_string();
        }
    }
}
