use serde::{Deserialize, Serialize};

use super::{Document, DocumentKey, Instance};

/// `GET /v1/watch`: one stream per sidecar.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WatchQuery {
    /// Who watches; acknowledgements in its [`super::Frame`]s count for this stream.
    pub sidecar: String,
    /// The last revision in effect here; 0 asks for everything.
    pub from: u64,
    /// The store that `from` belongs to, from [`WatchFrame::Hello`]; revisions of another store mean nothing.
    pub store: Option<String>,
    /// `namespace/name` of the services whose instances are wanted; None wants all. Whoever changes its selection starts
    /// again with `from: 0`, since what it had left out before is not in the deltas.
    pub services: Option<Vec<String>>,
}

/// One line of the watch stream. In order:
///
/// 1. `hello`.
/// 2. Unless `from` can be resumed: `reset`, any number of `snapshot`s (and `changes` made meanwhile), then `synced`. The watcher gathers
///    these beside what it has and swaps at `synced`: documents that were not listed are gone. A service that was listed has exactly
///    the instances listed, none included; a service that was **not** listed is unknown to this registry (it may have lost its
///    data), and the watcher keeps what it knows of it.
/// 3. `changes`, each to be applied as a whole, and a `heartbeat` each 10 s. A `reset` may come again at any time: the watcher was too slow.
///
/// The watcher applies, then acknowledges the frame's revision.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum WatchFrame {
    Hello {
        version: u32,
        /// Identifies the registry's data; another store's revisions do not compare.
        store: String,
        /// The registry's current revision.
        revision: u64,
    },
    Reset {
        reason: String,
    },
    Snapshot {
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        documents: Vec<Document>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        services: Vec<ServiceSet>,
    },
    Synced {
        revision: u64,
    },
    Changes {
        revision: u64,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        documents: Vec<Document>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        documents_deleted: Vec<DocumentKey>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        instances: Vec<InstancesChange>,
    },
    Heartbeat {
        /// Everything up to here that concerns this watcher has been sent.
        revision: u64,
    },
    /// A frame of a newer version; to be skipped.
    #[serde(other)]
    Unknown,
}

/// All instances of one service, or one part of them where a service is too large for a frame (the parts of one listing add up).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ServiceSet {
    pub namespace: String,
    pub name: String,
    #[serde(default)]
    pub instances: Vec<Instance>,
}

/// What changed in one service.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct InstancesChange {
    pub namespace: String,
    pub service: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upserts: Vec<Instance>,
    /// Instance ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removals: Vec<String>,
}
