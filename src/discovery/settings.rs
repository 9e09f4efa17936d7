use std::path::PathBuf;
use std::time::Duration;

use crate::api::{ClientOptions, Events, Load, Registration};
use crate::base::backoff::Backoff;
use crate::model::Name;

/// Measures this instance; absent members are those that cannot be measured.
pub type MeasureLoad = Box<dyn Fn() -> Load + Send>;

/// The events that came after this id, so many at most.
pub type ReadEvents = Box<dyn Fn(u64, usize) -> Events + Send>;

/// What discovery is told by the bootstrap file.
pub struct Settings {
    /// Who this sidecar is to the registry: unique in the mesh, and the same after a restart.
    pub sidecar: String,
    /// The registry's replicas. Tried in turn, beginning with any.
    pub registries: Vec<ClientOptions>,
    /// The services whose endpoints are wanted; None wants all.
    pub services: Option<Vec<Name>>,
    /// What to register once the process is ready, by instance id; see [`super::registrations`].
    pub registrations: Vec<(String, Registration)>,
    /// Where the last good snapshot is kept; None keeps none.
    pub snapshot: Option<PathBuf>,
    /// None sends no load: an invented figure is worse than none.
    pub load: Option<MeasureLoad>,
    /// What the registry is told of; None tells nothing.
    pub events: Option<ReadEvents>,
    /// Between two frames.
    pub frame_interval: Duration,
    /// How long a registry may take to answer at the start, before the snapshot on disk is used.
    pub first_answer_timeout: Duration,
    pub backoff: Backoff,
}

impl Settings {
    /// A sidecar that watches everything and registers nothing, with every default.
    pub fn new(sidecar: &str, registries: Vec<ClientOptions>) -> Self {
        Self {
            sidecar: sidecar.to_owned(),
            registries,
            services: None,
            registrations: Vec::new(),
            snapshot: None,
            load: None,
            events: None,
            frame_interval: Duration::from_secs(1),
            first_answer_timeout: Duration::from_secs(1),
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(15)),
        }
    }
}
