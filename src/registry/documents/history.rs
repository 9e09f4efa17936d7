//! What was: the record of each change, the documents at an older revision, differences.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::apply::Head;
use super::redact;
use crate::api::{Change, Diff, Document, DocumentKey, History, HistoryEntry};
use crate::registry::{Refusal, Registry, keys};
use crate::store::{KeyRange, Range, Revision};

/// A change of documents as it is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    pub author: String,
    pub time: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub replaced: Vec<Replaced>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Replaced {
    #[serde(flatten)]
    pub change: Change,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Document>,
}

/// Which changes a history shows; the newest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HistoryQuery {
    pub kind: Option<String>,
    pub namespace: Option<String>,
    pub name: Option<String>,
    /// None shows all that is kept.
    pub limit: Option<usize>,
}

type Set = BTreeMap<DocumentKey, Arc<Document>>;

impl Registry {
    pub async fn history(&self, query: &HistoryQuery) -> Result<History, Refusal> {
        let fits =
            |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
        let wanted = |key: &DocumentKey| {
            fits(&query.kind, &key.kind)
                && fits(&query.namespace, &key.namespace)
                && fits(&query.name, &key.name)
        };
        let mut revisions = Vec::new();
        let mut sequence = self.documents_head().await?.sequence;
        while let Some((revision, record)) = self.record_before(&mut sequence).await? {
            let changes = record.replaced.into_iter().map(|replaced| replaced.change);
            let changes: Vec<Change> = changes.filter(|change| wanted(&change.key)).collect();
            if !changes.is_empty() {
                let Record {
                    author,
                    time,
                    reason,
                    ..
                } = record;
                revisions.push(HistoryEntry {
                    revision,
                    time,
                    author,
                    reason,
                    changes,
                });
            }
            if query.limit.is_some_and(|limit| revisions.len() >= limit) {
                break;
            }
        }
        Ok(History { revisions })
    }

    /// The documents at a revision, and the revision of their last change up to it.
    pub(super) async fn documents_at(
        &self,
        revision: Option<Revision>,
    ) -> Result<(Revision, Set), Refusal> {
        let (newest, mut documents) = {
            let view = self.view.state();
            (view.documents_revision, view.documents.clone())
        };
        let Some(asked) = revision.filter(|asked| *asked < newest) else {
            return match revision.filter(|asked| *asked > self.revision()) {
                Some(asked) => Err(Refusal::invalid(format!(
                    "revision {asked} is in the future; the newest is {}",
                    self.revision()
                ))),
                None => Ok((newest, documents)),
            };
        };
        let mut sequence = self.documents_head().await?.sequence;
        let mut oldest = newest;
        while let Some((revision, record)) = self.record_before(&mut sequence).await? {
            if revision <= asked {
                return Ok((revision, documents));
            }
            oldest = revision;
            // A change that came after the documents were copied is not in them.
            let undone = record.replaced.into_iter().filter(|_| revision <= newest);
            undone.for_each(|replaced| undo(&mut documents, replaced));
        }
        // The state just before the oldest record is the oldest that can be shown.
        match sequence == 0 || asked + 1 >= oldest {
            true => Ok((0, documents)),
            false => Err(self.gone(asked, oldest)),
        }
    }

    fn gone(&self, asked: Revision, oldest: Revision) -> Refusal {
        let message = format!(
            "revision {asked} is no longer kept; the oldest is {}",
            oldest - 1
        );
        let hint = format!(
            "the last {} changes are kept; GET /v1/history lists them",
            self.limits.history_max
        );
        Refusal::new(http::StatusCode::GONE, "revision_gone", message).hint(hint)
    }

    pub async fn diff(&self, from: Revision, to: Option<Revision>) -> Result<Diff, Refusal> {
        let (_, before) = self.documents_at(Some(from)).await?;
        let (newest, after) = self.documents_at(to).await?;
        let to = to.unwrap_or(newest);
        let keys: std::collections::BTreeSet<&DocumentKey> =
            before.keys().chain(after.keys()).collect();
        let mut diff = String::new();
        for key in keys {
            diff.push_str(&unified(key, from, to, before.get(key), after.get(key)));
        }
        Ok(Diff { from, to, diff })
    }

    pub(super) async fn documents_head(&self) -> Result<Head, Refusal> {
        let page = self
            .store
            .range(Range::of(KeyRange::key(keys::DOCUMENTS_HEAD)))
            .await?;
        let head = page
            .entries
            .first()
            .map(|entry| serde_json::from_slice(&entry.value));
        head.transpose()
            .map(Option::unwrap_or_default)
            .map_err(|error| unreadable(&error))
    }

    /// The record before `sequence`, which then is that record's; None when no older one is kept.
    async fn record_before(
        &self,
        sequence: &mut u64,
    ) -> Result<Option<(Revision, Record)>, Refusal> {
        let Some(before) = sequence.checked_sub(1) else {
            return Ok(None);
        };
        let mut range = Range::of(keys::history_range(before, *sequence));
        let mut bytes = Vec::new();
        let mut revision = None;
        loop {
            let page = self.store.range(range.clone()).await?;
            for entry in &page.entries {
                revision = Some(entry.modified);
                bytes.extend_from_slice(&entry.value);
            }
            match page.entries.last().filter(|_| page.more) {
                Some(last) => range.keys.start = [&last.key[..], &[0]].concat().into(),
                None => break,
            }
        }
        let Some(revision) = revision else {
            return Ok(None);
        };
        *sequence = before;
        let record = serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))?;
        Ok(Some((revision, record)))
    }
}

fn undo(documents: &mut Set, replaced: Replaced) {
    match replaced.before {
        Some(before) => documents.insert(before.key.clone(), Arc::new(before)),
        None => documents.remove(&replaced.change.key),
    };
}

fn unreadable(error: &serde_json::Error) -> Refusal {
    Refusal::new(
        http::StatusCode::INTERNAL_SERVER_ERROR,
        "unreadable",
        format!("the stored history cannot be read: {error}"),
    )
    .hint("it may have been written by a newer version")
}

/// One document's difference; empty when there is none.
fn unified(
    key: &DocumentKey,
    from: Revision,
    to: Revision,
    before: Option<&Arc<Document>>,
    after: Option<&Arc<Document>>,
) -> String {
    let text = |document: Option<&Arc<Document>>| {
        document
            .map_or("", |document| document.text.as_str())
            .to_owned()
    };
    let (before_text, after_text) = (text(before), text(after));
    if before_text == after_text {
        return String::new();
    }
    let (shown_before, shown_after) = (redact::redact(&before_text), redact::redact(&after_text));
    if shown_before == shown_after {
        return format!(
            "--- {key} (revision {from})\n+++ {key} (revision {to})\nonly secrets differ\n"
        );
    }
    let head = |document: Option<&Arc<Document>>, revision| match document {
        Some(_) => format!("{key} (revision {revision})"),
        None => "/dev/null".to_owned(),
    };
    similar::TextDiff::from_lines(&*shown_before, &*shown_after)
        .unified_diff()
        .header(&head(before, from), &head(after, to))
        .to_string()
}
