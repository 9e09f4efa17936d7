//! One watch: hello, the state unless it can go on from where it was, then changes and heartbeats, for as long as it is read.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::listing::{self, Cursor};
use super::sidecars::WatchGuard;
use crate::api::{WIRE_VERSION, WatchFrame};
use crate::registry::view::Selector;
use crate::registry::{Refusal, Registry};
use crate::store::Revision;

/// Lines that are ready go out together up to about this.
const CHUNK_BYTES: usize = 32 << 10;

/// A watch that is read by [`Watch::next`].
pub struct Watch {
    registry: Arc<Registry>,
    guard: WatchGuard,
    selector: Selector,
    newest: watch::Receiver<Revision>,
    heartbeat_at: Instant,
    phase: Phase,
}

enum Phase {
    Hello {
        from: Revision,
        store: Option<String>,
    },
    /// `began` is the revision that the listing started at.
    Listing { cursor: Cursor, began: Revision },
    /// Everything up to `passed` has been sent; in a listing it is not `synced` yet.
    Following { passed: Revision, listing: bool },
}

impl Registry {
    /// Opens a watch that begins after the revision `from` of `store`, or with everything.
    pub fn watch(
        self: &Arc<Self>,
        sidecar: Option<&str>,
        selector: Selector,
        from: Revision,
        store: Option<String>,
    ) -> Result<Watch, Refusal> {
        let guard = self.sidecars.open(sidecar, self.limits.watches_max)?;
        Ok(Watch {
            registry: self.clone(),
            guard,
            selector,
            newest: self.view.changes().subscribe(),
            heartbeat_at: Instant::now() + self.limits.heartbeat,
            phase: Phase::Hello { from, store },
        })
    }
}

impl Watch {
    /// The next lines; None when a newer watch of the same sidecar has taken over.
    pub async fn next(&mut self) -> Option<Bytes> {
        let mut chunk = BytesMut::new();
        loop {
            self.newest.mark_unchanged();
            let ready = self.advance(&mut chunk)?;
            if chunk.len() >= CHUNK_BYTES || (!ready && !chunk.is_empty()) {
                self.heartbeat_at = Instant::now() + self.registry.limits.heartbeat;
                return Some(chunk.freeze());
            }
            if !ready
                && timeout_at(self.heartbeat_at, self.newest.changed())
                    .await
                    .is_err()
            {
                self.push(
                    &mut chunk,
                    &WatchFrame::Heartbeat {
                        revision: self.passed(),
                    },
                );
            }
        }
    }

    /// Does one step; false when there is nothing more to say for now.
    fn advance(&mut self, chunk: &mut BytesMut) -> Option<bool> {
        match &mut self.phase {
            Phase::Hello { from, store } => {
                let (from, store) = (*from, store.take());
                self.hello(from, store, chunk);
                Some(true)
            }
            Phase::Listing { cursor, began } => {
                let line = listing::step(&self.registry.view.state(), &self.selector, cursor);
                chunk.extend_from_slice(line.as_bytes());
                if *cursor == Cursor::Done {
                    self.phase = Phase::Following {
                        passed: *began,
                        listing: true,
                    };
                }
                Some(true)
            }
            Phase::Following { passed, listing } => {
                let (passed, listing) = (*passed, *listing);
                self.follow(passed, listing, chunk)
            }
        }
    }

    fn hello(&mut self, from: Revision, store: Option<String>, chunk: &mut BytesMut) {
        let registry = self.registry.clone();
        let revision = registry.revision();
        let hello = WatchFrame::Hello {
            version: WIRE_VERSION,
            store: registry.store_id().to_owned(),
            revision,
        };
        self.push(chunk, &hello);
        let reason = if from == 0 {
            "begins"
        } else if store.is_some_and(|store| store != registry.store_id()) || from > revision {
            "the registry has other data than it had"
        } else if registry.view.changes().after(from).is_err() {
            "the revision is too old"
        } else {
            registry
                .metrics
                .resumed
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.phase = Phase::Following {
                passed: from,
                listing: false,
            };
            return;
        };
        self.list(reason, chunk);
    }

    fn list(&mut self, reason: &str, chunk: &mut BytesMut) {
        self.registry
            .metrics
            .listings
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.push(
            chunk,
            &WatchFrame::Reset {
                reason: reason.to_owned(),
            },
        );
        self.phase = Phase::Listing {
            cursor: Cursor::default(),
            began: self.registry.revision(),
        };
    }

    fn follow(&mut self, passed: Revision, listing: bool, chunk: &mut BytesMut) -> Option<bool> {
        let registry = self.registry.clone();
        let newest = registry.revision();
        let next = match registry.view.changes().after(passed) {
            Ok(next) => next,
            Err(_) => {
                self.list("the changes came faster than they were read", chunk);
                return Some(true);
            }
        };
        if let Some((revision, change)) = next {
            let line = change.line(&self.selector);
            if let Some(line) = &line {
                chunk.extend_from_slice(line);
            }
            self.phase = Phase::Following {
                passed: revision,
                listing,
            };
            return self.guard.sent(revision, line.is_some()).then_some(true);
        }
        // Up to `newest` nothing else shows.
        let passed = passed.max(newest);
        self.phase = Phase::Following {
            passed,
            listing: false,
        };
        if listing {
            self.push(chunk, &WatchFrame::Synced { revision: passed });
        }
        self.guard.sent(passed, listing).then_some(false)
    }

    fn passed(&self) -> Revision {
        match self.phase {
            Phase::Following {
                passed,
                listing: false,
            } => passed,
            _ => 0,
        }
    }

    fn push(&self, chunk: &mut BytesMut, frame: &WatchFrame) {
        // These frames are numbers and short texts; they always serialize.
        chunk.extend_from_slice(&serde_json::to_vec(frame).unwrap_or_default());
        chunk.extend_from_slice(b"\n");
    }
}
