//! What a transaction may be at most: etcd's limits, for every engine.

use std::collections::BTreeSet;

use super::{Key, KeyRange, Operation, StoreError, Txn};

/// Operations of one branch, and compares, of a transaction.
pub const OPERATIONS_MAX: usize = 128;
/// Keys and values of a transaction together.
pub const TXN_BYTES_MAX: usize = 1 << 20;
/// Larger values are cut into several keys by the caller.
pub const VALUE_BYTES_MAX: usize = 256 << 10;
pub const KEY_BYTES_MAX: usize = 1 << 10;
/// Keys of one answer to a range.
pub const PAGE_KEYS_MAX: usize = 1_000;
/// A page ends behind the entry that reaches this.
pub const PAGE_BYTES_MAX: usize = 1 << 20;

/// What a key costs beside its bytes, so that many tiny ones count too.
const KEY_OVERHEAD: usize = 16;

pub fn check(txn: &Txn) -> Result<(), StoreError> {
    let longest = txn
        .compares
        .len()
        .max(txn.then.len())
        .max(txn.otherwise.len());
    if longest > OPERATIONS_MAX {
        return limit(format!(
            "{longest} operations in a transaction; at most {OPERATIONS_MAX} go together"
        ));
    }
    let mut bytes = 0;
    for compare in &txn.compares {
        bytes += check_compare(compare)?;
    }
    for branch in [&txn.then, &txn.otherwise] {
        for operation in branch {
            bytes += check_operation(operation)?;
        }
        check_overlap(branch)?;
    }
    if bytes > TXN_BYTES_MAX {
        return limit(format!(
            "a transaction of {bytes} bytes; at most {TXN_BYTES_MAX} go together"
        ));
    }
    Ok(())
}

fn check_compare(compare: &super::Compare) -> Result<usize, StoreError> {
    match compare {
        super::Compare::Modified(key, ..) | super::Compare::Exists(key, _) => check_key(key),
        super::Compare::Value(key, value) => Ok(check_key(key)? + value.len()),
    }
}

fn check_operation(operation: &Operation) -> Result<usize, StoreError> {
    match operation {
        Operation::Put { key, value, .. } => {
            if value.len() > VALUE_BYTES_MAX {
                return limit(format!(
                    "a value of {} bytes; at most {VALUE_BYTES_MAX} fit",
                    value.len()
                ));
            }
            Ok(check_key(key)? + value.len())
        }
        Operation::Delete(key) | Operation::Get(key) => check_key(key),
        Operation::DeleteRange(range) => {
            Ok(range.start.len() + range.end.as_ref().map_or(0, |end| end.len()) + KEY_OVERHEAD)
        }
    }
}

fn check_key(key: &Key) -> Result<usize, StoreError> {
    match key.len() {
        0 => limit("a key must not be empty".to_owned()),
        length if length > KEY_BYTES_MAX => limit(format!(
            "a key of {length} bytes; at most {KEY_BYTES_MAX} fit"
        )),
        length => Ok(length + KEY_OVERHEAD),
    }
}

/// One key is written once, and not inside of a range that is deleted: etcd refuses it, since the order would matter.
fn check_overlap(branch: &[Operation]) -> Result<(), StoreError> {
    let mut written = BTreeSet::new();
    let mut deleted: Vec<&KeyRange> = Vec::new();
    for operation in branch {
        match operation {
            Operation::Put { key, .. } | Operation::Delete(key) => {
                if !written.insert(key) {
                    return limit("a key is written twice in one transaction".to_owned());
                }
            }
            Operation::DeleteRange(range) => deleted.push(range),
            Operation::Get(_) => {}
        }
    }
    let hit = deleted
        .iter()
        .any(|range| written.iter().any(|key| range.contains(key)));
    if hit {
        return limit(
            "a key is written inside of a range deleted by the same transaction".to_owned(),
        );
    }
    Ok(())
}

fn limit<T>(message: String) -> Result<T, StoreError> {
    Err(StoreError::Limit(message))
}
