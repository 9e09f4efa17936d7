//! Changing documents: what a request asks for, judged, then written in one transaction with the record of what it replaced.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::info;

use super::history::{Record, Replaced};
use super::{missing, problems, redact};
use crate::api::{Action, Applied, Change, Document, DocumentKey, Problem};
use crate::config::{self, Source};
use crate::registry::view::StoredDocument;
use crate::registry::{Refusal, Registry, keys};
use crate::store::{Compare, Operation, Revision, Txn, VALUE_BYTES_MAX};

/// What problems call the documents of a request.
const REQUEST: &str = "request";
/// Someone else's change may come between reading and writing this often.
const TRIES: usize = 5;

/// Who changes, and under which condition.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changing {
    pub author: String,
    /// Refuse when a document of the request was changed after this revision.
    pub unchanged_since: Option<Revision>,
    pub dry_run: bool,
}

/// The head of all documents in the store; whoever changes any compares and rewrites it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Head {
    /// Of the next record.
    pub sequence: u64,
}

/// A change worked out against one state of the documents.
struct Plan {
    /// None deletes.
    wanted: BTreeMap<DocumentKey, Option<String>>,
    changes: Vec<Change>,
    replaced: Vec<Replaced>,
    warnings: Vec<Problem>,
}

type Current = BTreeMap<DocumentKey, Arc<Document>>;

impl Registry {
    /// Applies every document of a YAML text, or none.
    pub async fn apply(&self, text: &str, changing: &Changing) -> Result<Applied, Refusal> {
        let wanted = self.read_request(text)?;
        let judged = [Source::text(REQUEST, text)];
        self.change(wanted, &judged, None, changing).await
    }

    pub async fn delete(&self, key: &DocumentKey, changing: &Changing) -> Result<Applied, Refusal> {
        if !self.view.state().documents.contains_key(key) {
            return Err(missing(key));
        }
        self.change([(key.clone(), None)].into(), &[], None, changing)
            .await
    }

    /// Makes the documents what they were at `revision`: a new revision with the old texts.
    pub async fn rollback(
        &self,
        revision: Revision,
        changing: &Changing,
    ) -> Result<Applied, Refusal> {
        let (_, then) = self.documents_at(Some(revision)).await?;
        let now = self.view.state().documents.clone();
        let mut wanted: BTreeMap<DocumentKey, Option<String>> = now
            .keys()
            .filter(|key| !then.contains_key(key))
            .map(|key| (key.clone(), None))
            .collect();
        for (key, document) in &then {
            if now
                .get(key)
                .is_none_or(|current| current.text != document.text)
            {
                wanted.insert(key.clone(), Some(document.text.clone()));
            }
        }
        if wanted.len() > self.limits.documents_per_request_max {
            return Err(self
                .too_many(wanted.len())
                .hint("roll back in smaller steps, or apply the old documents in parts"));
        }
        let texts = wanted
            .values()
            .flatten()
            .map(|text| Source::text(REQUEST, text.as_str()));
        let judged: Vec<Source> = texts.collect();
        self.change(
            wanted,
            &judged,
            Some(format!("rollback to {revision}")),
            changing,
        )
        .await
    }

    fn read_request(&self, text: &str) -> Result<BTreeMap<DocumentKey, Option<String>>, Refusal> {
        if text.contains(redact::BLANK) {
            return Err(Refusal::invalid(format!("the text contains {}", redact::BLANK))
                .hint("it was read from the registry with its secrets blanked out; put them back first"));
        }
        let documents = config::document_identities(REQUEST, text)
            .map_err(|problems| Refusal::problems(problems::wire(problems)))?;
        if documents.is_empty() {
            return Err(Refusal::invalid("there is no document in the request")
                .hint("send YAML with a kind and a name, several divided by ---"));
        }
        if documents.len() > self.limits.documents_per_request_max {
            return Err(self.too_many(documents.len()));
        }
        let mut wanted = BTreeMap::new();
        for document in documents {
            let size = document.text.len();
            let key = DocumentKey {
                kind: document.kind.to_owned(),
                namespace: document.namespace,
                name: document.name,
            };
            if size > self.limits.document_bytes_max {
                let most = self.limits.document_bytes_max;
                return Err(Refusal::too_large(format!(
                    "{key} has {size} bytes; at most {most} are taken"
                )));
            }
            // A name that is there twice is for the rules to tell, with both places.
            wanted.insert(key, Some(document.text));
        }
        Ok(wanted)
    }

