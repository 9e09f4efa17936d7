//! Who watches, what each was given, and what each has in effect.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use crate::api::{Acknowledged, Rejection, SidecarRejection, SidecarStatus};
use crate::registry::{Refusal, Registry};
use crate::store::Revision;

/// Acknowledgements come in crowds; a waiter looks at most this often.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

pub struct Sidecars {
    watching: Mutex<Watching>,
    /// Grows with each change of `watching` that may matter to a waiter.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Watching {
    sidecars: BTreeMap<Arc<str>, Status>,
    opened: u64,
    /// Watches without a name, such as curl's.
    nameless: usize,
}

#[derive(Clone, Default)]
struct Status {
    /// Which watch is its current one; an older one that still hangs about ends.
    generation: u64,
    /// Its watch has passed this revision.
    sent: Revision,
    /// The newest revision in which something concerned it.
    concerned: Revision,
    applied: Revision,
    rejected: Option<Rejection>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Acknowledged,
    Missing,
    Rejected,
}

impl Status {
    fn standing(&self, revision: Revision) -> Standing {
        let rejected = self
            .rejected
            .as_ref()
            .map_or(0, |rejected| rejected.revision);
        // What it claims beyond what it was given belongs to another store's count.
        let applied = if self.applied > self.sent {
            0
        } else {
            self.applied
        };
        if rejected != 0 && rejected == revision {
            Standing::Rejected
        } else if self.sent >= revision && applied >= revision.min(self.concerned) {
            Standing::Acknowledged
        } else if rejected > revision && rejected <= self.sent {
            Standing::Rejected
        } else {
            Standing::Missing
        }
    }
}

impl Default for Sidecars {
    fn default() -> Self {
        Self {
            watching: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }
}

impl Sidecars {
    /// Notes a watch as open until the guard is dropped.
    pub fn open(
        self: &Arc<Self>,
        sidecar: Option<&str>,
        watches_max: usize,
    ) -> Result<WatchGuard, Refusal> {
        let mut watching = self.lock();
        if watching.count() >= watches_max {
            return Err(Refusal::unavailable(format!(
                "there are {watches_max} watches, the most this registry takes"
            )));
        }
        watching.opened += 1;
        let generation = watching.opened;
        let sidecar: Option<Arc<str>> = sidecar.map(Arc::from);
        match &sidecar {
            Some(name) => {
                let status = watching.sidecars.entry(name.clone()).or_default();
                *status = Status {
                    generation,
                    applied: status.applied,
                    ..Status::default()
                };
            }
            None => watching.nameless += 1,
        }
        Ok(WatchGuard {
            sidecars: self.clone(),
            sidecar,
            generation,
        })
    }

    pub fn open_count(&self) -> usize {
        self.lock().count()
    }

    /// A frame's word; from one that does not watch it means nothing.
    pub fn acknowledge(&self, sidecar: &str, applied: Revision, rejected: Option<Rejection>) {
        let mut watching = self.lock();
        let Some(status) = watching.sidecars.get_mut(sidecar) else {
            return;
        };
        if status.applied != applied || status.rejected != rejected {
            status.applied = applied;
            status.rejected = rejected;
            drop(watching);
            self.notify();
        }
    }

    pub fn statuses(&self) -> Vec<SidecarStatus> {
        let status = |(sidecar, status): (&Arc<str>, &Status)| SidecarStatus {
            sidecar: sidecar.to_string(),
            sent_revision: status.sent,
            applied_revision: status.applied,
            rejected: status.rejected.clone(),
        };
        self.lock().sidecars.iter().map(status).collect()
    }

    fn standing(&self, revision: Revision, except: Option<&str>) -> Acknowledged {
        let mut found = Acknowledged {
            revision,
            complete: true,
            acknowledged: 0,
            missing: Vec::new(),
            rejected: Vec::new(),
        };
        let watching = self.lock();
        for (sidecar, status) in watching
            .sidecars
            .iter()
            .filter(|(sidecar, _)| Some(&***sidecar) != except)
        {
            match status.standing(revision) {
                Standing::Acknowledged => found.acknowledged += 1,
                Standing::Missing => found.missing.push(sidecar.to_string()),
                Standing::Rejected => {
                    let Rejection { revision, problems } =
                        status.rejected.clone().unwrap_or_default();
                    found.rejected.push(SidecarRejection {
                        sidecar: sidecar.to_string(),
                        revision,
                        problems,
                    });
                }
            }
        }
        found.complete = found.missing.is_empty() && found.rejected.is_empty();
        found
    }

