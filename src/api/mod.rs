//! The wire types of the registry's HTTP API, used by registry, discovery and cli, and the small client they share.
//!
//! Everything is JSON under `/v1`; the description with every route is served at `/v1/openapi.json`. Types here only carry
//! data: what is valid is the registry's to say, what a change means is the watcher's.
//!
//! **Versions.** Readers of these types ignore fields and frame types they do not know, and an [`Instance`] carries unknown
//! fields on, so an older and a newer program work together. A sender says which [`WIRE_VERSION`] it speaks in the header
//! [`VERSION_HEADER`]; the registry refuses unknown fields (typing errors) from everyone but a sender newer than itself.

pub mod client;
mod document;
mod error;
mod event;
mod frames;
mod instance;
mod sidecar;
mod task;
mod watch;

pub use client::{Client, ClientError, ClientOptions, WatchStream};
pub use document::{
    Action, Applied, Change, Diff, Document, DocumentKey, Documents, History, HistoryEntry,
};
pub use error::{ErrorBody, ErrorDetail, Problem, Severity, Snippet};
pub use event::{Event, Events};
pub use frames::{FRAME_BYTES_MAX, FrameDecoder, FrameError};
pub use instance::{
    Instance, InstancePort, InstanceState, Load, Protocol, Registered, Registration,
    ServiceInstances, ServiceSummary, Services, StateChange,
};
pub use sidecar::{
    Acknowledged, EVENTS_PER_FRAME_MAX, Frame, FrameAnswer, FrameInstance, Rejection,
    SidecarRejection, SidecarStatus, Sidecars,
};
pub use task::{
    NewTask, SubmittedTask, Task, TaskLane, TaskLaneChange, TaskLanes, TaskRetry, TaskState, Tasks,
};
pub use watch::{InstancesChange, ServiceSet, WatchFrame, WatchQuery};

/// The version of everything in this module; it grows only when an old reader could misunderstand a new writer.
pub const WIRE_VERSION: u32 = 2;

/// The request header that carries the sender's [`WIRE_VERSION`]; absent means a human with curl.
pub const VERSION_HEADER: &str = "x-pillion-wire-version";

/// The request header that names who makes a change to documents.
pub const AUTHOR_HEADER: &str = "x-pillion-author";

/// The answer header of a long-poll: pass it back as `index`.
pub const INDEX_HEADER: &str = "x-pillion-index";

/// The registry's port where a URL names none.
pub const DEFAULT_PORT: u16 = 15010;
