//! How a process stands, for its admin pages to say.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::config::Problem;
use crate::discovery;
use crate::model::Snapshot;
use crate::telemetry::metrics::{Counter, Gauge, Registry};

/// What the admin pages ask about.
pub struct Status {
    pub snapshot: Mutex<Arc<Snapshot>>,
    pub problems: Mutex<Vec<Problem>>,
    pub refused: Mutex<bool>,
    pub not_listening: Mutex<Vec<String>>,
    /// Traffic is taken.
    pub is_open: AtomicBool,
    /// The process ends: others are not taken in any more.
    pub is_draining: AtomicBool,
    pub leave: Notify,
    pub drain: Notify,
    pub revision: Gauge,
    pub rejected: Counter,
}

impl Status {
    pub fn new(metrics: &Registry) -> Self {
        Self {
            snapshot: Mutex::default(),
            problems: Mutex::default(),
            refused: Mutex::new(false),
            not_listening: Mutex::default(),
            is_open: AtomicBool::default(),
            is_draining: AtomicBool::default(),
            leave: Notify::new(),
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
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What keeps this process from carrying traffic, its application aside.
pub fn started(
    status: Arc<Status>,
    discovery: Option<impl Fn() -> discovery::Status + Send + Sync>,
) -> impl Fn() -> Vec<String> + Send + Sync {
    move || {
        let mut reasons = lock(&status.not_listening).clone();
        reasons.extend(discovery.as_ref().and_then(|status| status().not_ready()));
        if reasons.is_empty() && !status.is_open.load(Ordering::Relaxed) {
            reasons.push("what the registry has said is being put into effect".to_owned());
        }
        reasons
    }
}

/// What keeps others from being taken in by a process that has started.
pub fn draining(status: &Status) -> Vec<String> {
    match status.is_draining.load(Ordering::Relaxed) {
        true => {
            vec!["draining: what is under way is ended, and nothing new is taken in".to_owned()]
        }
        false => Vec::new(),
    }
}

pub fn none_of(reasons: Vec<String>) -> Result<(), Vec<String>> {
    match reasons.is_empty() {
        true => Ok(()),
        false => Err(reasons),
    }
}
