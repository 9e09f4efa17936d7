use std::cmp::Ordering;

use bytes::Bytes;

/// Counts the transactions that changed something, from 1; 0 is before the first.
pub type Revision = u64;

pub type Key = Bytes;

pub type LeaseId = u64;

/// Keys from `start` to just before `end`; None has no end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyRange {
    pub start: Key,
    pub end: Option<Key>,
}

impl KeyRange {
    pub fn all() -> Self {
        Self {
            start: Key::new(),
            end: None,
        }
    }

    pub fn key(key: impl Into<Key>) -> Self {
        let start = key.into();
        let end = [&start[..], &[0]].concat().into();
        Self {
            start,
            end: Some(end),
        }
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: impl Into<Key>) -> Self {
        let start = prefix.into();
        let mut end = start.to_vec();
        while end.pop_if(|last| *last == 0xff).is_some() {}
        let end = match end.last_mut() {
            Some(last) => {
                *last += 1;
                Some(end.into())
            }
            None => None,
        };
        Self { start, end }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.end.as_ref().is_none_or(|end| key < &end[..])
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyValue {
    pub key: Key,
    pub value: Bytes,
    /// The revision since which the key exists.
    pub created: Revision,
    /// The revision of its last put.
    pub modified: Revision,
    pub lease: Option<LeaseId>,
}

/// If all of `compares` hold then `then`, else `otherwise`. One key is written at most once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Txn {
    pub compares: Vec<Compare>,
    pub then: Vec<Operation>,
    pub otherwise: Vec<Operation>,
}

impl Txn {
    /// Unconditional.
    pub fn of(then: Vec<Operation>) -> Self {
        Self {
            then,
            ..Self::default()
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Compare {
    /// The key's modified revision is Less than, Equal to or Greater than this; an absent key counts as 0.
    Modified(Key, Ordering, Revision),
    Exists(Key, bool),
    /// The key exists with exactly this value.
    Value(Key, Bytes),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    Put {
        key: Key,
        value: Bytes,
        lease: Option<LeaseId>,
    },
    Delete(Key),
    DeleteRange(KeyRange),
    /// Sees what the operations before it did.
    Get(Key),
}

impl Operation {
    pub fn put(key: impl Into<Key>, value: impl Into<Bytes>) -> Self {
        Self::Put {
            key: key.into(),
            value: value.into(),
            lease: None,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TxnOutcome {
    /// Whether `then` was taken.
    pub succeeded: bool,
    /// Of this transaction, or the newest where it changed nothing.
    pub revision: Revision,
    /// One for each operation of the branch taken.
    pub results: Vec<OperationResult>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OperationResult {
    Put,
    /// How many keys there were.
    Deleted(u64),
    Got(Option<KeyValue>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Range {
    pub keys: KeyRange,
    pub limit: usize,
    /// None is the newest. Older ones are kept as far back as watches reach.
    pub at: Option<Revision>,
}

impl Range {
    pub fn of(keys: KeyRange) -> Self {
        Self {
            keys,
            limit: super::PAGE_KEYS_MAX,
            at: None,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    pub entries: Vec<KeyValue>,
    /// There is more behind the last entry.
    pub more: bool,
    /// What it was read at; ask for the next page at the same one.
    pub revision: Revision,
}

/// Everything one transaction did, as far as the watcher asked for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventGroup {
    pub revision: Revision,
    pub events: Vec<Event>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    pub key: Key,
    /// None: deleted.
    pub now: Option<KeyValue>,
    pub before: Option<KeyValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_its_keys_and_nothing_else() {
        let range = KeyRange::prefix("svc/a/");
        assert!(range.contains(b"svc/a/") && range.contains(b"svc/a/\xff\xff"));
        assert!(!range.contains(b"svc/a") && !range.contains(b"svc/a0"));
        let range = KeyRange::prefix(&b"a\xff\xff"[..]);
        assert!(range.contains(b"a\xff\xff\xff") && !range.contains(b"b"));
        assert_eq!(KeyRange::prefix(&b"\xff"[..]).end, None);
    }

    #[test]
    fn a_key_covers_itself_only() {
        let range = KeyRange::key("a");
        assert!(range.contains(b"a") && !range.contains(b"a\0") && !range.contains(b"b"));
    }
}