    fn too_many(&self, count: usize) -> Refusal {
        let most = self.limits.documents_per_request_max;
        Refusal::too_large(format!(
            "{count} documents in one request; at most {most} go together"
        ))
        .hint("send them in several requests: services first, then what refers to them")
    }

    async fn change(
        &self,
        wanted: BTreeMap<DocumentKey, Option<String>>,
        judged: &[Source],
        reason: Option<String>,
        changing: &Changing,
    ) -> Result<Applied, Refusal> {
        let _changing = self.documents.changing.lock().await;
        for _ in 0..TRIES {
            let (current, revision) = {
                let view = self.view.state();
                (view.documents.clone(), view.documents_revision)
            };
            let plan = self.plan(wanted.clone(), &current, judged, changing)?;
            let changed = plan
                .changes
                .iter()
                .any(|change| change.action != Action::Unchanged);
            let applied = |revision, plan: Plan| Applied {
                revision,
                dry_run: changing.dry_run,
                changes: plan.changes,
                warnings: plan.warnings,
            };
            if changing.dry_run || !changed {
                return Ok(applied(revision, plan));
            }
            if let Some(written) = self
                .write(&plan, revision, reason.clone(), changing)
                .await?
            {
                self.shown(written).await?;
                info!(
                    revision = written,
                    author = changing.author,
                    documents = plan.replaced.len(),
                    "Documents changed"
                );
                return Ok(applied(written, plan));
            }
            // Another replica was quicker; its change will show in a moment.
            let newest = self.store.revision().await?;
            self.shown(newest).await?;
        }
        Err(
            Refusal::conflict("the documents change faster than this change can be checked")
                .hint("try again"),
        )
    }

    /// What would change, or why it may not.
    fn plan(
        &self,
        wanted: BTreeMap<DocumentKey, Option<String>>,
        current: &Current,
        judged: &[Source],
        changing: &Changing,
    ) -> Result<Plan, Refusal> {
        check_unchanged(&wanted, current, changing.unchanged_since)?;
        let changes: Vec<Change> = wanted
            .iter()
            .map(|(key, text)| Change {
                action: action(current.get(key), text.as_deref()),
                key: key.clone(),
            })
            .collect();
        let created = changes
            .iter()
            .filter(|change| change.action == Action::Created)
            .count();
        if current.len() + created > self.limits.documents_max {
            return Err(Refusal::limit(format!(
                "there are {} documents, the most this registry takes",
                current.len()
            )));
        }
        let stays = |key: &DocumentKey| wanted.get(key).is_none_or(Option::is_some);
        let kept = current
            .values()
            .filter(|document| stays(&document.key))
            .map(|document| problems::source(document));
        let sources: Vec<Source> = kept.chain(judged.iter().cloned()).collect();
        let warnings = match self.judge(&sources) {
            Ok(warnings) => warnings,
            Err(found) => self.tolerate(found, current)?,
        };
        let replaced = changes
            .iter()
            .filter(|change| change.action != Action::Unchanged)
            .map(|change| Replaced {
                change: change.clone(),
                before: current
                    .get(&change.key)
                    .map(|document| (**document).clone()),
            })
            .collect();
        Ok(Plan {
            wanted,
            changes,
            replaced,
            warnings,
        })
    }

