//! The transactions of a task's life. Each holds only while the task is as due as whoever writes believes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::queue::Id;
use super::record::{self, Millis, Record};
use super::{Work, entry_of, keys};
use crate::api::TaskState;
use crate::store::{Compare, Key, Operation, Range, StoreError, Txn};

/// Those that are over are kept for so long, and the dead for so long.
const KEPT: Duration = Duration::from_secs(24 * 3_600);
const DEAD_KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);

impl Work {
    /// Another attempt after so long, which is written.
    pub(super) async fn again(
        &self,
        id: &Id,
        mut record: Record,
        wait: Duration,
    ) -> Result<(), StoreError> {
        let before = keys::due(record.due, id);
        record.due = record::now() + wait.as_millis() as Millis;
        let mut operations = schedule(id, &record);
        if before != keys::due(record.due, id) {
            operations.push(Operation::Delete(before.clone()));
        }
        let outcome = self.while_due(before, operations).await?;
        if outcome {
            let mut held = self.held();
            held.queue
                .schedule(Arc::clone(id), entry_of(&record), record.due);
        }
        Ok(())
    }

    /// Writes how it ended; false where it has ended otherwise before.
    pub(super) async fn end(
        &self,
        id: &str,
        mut record: Record,
        state: TaskState,
    ) -> Result<bool, StoreError> {
        let due = keys::due(record.due, id);
        record.state = state;
        record.finished = Some(record::now());
        let operations = vec![
            Operation::Delete(due.clone()),
            Operation::put(keys::task(id), record.to_bytes()),
            Operation::put(keys::end(kept_until(&record), id), ""),
        ];
        let ended = self.while_due(due, operations).await?;
        if ended {
            self.counts.ended[state as usize].fetch_add(1, Ordering::Relaxed);
            self.leave(id);
        }
        Ok(ended)
    }

    /// Does this unless another has ended the task, or scheduled it anew.
    async fn while_due(&self, due: Key, then: Vec<Operation>) -> Result<bool, StoreError> {
        let txn = Txn {
            compares: vec![Compare::Exists(due, true)],
            ..Txn::of(then)
        };
        Ok(self.store.txn(txn).await?.succeeded)
    }

    /// Removes what has been over for long enough.
    pub(super) async fn forget(&self) {
        let range = Range {
            keys: keys::ended_before(record::now()),
            limit: 40,
            at: None,
        };
        loop {
            let Ok(page) = self.store.range(range.clone()).await else {
                return;
            };
            let mut operations = Vec::new();
            for found in &page.entries {
                let Some((_, id)) = keys::time_and_id(&found.key) else {
                    continue;
                };
                operations.push(Operation::Delete(found.key.clone()));
                operations.push(Operation::Delete(keys::task(id)));
                if let Ok((record, _)) = self.read(id).await {
                    operations.extend(key_of(&record).map(Operation::Delete));
                }
            }
            if operations.is_empty() || self.store.txn(Txn::of(operations)).await.is_err() {
                return;
            }
        }
    }
}

/// The writes that make a task due.
pub(super) fn schedule(id: &str, record: &Record) -> Vec<Operation> {
    let task = &record.task;
    let deadline = task.deadline.as_deref().unwrap_or_default();
    let entry = serde_json::json!([
        task.namespace,
        task.service,
        task.class,
        task.tenant,
        deadline
    ]);
    vec![
        Operation::put(keys::task(id), record.to_bytes()),
        Operation::put(keys::due(record.due, id), entry.to_string()),
    ]
}

pub(super) fn key_of(record: &Record) -> Option<Key> {
    let task = &record.task;
    let key = task.key.as_ref()?;
    Some(keys::key(&task.namespace, &task.service, key))
}

pub(super) fn kept_until(record: &Record) -> Millis {
    let kept = match record.state {
        TaskState::Dead => DEAD_KEPT,
        _ => KEPT,
    };
    record.finished.unwrap_or(0) + kept.as_millis() as Millis
}
