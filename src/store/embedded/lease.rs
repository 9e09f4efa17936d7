//! When leases end. Only the writer knows; times are in memory, so a restart gives every lease its whole time again.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::store::LeaseId;

#[derive(Default)]
pub struct Leases {
    until: HashMap<LeaseId, (Duration, Instant)>,
}

impl Leases {
    pub fn add(&mut self, lease: LeaseId, ttl: Duration, now: Instant) {
        self.until.insert(lease, (ttl, now + ttl));
    }

    pub fn renew(&mut self, lease: LeaseId, now: Instant) -> bool {
        match self.until.get_mut(&lease) {
            Some((ttl, until)) => {
                *until = now + *ttl;
                true
            }
            None => false,
        }
    }

    pub fn remove(&mut self, lease: LeaseId) -> bool {
        self.until.remove(&lease).is_some()
    }

    /// The next end.
    pub fn next(&self) -> Option<Instant> {
        self.until.values().map(|(_, until)| *until).min()
    }

    pub fn ended(&self, now: Instant) -> Vec<LeaseId> {
        let ended = self.until.iter().filter(|(_, (_, until))| *until <= now);
        ended.map(|(lease, _)| *lease).collect()
    }
}
