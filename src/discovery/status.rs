use crate::api::Rejection;

/// How discovery stands: for `/ready`, `/config/problems` and the metrics.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Status {
    pub source: Source,
    /// The registry that is being watched.
    pub connected: Option<String>,
    /// Why the last connection ended or could not begin.
    pub last_error: Option<String>,
    /// The newest revision that has arrived, and the newest that is in effect.
    pub revision: u64,
    pub applied_revision: u64,
    /// The documents that the app refused, until good ones come.
    pub rejected: Option<Rejection>,
    /// Instances that the registry knows of us.
    pub registered: usize,
    pub registration_problem: Option<String>,
    /// Documents of a registry that lost its data; they stay in effect until they are applied again.
    pub documents_kept: usize,
    /// Why the snapshot file cannot be written.
    pub snapshot_problem: Option<String>,
    /// What was wrong with the snapshot file at the start.
    pub snapshot_damage: Vec<String>,
    /// Watches begun since the start.
    pub connects: u64,
    /// Whole listings received since the start.
    pub listings: u64,
    /// Events that were forgotten before a registry could be told.
    pub events_forgotten: u64,
}

/// Where the state in effect comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Source {
    /// There is none yet.
    #[default]
    Nothing,
    /// The last good snapshot; no registry has confirmed it.
    Disk,
    Registry,
}

impl Status {
    /// Whether all is in effect that has come so far, and that is something.
    pub fn is_in_effect(&self) -> bool {
        let is_applied = self.applied_revision >= self.revision || self.rejected.is_some();
        self.source != Source::Nothing && is_applied
    }

    /// Why this sidecar cannot serve what the registry knows; nothing once it has any state.
    pub fn not_ready(&self) -> Option<String> {
        match (self.source, &self.last_error) {
            (Source::Nothing, Some(error)) => Some(format!(
                "no registry has answered and no snapshot is on disk: {error}"
            )),
            (Source::Nothing, None) => Some("waiting for the registry's first answer".to_owned()),
            _ => None,
        }
    }
}
