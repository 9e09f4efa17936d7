//! Whom a lane lets in, between sidecars: told on answers as `x-mesh-admit`, and heard by callers, who keep the rest at home.
//!
//! Only the sidecar beside the application speaks, and only while its lane shuts somebody out ([`crate::lane`]); an application's own
//! field ends there. The caller's sidecar takes the field off and goes by it for a second, endpoint by endpoint
//! ([`crate::proxy::cluster::Cluster::pick_admitting`]).

use tokio::time::Instant;

use super::head::{Fields, Known};
use crate::model::Class;
use crate::proxy::cluster::Endpoint;
use crate::proxy::lane::Lane;

const FIELD: &[u8] = b"x-mesh-admit";

/// An answer of the application says whom its lane lets in, where that is not everybody.
pub fn tell(lane: &Lane, fields: &mut Fields, now: Instant) {
    if let Some(admits) = lane.admits(now) {
        say(admits, fields);
    }
}

pub fn say(admits: Class, fields: &mut Fields) {
    fields.push_known(Known::XMeshAdmit, FIELD, admits.as_str().as_bytes());
}

/// An endpoint has answered: the caller's sidecar remembers what it says.
#[inline]
pub fn hear(endpoint: &Endpoint, fields: &mut Fields) {
    if fields.contains(Known::XMeshAdmit) {
        heard(endpoint, fields);
    }
}

#[cold]
fn heard(endpoint: &Endpoint, fields: &mut Fields) {
    if let Some(admits) = fields.get(Known::XMeshAdmit).and_then(Class::from_bytes) {
        endpoint.admits_only(admits, Instant::now());
    }
    fields.remove(Known::XMeshAdmit);
}
