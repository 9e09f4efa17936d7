//! What sidecars have detected and done, in the order it was heard: the latest events of the whole mesh, in memory.
//!
//! Each replica lists what it was told itself; after a restart there is nothing. What must be kept belongs in a log.

use super::Registry;
use crate::api::{EVENTS_PER_FRAME_MAX, Event, Events};

/// Older ones are forgotten.
pub const EVENTS_MAX: usize = 4096;

/// Of one answer.
pub const LISTED_MAX: usize = 1000;

/// A longer text of an event is cut.
const TEXT_CHARS_MAX: usize = 300;

impl Registry {
    /// Notes what a sidecar has told.
    pub(super) fn note_events(&self, sidecar: &str, events: Vec<Event>) {
        for event in events.into_iter().take(EVENTS_PER_FRAME_MAX) {
            let cut = |text: String| text.chars().take(TEXT_CHARS_MAX).collect::<String>();
            self.events.push(|id| Event {
                id,
                time: cut(event.time),
                sidecar: Some(sidecar.to_owned()),
                service: cut(event.service),
                endpoint: event.endpoint.map(cut),
                instance: event.instance.map(cut),
                cause: cut(event.cause.into_owned()).into(),
                evidence: cut(event.evidence),
                action: cut(event.action.into_owned()).into(),
                duration_ms: event.duration_ms,
            });
        }
    }

    /// Those after an id, the oldest first, [`LISTED_MAX`] at most.
    pub fn events(&self, since: u64) -> Events {
        Events {
            last: self.events.last(),
            events: self.events.since(since, LISTED_MAX),
        }
    }
}
