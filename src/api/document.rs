use std::fmt;

use serde::{Deserialize, Serialize};

/// What names a mesh document: one of a kind, namespace and name exists at a time.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct DocumentKey {
    /// As `config` identifies it; Kubernetes' own `Service` is `v1.Service`, to be told from ours.
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for DocumentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// A mesh document as it was applied.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Document {
    #[serde(flatten)]
    pub key: DocumentKey,
    /// The revision of its last change.
    pub revision: u64,
    /// The revision in which it first appeared; its age where routes tie.
    pub created: u64,
    /// When it was last changed, RFC 3339.
    pub time: String,
    pub author: String,
    /// The YAML, byte for byte; secrets are blanked out everywhere but in the watch.
    pub text: String,
}

/// `GET /v1/documents`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Documents {
    /// Of the last change of any document.
    pub revision: u64,
    pub documents: Vec<Document>,
}

/// What apply, delete and rollback answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Applied {
    /// The new revision; unchanged when nothing changed or in a dry run.
    pub revision: u64,
    #[serde(default)]
    pub dry_run: bool,
    pub changes: Vec<Change>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<super::Problem>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Change {
    pub action: Action,
    #[serde(flatten)]
    pub key: DocumentKey,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Created,
    Updated,
    Deleted,
    Unchanged,
}

impl Action {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
            Self::Unchanged => "unchanged",
        }
    }
}

/// `GET /v1/history`, newest first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct History {
    pub revisions: Vec<HistoryEntry>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HistoryEntry {
    pub revision: u64,
    pub time: String,
    pub author: String,
    /// Why, where it is more than an apply: `rollback to 12`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub changes: Vec<Change>,
}

/// `GET /v1/diff`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Diff {
    pub from: u64,
    pub to: u64,
    /// Unified, one section per changed document; empty when they are the same.
    pub diff: String,
}