    /// What was wrong before the change (written by an older version, say) does not stand against it; anything new does.
    fn tolerate(&self, found: Vec<Problem>, current: &Current) -> Result<Vec<Problem>, Refusal> {
        let sources: Vec<Source> = current
            .values()
            .map(|document| problems::source(document))
            .collect();
        let before = self.judge(&sources).err().unwrap_or_default();
        let is_new = |problem: &Problem| {
            problem.severity == crate::api::Severity::Error && !before.contains(problem)
        };
        if found.iter().any(is_new) {
            let new = found
                .into_iter()
                .filter(|problem| !before.contains(problem))
                .collect();
            return Err(Refusal::problems(new));
        }
        Ok(found)
    }

    /// None: someone else has changed documents since `revision`.
    async fn write(
        &self,
        plan: &Plan,
        revision: Revision,
        reason: Option<String>,
        changing: &Changing,
    ) -> Result<Option<Revision>, Refusal> {
        let head = self.documents_head().await?;
        let time = jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string();
        let mut operations = Vec::new();
        for replaced in &plan.replaced {
            let key = keys::document(&replaced.change.key);
            operations.push(
                match plan
                    .wanted
                    .get(&replaced.change.key)
                    .and_then(Option::as_ref)
                {
                    None => Operation::Delete(key),
                    Some(text) => {
                        let stored = StoredDocument {
                            text: text.clone(),
                            author: changing.author.clone(),
                            time: time.clone(),
                        };
                        Operation::put(key, serde_json::to_vec(&stored).unwrap_or_default())
                    }
                },
            );
        }
        let record = Record {
            author: changing.author.clone(),
            time,
            reason,
            replaced: plan.replaced.clone(),
        };
        operations.extend(record_operations(head.sequence, &record));
        let oldest = (head.sequence + 1).saturating_sub(self.limits.history_max);
        if oldest > 0 {
            operations.push(Operation::DeleteRange(keys::history_range(0, oldest)));
        }
        let next = Head {
            sequence: head.sequence + 1,
        };
        operations.push(Operation::put(
            keys::DOCUMENTS_HEAD,
            serde_json::to_vec(&next).unwrap_or_default(),
        ));
        let txn = Txn {
            compares: vec![Compare::Modified(
                keys::DOCUMENTS_HEAD.into(),
                Ordering::Equal,
                revision,
            )],
            then: operations,
            otherwise: Vec::new(),
        };
        let outcome = self.store.txn(txn).await?;
        Ok(outcome.succeeded.then_some(outcome.revision))
    }
}

/// The record in parts that fit a value.
fn record_operations(sequence: u64, record: &Record) -> Vec<Operation> {
    let bytes = serde_json::to_vec(record).unwrap_or_default();
    let parts = bytes.chunks(VALUE_BYTES_MAX).enumerate();
    parts
        .map(|(part, bytes)| Operation::put(keys::history(sequence, part), bytes.to_vec()))
        .collect()
}

fn action(current: Option<&Arc<Document>>, text: Option<&str>) -> Action {
    match (current, text) {
        (None, Some(_)) => Action::Created,
        (Some(current), Some(text)) if current.text == text => Action::Unchanged,
        (Some(_), Some(_)) => Action::Updated,
        (Some(_), None) => Action::Deleted,
        (None, None) => Action::Unchanged,
    }
}

fn check_unchanged(
    wanted: &BTreeMap<DocumentKey, Option<String>>,
    current: &Current,
    since: Option<Revision>,
) -> Result<(), Refusal> {
    let Some(since) = since else { return Ok(()) };
    let newer: Vec<String> = wanted
        .keys()
        .filter_map(|key| current.get(key))
        .filter(|document| document.revision > since)
        .map(|document| {
            format!(
                "{} at revision {} by {}",
                document.key, document.revision, document.author
            )
        })
        .collect();
    match newer.is_empty() {
        true => Ok(()),
        false => Err(Refusal::conflict(format!(
            "changed since revision {since}: {}",
            newer.join(", ")
        ))
        .hint("read it again, make your change on top, and send the new revision")),
    }
}
