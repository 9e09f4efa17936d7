//! What the store holds, as the registry's reads and watches need it: in memory, fed by the store's own events in their order, so that
//! every replica of one store shows the same. Beside it stands what is never stored: when an instance was last heard, and its load.

mod change;
mod state;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{Instant, timeout};

pub use change::{Change, Selector};
pub use state::{Entry, InstanceSet, Known, State, StoredDocument};

use super::keys;
use crate::store::ring::Ring;
use crate::store::{EventGroup, KeyRange, PAGE_KEYS_MAX, Range, Revision, Store, StoreError};

/// How many changes, and bytes of them, a watch may lag behind before it has to list again.
const CHANGES_MAX: usize = 16 << 10;
const CHANGES_BYTES_MAX: usize = 8 << 20;

pub struct View {
    state: Mutex<State>,
    changes: Ring<Change>,
}

impl View {
    /// Reads everything from the store; instances count as heard `now`.
    pub async fn load(store: &dyn Store, now: Instant) -> Result<Self, StoreError> {
        let (state, revision) = read(store, now).await?;
        Ok(Self {
            state: Mutex::new(state),
            changes: Ring::new(revision, CHANGES_MAX, CHANGES_BYTES_MAX),
        })
    }

    /// Follows the store until it fails, and says why it did.
    pub async fn follow(&self, store: &dyn Store) -> StoreError {
        loop {
            let mut events = match store.watch(keys::shown(), self.revision()).await {
                Ok(events) => events,
                Err(error) => return error,
            };
            while let Some(group) = events.next().await {
                match group {
                    Ok(group) => self.apply(&group, Instant::now()),
                    Err(StoreError::Compacted { .. }) => break,
                    Err(error) => return error,
                }
            }
            // The store's window has run over us, or its watch was cut.
            if let Err(error) = self.reload(store).await {
                return error;
            }
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs while it is held; were it to, the state is still that of some revision.
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What watches follow.
    pub fn changes(&self) -> &Ring<Change> {
        &self.changes
    }

    /// The newest revision that is shown.
    pub fn revision(&self) -> Revision {
        self.changes.revision()
    }

    /// Waits until `revision` is shown. The store has it already, so this is a matter of a moment; false when it was not.
    pub async fn reached(&self, revision: Revision) -> bool {
        let mut newest = self.changes.subscribe();
        let reached = newest.wait_for(|newest| *newest >= revision);
        timeout(Duration::from_secs(5), reached)
            .await
            .is_ok_and(|reached| reached.is_ok())
    }

    pub fn apply(&self, group: &EventGroup, now: Instant) {
        let mut state = self.state();
        if let Some(change) = state.apply(group, now) {
            self.changes
                .push(group.revision, change.cost(), Arc::new(change));
        }
        // While the state is held, so that who lists and then follows misses nothing.
        self.changes.publish(group.revision);
    }

    /// Starts over from the store. Who watches finds the changes gone, and lists again.
    async fn reload(&self, store: &dyn Store) -> Result<(), StoreError> {
        let (mut fresh, revision) = read(store, Instant::now()).await?;
        let mut state = self.state();
        fresh.keep_heard(&state);
        *state = fresh;
        let gap = Arc::new(Change::gap());
        self.changes.push(revision, usize::MAX / 2, gap);
        self.changes.publish(revision);
        Ok(())
    }
}

async fn read(store: &dyn Store, now: Instant) -> Result<(State, Revision), StoreError> {
    let mut state = State::default();
    let mut at = None;
    for prefix in [
        keys::DOCUMENTS_HEAD,
        keys::DOCUMENTS,
        keys::INSTANCES,
        keys::GONE,
    ] {
        let mut keys = KeyRange::prefix(prefix);
        loop {
            let page = store
                .range(Range {
                    keys: keys.clone(),
                    limit: PAGE_KEYS_MAX,
                    at,
                })
                .await?;
            at = Some(page.revision);
            let last = page.entries.last().map(|entry| entry.key.clone());
            for entry in &page.entries {
                state.load(entry, now);
            }
            match last.filter(|_| page.more) {
                Some(last) => keys.start = [&last[..], &[0]].concat().into(),
                None => break,
            }
        }
    }
    Ok((state, at.unwrap_or_default()))
}