    fn notify(&self) {
        self.changed
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, Watching> {
        // Nothing panics while it is held.
        self.watching
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Watching {
    fn count(&self) -> usize {
        self.sidecars.len() + self.nameless
    }
}

impl Registry {
    /// Waits until nobody is missing any more (all have it or have refused it), at most `wait`; then says how it stands.
    pub async fn acknowledged(
        &self,
        revision: Revision,
        except: Option<&str>,
        wait: Duration,
    ) -> Acknowledged {
        let deadline = Instant::now() + wait;
        let mut changed = self.sidecars.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let standing = self.sidecars.standing(revision, except);
            if standing.missing.is_empty() || timeout_at(deadline, changed.changed()).await.is_err()
            {
                return standing;
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    pub fn sidecar_statuses(&self) -> Vec<SidecarStatus> {
        self.sidecars.statuses()
    }
}

/// An open watch; dropping it says that it has ended.
pub struct WatchGuard {
    sidecars: Arc<Sidecars>,
    sidecar: Option<Arc<str>>,
    generation: u64,
}

impl WatchGuard {
    /// Notes how far this watch has come; false when a newer watch of the same sidecar has taken its place.
    pub fn sent(&self, revision: Revision, concerned: bool) -> bool {
        let Some(sidecar) = &self.sidecar else {
            return true;
        };
        let mut watching = self.sidecars.lock();
        let Some(status) = watching
            .sidecars
            .get_mut(sidecar)
            .filter(|status| status.generation == self.generation)
        else {
            return false;
        };
        status.sent = revision;
        if concerned {
            status.concerned = revision;
        }
        drop(watching);
        self.sidecars.notify();
        true
    }
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        let mut watching = self.sidecars.lock();
        match &self.sidecar {
            None => watching.nameless -= 1,
            Some(sidecar) => {
                if watching
                    .sidecars
                    .get(sidecar)
                    .is_some_and(|status| status.generation == self.generation)
                {
                    watching.sidecars.remove(sidecar);
                }
            }
        }
        drop(watching);
        self.sidecars.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejection(revision: Revision) -> Option<Rejection> {
        Some(Rejection {
            revision,
            problems: Vec::new(),
        })
    }

    #[test]
    fn what_does_not_concern_a_sidecar_counts_when_its_watch_has_passed_it() {
        let mut status = Status {
            sent: 10,
            concerned: 4,
            applied: 4,
            ..Status::default()
        };
        assert_eq!(status.standing(10), Standing::Acknowledged);
        assert_eq!(status.standing(11), Standing::Missing);
        status.concerned = 9;
        assert_eq!(status.standing(10), Standing::Missing);
        assert_eq!(status.standing(4), Standing::Acknowledged);
    }

    #[test]
    fn a_refusal_is_told_for_the_revisions_it_holds_back() {
        let status = Status {
            sent: 12,
            concerned: 12,
            applied: 9,
            rejected: rejection(10),
            ..Status::default()
        };
        assert_eq!(status.standing(9), Standing::Acknowledged);
        assert_eq!(status.standing(10), Standing::Rejected);
        assert_eq!(
            status.standing(12),
            Standing::Missing,
            "it may accept 12 yet"
        );
        let status = Status {
            rejected: rejection(12),
            ..status
        };
        assert_eq!(
            status.standing(10),
            Standing::Rejected,
            "it was passed over by a later refusal"
        );
        let status = Status {
            applied: 11,
            rejected: rejection(10),
            ..status
        };
        assert_eq!(
            status.standing(11),
            Standing::Acknowledged,
            "instances move on while documents are refused"
        );
        assert_eq!(status.standing(10), Standing::Rejected);
    }

    #[test]
    fn a_claim_beyond_what_was_sent_is_another_stores() {
        let status = Status {
            sent: 5,
            concerned: 5,
            applied: 500,
            ..Status::default()
        };
        assert_eq!(status.standing(5), Standing::Missing);
    }

    #[test]
    fn a_newer_watch_of_the_same_sidecar_takes_the_place_of_the_older() {
        let sidecars = Arc::new(Sidecars::default());
        let older = sidecars.open(Some("a"), 10).unwrap();
        let newer = sidecars.open(Some("a"), 10).unwrap();
        assert!(!older.sent(5, true));
        assert!(newer.sent(5, true));
        drop(older);
        assert_eq!(sidecars.open_count(), 1);
        drop(newer);
        assert_eq!(sidecars.open_count(), 0);
        let _nameless = sidecars.open(None, 1).unwrap();
        assert!(sidecars.open(None, 1).is_err());
    }
}
