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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::NewTask;
    use crate::store::Store;
    use crate::store::embedded::{Embedded, Options};
    use crate::work::{Query, WorkError};

    fn task(key: &str) -> NewTask {
        let text = format!("{{\"service\": \"cart\", \"key\": \"{key}\"}}");
        serde_json::from_str(&text).expect("a task")
    }

    #[tokio::test]
    async fn what_has_been_over_for_long_is_forgotten_with_its_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options::new(folder.path().join("store.redb"));
        let store: Arc<dyn Store> = Arc::new(Embedded::open(&options).expect("a store"));
        let work = Work::open(Arc::clone(&store)).await.expect("opened");
        let mut ids = Vec::new();
        for number in 0..100 {
            let submitted = work.submit(task(&number.to_string())).await;
            ids.push(submitted.expect("accepted").id);
        }
        for id in &ids[..99] {
            work.cancel(id).await.expect("cancelled");
        }
        work.forget().await;
        assert!(work.get(&ids[0]).await.is_ok(), "it is kept for a day");
        // As if that day were over for all but the first.
        for id in &ids[1..99] {
            let past = Operation::put(keys::end(1, id), "");
            store.txn(Txn::of(vec![past])).await.expect("written");
        }
        work.forget().await;
        for id in &ids[1..99] {
            let unknown = WorkError::Unknown(id.clone());
            assert_eq!(work.get(id).await, Err(unknown));
        }
        let left = work.list(&Query::default()).await.expect("listed");
        let left: Vec<bool> = left
            .tasks
            .iter()
            .map(|task| ids.contains(&task.id))
            .collect();
        assert_eq!(left, [true, true]);
        // A key that is forgotten is free.
        assert!(!work.submit(task("7")).await.expect("accepted").existed);
        assert!(work.submit(task("99")).await.expect("accepted").existed);
    }
}
