//! The control plane: instances, mesh documents by revision, watches, the HTTP API.
//!
//! What must survive is in the [`Store`]; [`view`] shows it in memory; [`instances`] and [`documents`] change it; [`watch`] tells the
//! sidecars; [`http`] is the way in. Everything runs on the caller's runtime, one thread is enough; the store has its own writer.
//!
//! Leaves out: what documents mean ([`crate::config`] says), where the process's settings come from, routing of anything.

pub mod documents;
mod events;
pub mod http;
pub mod instances;
mod keys;
mod limits;
mod metrics;
mod refusal;
pub mod view;
pub mod watch;
mod work;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub use limits::Limits;
pub use refusal::Refusal;

use crate::api::Event;
use crate::base::recent::Recent;
use crate::store::{Revision, Store, StoreError};
use documents::Documents;
use instances::Instances;
use metrics::Metrics;
use view::View;
use watch::Sidecars;

use crate::work::Work;
use crate::work::workers::Workers;

/// One registry. Cheap to share; [`Registry::run`] must run for it to do anything.
pub struct Registry {
    store: Arc<dyn Store>,
    view: View,
    instances: Instances,
    documents: Documents,
    sidecars: Arc<Sidecars>,
    events: Recent<Event>,
    work: Arc<Work>,
    disciplines: work::Disciplines,
    fit: work::FitInstances,
    limits: Limits,
    metrics: Metrics,
}

impl Registry {
    /// Reads the store. Nothing expires before its whole time has passed from `now`.
    pub async fn open(store: Arc<dyn Store>, limits: Limits) -> Result<Arc<Self>, StoreError> {
        let now = Instant::now();
        let view = View::load(&*store, now).await?;
        let work = Work::open(Arc::clone(&store)).await?;
        Ok(Arc::new(Self {
            store,
            view,
            instances: Instances::new(now),
            documents: Documents::default(),
            sidecars: Arc::default(),
            events: Recent::new(events::EVENTS_MAX),
            work,
            disciplines: work::Disciplines::default(),
            fit: work::FitInstances::default(),
            limits,
            metrics: Metrics::default(),
        }))
    }

    /// Keeps the view and the instances' states up to date, and hands out tasks. Returns only when the store has failed: the process must end then.
    pub async fn run(self: &Arc<Self>) -> StoreError {
        tokio::select! {
            error = self.view.follow(&*self.store) => error,
            reason = self.store.failed() => StoreError::Failed(reason),
            never = self.sweep_forever() => match never {},
            never = self.work.run(Arc::clone(self) as Arc<dyn Workers>) => match never {},
        }
    }

    pub fn revision(&self) -> Revision {
        self.view.revision()
    }

    /// Names the data; see [`Store::id`].
    pub fn store_id(&self) -> &str {
        self.store.id()
    }

    /// Waits until a committed revision shows in reads, so that who wrote it reads it.
    async fn shown(&self, revision: Revision) -> Result<(), Refusal> {
        match self.view.reached(revision).await {
            true => Ok(()),
            false => Err(Refusal::unavailable("the registry is behind its own store")
                .hint("try again in a moment")),
        }
    }

    async fn sweep_forever(&self) -> std::convert::Infallible {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.sweep(Instant::now()).await;
        }
    }
}
