use std::collections::HashMap;
use std::sync::Arc;

use super::{Bind, Name, Route, Service, Status};

/// All mesh documents of one revision, checked: every reference in it resolves or is marked invalid.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Grows with each accepted change in this process; 0 is the empty snapshot before the first load.
    pub revision: u64,
    /// The sockets that `Gateway` documents ask for.
    pub binds: Vec<Arc<Bind>>,
    /// Routes that apply to the outbound traffic of sidecars (short form, or `parentRefs` of kind `Service`).
    pub mesh_routes: Vec<Arc<Route>>,
    pub services: HashMap<Name, Arc<Service>>,
    /// What became of each document that has a status, by kind and name.
    pub statuses: Vec<Status>,
}
