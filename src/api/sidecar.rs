use serde::{Deserialize, Serialize};

use super::{Event, InstanceState, Load, Problem};

/// `POST /v1/sidecars/{sidecar}/frames`: sent each second, and at once after a revision was applied or refused.
/// It renews every instance in it, and acknowledges what its watch has delivered. Nothing of it is stored but a changed state.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Frame {
    /// The newest revision of the watch that is in effect here.
    pub applied_revision: u64,
    /// The newest revision that was refused, while the last good one keeps serving.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejection>,
    pub instances: Vec<FrameInstance>,
    /// What it has detected since its last frame, [`EVENTS_PER_FRAME_MAX`] at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
}

/// More events of one frame are not listed.
pub const EVENTS_PER_FRAME_MAX: usize = 64;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FrameInstance {
    pub id: String,
    #[serde(default)]
    pub state: InstanceState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Rejection {
    pub revision: u64,
    pub problems: Vec<Problem>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FrameAnswer {
    /// The registry's current revision.
    pub revision: u64,
    /// Instances that the registry does not know (any more): register them again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

/// `GET /v1/sidecars`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Sidecars {
    pub revision: u64,
    pub sidecars: Vec<SidecarStatus>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SidecarStatus {
    pub sidecar: String,
    /// What its watch has been given.
    pub sent_revision: u64,
    pub applied_revision: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejection>,
}

/// `GET /v1/revisions/{revision}/acknowledged`: whether every watching sidecar has the revision in effect. One that the
/// revision does not concern (its selector leaves the service out) counts as soon as its watch has passed it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Acknowledged {
    pub revision: u64,
    /// Nobody is missing and nobody refused.
    pub complete: bool,
    /// How many have it in effect.
    pub acknowledged: usize,
    pub missing: Vec<String>,
    pub rejected: Vec<SidecarRejection>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SidecarRejection {
    pub sidecar: String,
    pub revision: u64,
    pub problems: Vec<Problem>,
}
