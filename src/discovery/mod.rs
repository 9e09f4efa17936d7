//! The sidecar's side of the registry: registering, frames, watching, the last good snapshot on disk.

pub mod snapshot;
