//! Mesh documents by revision: apply, read, history, diff, roll back, delete.
//!
//! A request is one transaction that compares the head of all documents, so two changes never mix; nothing is written unless the
//! whole mesh as it would be then passes the same checks as `pillion check`. Beside each change is kept what it replaced, and
//! that is how older revisions are shown and brought back.

mod apply;
mod history;
pub(super) mod problems;
pub mod redact;

use std::sync::{Mutex, MutexGuard};

use crate::api::{Document, DocumentKey, Documents as DocumentList};
use crate::config::Loader;
use crate::store::Revision;

use super::{Refusal, Registry};
pub use apply::Changing;
pub use history::HistoryQuery;

#[derive(Default)]
pub struct Documents {
    /// Changes of documents go one after the other.
    changing: tokio::sync::Mutex<()>,
    /// Remembers what it has read, so that a change costs about what changed.
    loader: Mutex<Loader>,
}

impl Documents {
    /// A panic in the reader would leave it as it was: it only remembers.
    fn loader(&self) -> MutexGuard<'_, Loader> {
        let locked = self.loader.lock();
        locked.unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Which documents a list shows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DocumentQuery {
    pub kind: Option<String>,
    pub namespace: Option<String>,
    /// As they were at this revision; None is now.
    pub revision: Option<Revision>,
}

impl Registry {
    /// Of the last change of any document.
    pub fn documents_revision(&self) -> Revision {
        self.view.state().documents_revision
    }

    /// The documents asked for, secrets blanked out.
    pub async fn documents(&self, query: &DocumentQuery) -> Result<DocumentList, Refusal> {
        let (revision, documents) = self.documents_at(query.revision).await?;
        let fits =
            |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
        let shown = documents
            .into_values()
            .filter(|document| {
                fits(&query.kind, &document.key.kind)
                    && fits(&query.namespace, &document.key.namespace)
            })
            .map(|document| shown(&document))
            .collect();
        Ok(DocumentList {
            revision,
            documents: shown,
        })
    }

    pub async fn document(
        &self,
        key: &DocumentKey,
        revision: Option<Revision>,
    ) -> Result<Document, Refusal> {
        let current = self.view.state().documents.get(key).cloned();
        let found = match revision {
            None => current,
            Some(_) => self.documents_at(revision).await?.1.remove(key),
        };
        found
            .map(|document| shown(&document))
            .ok_or_else(|| missing(key))
    }
}

fn shown(document: &Document) -> Document {
    Document {
        text: redact::redact(&document.text).into_owned(),
        ..document.clone()
    }
}

fn missing(key: &DocumentKey) -> Refusal {
    Refusal::not_found(key).hint("GET /v1/documents lists those there are")
}
