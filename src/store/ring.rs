//! The recent past, by revision: what watches are served from. Bounded by entries and by bytes; who falls behind it starts over.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

use super::{Revision, StoreError};

pub struct Ring<T> {
    past: Mutex<Past<T>>,
    /// The newest revision that readers may see.
    visible: watch::Sender<Revision>,
    entries_max: usize,
    bytes_max: usize,
}

struct Past<T> {
    entries: VecDeque<Entry<T>>,
    bytes: usize,
    /// Entries up to this revision are gone.
    compacted: Revision,
}

struct Entry<T> {
    revision: Revision,
    bytes: usize,
    value: Arc<T>,
}

impl<T> Ring<T> {
    /// Begins empty, as if everything up to `revision` had happened long ago.
    pub fn new(revision: Revision, entries_max: usize, bytes_max: usize) -> Self {
        let past = Past {
            entries: VecDeque::new(),
            bytes: 0,
            compacted: revision,
        };
        Self {
            past: Mutex::new(past),
            visible: watch::Sender::new(revision),
            entries_max,
            bytes_max,
        }
    }

    /// Adds an entry that readers see once [`Ring::publish`] has passed it. Revisions only grow.
    pub fn push(&self, revision: Revision, bytes: usize, value: Arc<T>) {
        let mut past = self.lock();
        past.entries.push_back(Entry {
            revision,
            bytes,
            value,
        });
        past.bytes += bytes;
        while past.entries.len() > self.entries_max || past.bytes > self.bytes_max {
            let Some(oldest) = past.entries.pop_front() else {
                break;
            };
            past.bytes -= oldest.bytes;
            past.compacted = oldest.revision;
        }
    }

    /// Shows everything up to `revision` to readers.
    pub fn publish(&self, revision: Revision) {
        self.visible.send_if_modified(|visible| {
            let newer = revision > *visible;
            *visible = revision.max(*visible);
            newer
        });
    }

    /// The newest visible revision.
    pub fn revision(&self) -> Revision {
        *self.visible.borrow()
    }

    /// To wait for a newer revision.
    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.visible.subscribe()
    }

    /// The first visible entry behind `revision`, if there is one.
    pub fn after(&self, revision: Revision) -> Result<Option<(Revision, Arc<T>)>, StoreError> {
        let visible = self.revision();
        let past = self.lock();
        past.check(revision)?;
        let first = past
            .entries
            .partition_point(|entry| entry.revision <= revision);
        let entry = past
            .entries
            .get(first)
            .filter(|entry| entry.revision <= visible);
        Ok(entry.map(|entry| (entry.revision, entry.value.clone())))
    }

    /// Every entry behind `from` up to `to`, newest first, also those not visible yet.
    pub fn between(&self, from: Revision, to: Revision) -> Result<Vec<Arc<T>>, StoreError> {
        let past = self.lock();
        past.check(from)?;
        let entries = past.entries.iter().rev();
        let wanted = entries
            .skip_while(|entry| entry.revision > to)
            .take_while(|entry| entry.revision > from);
        Ok(wanted.map(|entry| entry.value.clone()).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Past<T>> {
        // Nothing panics while it is held.
        self.past
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<T> Past<T> {
    fn check(&self, revision: Revision) -> Result<(), StoreError> {
        match revision < self.compacted {
            true => Err(StoreError::Compacted {
                oldest: self.compacted,
            }),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_only_what_is_published_and_is_told_when_it_fell_behind() {
        let ring = Ring::new(10, 2, 100);
        ring.push(11, 1, Arc::new("a"));
        assert_eq!(ring.after(10).unwrap(), None);
        ring.publish(11);
        assert_eq!(ring.after(10).unwrap().unwrap().0, 11);
        assert_eq!(ring.after(9), Err(StoreError::Compacted { oldest: 10 }));
        ring.push(12, 1, Arc::new("b"));
        ring.push(14, 1, Arc::new("c"));
        ring.publish(14);
        assert_eq!(ring.after(10), Err(StoreError::Compacted { oldest: 11 }));
        assert_eq!(*ring.after(12).unwrap().unwrap().1, "c");
        assert_eq!(ring.after(14).unwrap(), None);
    }

    #[test]
    fn bytes_bound_it_even_for_one_entry() {
        let ring = Ring::new(0, 100, 10);
        ring.push(1, 11, Arc::new(()));
        ring.publish(1);
        assert_eq!(ring.after(0), Err(StoreError::Compacted { oldest: 1 }));
        assert_eq!(ring.after(1).unwrap(), None);
    }
}
