//! Ranges, at the newest revision or, by undoing what the window still has, at an older one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;

use redb::{Database, ReadableDatabase, ReadableTable};

use super::tables::{KEYS, META, META_REVISION, decode, number};
use crate::store::ring::Ring;
use crate::store::{
    EventGroup, Key, KeyRange, KeyValue, PAGE_BYTES_MAX, PAGE_KEYS_MAX, Page, Range, Revision,
    StoreError,
};

/// What keys were at the asked revision, where that differs from now; None: absent then.
type Undo = BTreeMap<Key, Option<KeyValue>>;

pub fn page(
    database: &Database,
    window: &Ring<EventGroup>,
    range: &Range,
) -> Result<Page, StoreError> {
    let failed = |error: redb::Error| StoreError::Failed(error.to_string());
    let read = database
        .begin_read()
        .map_err(|error| failed(error.into()))?;
    let keys = read
        .open_table(KEYS)
        .map_err(|error| failed(error.into()))?;
    let meta = read
        .open_table(META)
        .map_err(|error| failed(error.into()))?;
    let newest = revision(&meta).map_err(|error| failed(error.into()))?;
    let at = range.at.unwrap_or(newest);
    if at > newest {
        return Err(StoreError::Future { asked: at, newest });
    }
    let undo = undo(window, &range.keys, at, newest)?;
    let (entries, more) = collect(&keys, range, undo).map_err(|error| failed(error.into()))?;
    Ok(Page {
        entries,
        more,
        revision: at,
    })
}

pub fn revision(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<Revision, redb::StorageError> {
    match meta.get(META_REVISION)? {
        Some(stored) => Ok(number(stored.value())?.0),
        None => Ok(0),
    }
}

pub fn bounds(range: &KeyRange) -> (Bound<&[u8]>, Bound<&[u8]>) {
    let end = match &range.end {
        // An upside-down range is empty; the table would panic at it.
        Some(end) if *end < range.start => Bound::Excluded(&range.start[..]),
        Some(end) => Bound::Excluded(&end[..]),
        None => Bound::Unbounded,
    };
    (Bound::Included(&range.start[..]), end)
}

fn undo(
    window: &Ring<EventGroup>,
    keys: &KeyRange,
    at: Revision,
    newest: Revision,
) -> Result<Undo, StoreError> {
    let mut undo = Undo::new();
    if at == newest {
        return Ok(undo);
    }
    // Newest first: the last one written for a key is its state just after `at`.
    for group in window.between(at, newest)? {
        for event in group
            .events
            .iter()
            .rev()
            .filter(|event| keys.contains(&event.key))
        {
            undo.insert(event.key.clone(), event.before.clone());
        }
    }
    Ok(undo)
}

/// Merges what is stored with what is to be undone, up to the limits of a page.
fn collect(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    range: &Range,
    mut undo: Undo,
) -> Result<(Vec<KeyValue>, bool), redb::StorageError> {
    let mut page = PageBuilder::new(range.limit);
    for stored in table.range::<&[u8]>(bounds(&range.keys))? {
        let (key, value) = stored?;
        let key = Key::copy_from_slice(key.value());
        while let Some(earlier) = undo.first_entry().filter(|entry| *entry.key() < key) {
            if !page.add(earlier.remove()) {
                return Ok((page.entries, true));
            }
        }
        let entry = match undo.entry(key) {
            Entry::Occupied(undone) => undone.remove(),
            Entry::Vacant(same) => Some(decode(same.key(), value.value())?),
        };
        if !page.add(entry) {
            return Ok((page.entries, true));
        }
    }
    for entry in undo.into_values() {
        if !page.add(entry) {
            return Ok((page.entries, true));
        }
    }
    Ok((page.entries, false))
}

struct PageBuilder {
    entries: Vec<KeyValue>,
    bytes: usize,
    limit: usize,
}

impl PageBuilder {
    fn new(limit: usize) -> Self {
        Self {
            entries: Vec::new(),
            bytes: 0,
            limit: limit.clamp(1, PAGE_KEYS_MAX),
        }
    }

    /// False: the page is full and the entry is not in it.
    fn add(&mut self, entry: Option<KeyValue>) -> bool {
        let Some(entry) = entry else { return true };
        if self.entries.len() >= self.limit || self.bytes >= PAGE_BYTES_MAX {
            return false;
        }
        self.bytes += entry.key.len() + entry.value.len();
        self.entries.push(entry);
        true
    }
}
