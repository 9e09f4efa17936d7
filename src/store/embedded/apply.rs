//! One transaction against the tables of an open write transaction.

use super::tables::Tables;
use crate::store::{
    Compare, Event, KeyValue, LeaseId, Operation, OperationResult, Revision, Txn, TxnOutcome,
};

/// What a transaction did, or the lease that was missing (and then it did nothing).
pub enum Applied {
    Done {
        outcome: TxnOutcome,
        events: Vec<Event>,
    },
    NoLease(LeaseId),
}

/// Applies `txn` as revision `newest + 1`, or as no revision when it changes nothing.
pub fn apply(
    tables: &mut Tables<'_>,
    newest: Revision,
    txn: &Txn,
) -> Result<Applied, redb::StorageError> {
    let mut succeeded = true;
    for compare in &txn.compares {
        succeeded = succeeded && holds(tables, compare)?;
    }
    let branch = if succeeded { &txn.then } else { &txn.otherwise };
    if let Some(lease) = missing_lease(tables, branch)? {
        return Ok(Applied::NoLease(lease));
    }
    let mut change = Change {
        tables,
        revision: newest + 1,
        events: Vec::new(),
    };
    let results = branch
        .iter()
        .map(|operation| change.run(operation))
        .collect::<Result<_, _>>()?;
    let events = change.events;
    let revision = if events.is_empty() {
        newest
    } else {
        newest + 1
    };
    Ok(Applied::Done {
        outcome: TxnOutcome {
            succeeded,
            revision,
            results,
        },
        events,
    })
}

/// Ends a lease: its keys go in one revision.
pub fn end_lease(
    tables: &mut Tables<'_>,
    newest: Revision,
    lease: LeaseId,
) -> Result<Vec<Event>, redb::StorageError> {
    let keys = tables.end_lease(lease)?;
    let mut change = Change {
        tables,
        revision: newest + 1,
        events: Vec::new(),
    };
    for key in keys {
        change.delete(&key)?;
    }
    Ok(change.events)
}

fn holds(tables: &Tables<'_>, compare: &Compare) -> Result<bool, redb::StorageError> {
    Ok(match compare {
        Compare::Modified(key, ordering, revision) => {
            let modified = tables.get(key)?.map_or(0, |entry| entry.modified);
            modified.cmp(revision) == *ordering
        }
        Compare::Exists(key, exists) => tables.get(key)?.is_some() == *exists,
        Compare::Value(key, value) => tables.get(key)?.is_some_and(|entry| entry.value == value),
    })
}

fn missing_lease(
    tables: &Tables<'_>,
    branch: &[Operation],
) -> Result<Option<LeaseId>, redb::StorageError> {
    for operation in branch {
        if let Operation::Put {
            lease: Some(lease), ..
        } = operation
            && !tables.has_lease(*lease)?
        {
            return Ok(Some(*lease));
        }
    }
    Ok(None)
}

struct Change<'a, 'txn> {
    tables: &'a mut Tables<'txn>,
    revision: Revision,
    events: Vec<Event>,
}

impl Change<'_, '_> {
    fn run(&mut self, operation: &Operation) -> Result<OperationResult, redb::StorageError> {
        Ok(match operation {
            Operation::Put { key, value, lease } => {
                let before = self.tables.get(key)?;
                let now = KeyValue {
                    key: key.clone(),
                    value: value.clone(),
                    created: before
                        .as_ref()
                        .map_or(self.revision, |before| before.created),
                    modified: self.revision,
                    lease: *lease,
                };
                self.tables.put(&now, before.as_ref())?;
                self.events.push(Event {
                    key: key.clone(),
                    now: Some(now),
                    before,
                });
                OperationResult::Put
            }
            Operation::Delete(key) => OperationResult::Deleted(u64::from(self.delete(key)?)),
            Operation::DeleteRange(range) => {
                let mut deleted = 0;
                for key in self.tables.keys_in(range)? {
                    deleted += u64::from(self.delete(&key)?);
                }
                OperationResult::Deleted(deleted)
            }
            Operation::Get(key) => OperationResult::Got(self.tables.get(key)?),
        })
    }

    fn delete(&mut self, key: &[u8]) -> Result<bool, redb::StorageError> {
        let Some(before) = self.tables.get(key)? else {
            return Ok(false);
        };
        self.tables.delete(&before)?;
        self.events.push(Event {
            key: before.key.clone(),
            now: None,
            before: Some(before),
        });
        Ok(true)
    }
}
