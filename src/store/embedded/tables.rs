//! What the file looks like: four tables, and the head before each value.

use bytes::Bytes;
use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::store::{Key, KeyValue, LeaseId, Revision};

pub const KEYS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("keys");
/// Lease id → its time to live in milliseconds.
pub const LEASES: TableDefinition<u64, u64> = TableDefinition::new("leases");
/// Which keys go with which lease.
pub const LEASE_KEYS: TableDefinition<(u64, &[u8]), ()> = TableDefinition::new("lease_keys");
pub const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

pub const META_FORMAT: &str = "format";
pub const META_ID: &str = "id";
pub const META_REVISION: &str = "revision";
pub const META_LEASE: &str = "lease";

/// Created, modified, lease (0 is none), each 8 bytes.
const HEAD: usize = 24;

pub fn encode(entry: &KeyValue) -> Vec<u8> {
    let mut stored = Vec::with_capacity(HEAD + entry.value.len());
    for number in [entry.created, entry.modified, entry.lease.unwrap_or(0)] {
        stored.extend_from_slice(&number.to_be_bytes());
    }
    stored.extend_from_slice(&entry.value);
    stored
}

pub fn decode(key: &[u8], stored: &[u8]) -> Result<KeyValue, redb::StorageError> {
    let (created, rest) = number(stored)?;
    let (modified, rest) = number(rest)?;
    let (lease, value) = number(rest)?;
    Ok(KeyValue {
        key: Key::copy_from_slice(key),
        value: Bytes::copy_from_slice(value),
        created,
        modified,
        lease: (lease != 0).then_some(lease),
    })
}

pub fn number(stored: &[u8]) -> Result<(u64, &[u8]), redb::StorageError> {
    match stored.split_first_chunk() {
        Some((number, rest)) => Ok((u64::from_be_bytes(*number), rest)),
        None => Err(redb::StorageError::Corrupted(
            "an entry is too short".to_owned(),
        )),
    }
}

/// All tables of a transaction.
pub struct Tables<'txn> {
    keys: Table<'txn, &'static [u8], &'static [u8]>,
    leases: Table<'txn, u64, u64>,
    lease_keys: Table<'txn, (u64, &'static [u8]), ()>,
    meta: Table<'txn, &'static str, &'static [u8]>,
}

impl<'txn> Tables<'txn> {
    pub fn open(write: &'txn WriteTransaction) -> Result<Self, redb::TableError> {
        Ok(Self {
            keys: write.open_table(KEYS)?,
            leases: write.open_table(LEASES)?,
            lease_keys: write.open_table(LEASE_KEYS)?,
            meta: write.open_table(META)?,
        })
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, redb::StorageError> {
        let stored = self.keys.get(key)?;
        stored.map(|stored| decode(key, stored.value())).transpose()
    }

    pub fn keys_in(&self, range: &crate::store::KeyRange) -> Result<Vec<Key>, redb::StorageError> {
        let bounds = super::read::bounds(range);
        let entries = self.keys.range::<&[u8]>(bounds)?;
        entries
            .map(|entry| Ok(Key::copy_from_slice(entry?.0.value())))
            .collect()
    }

    /// Writes an entry over `before`, keeping the lease's list of keys right.
    pub fn put(
        &mut self,
        entry: &KeyValue,
        before: Option<&KeyValue>,
    ) -> Result<(), redb::StorageError> {
        let lease_before = before.and_then(|before| before.lease);
        if lease_before != entry.lease {
            self.detach(lease_before, &entry.key)?;
            if let Some(lease) = entry.lease {
                self.lease_keys.insert((lease, &entry.key[..]), ())?;
            }
        }
        self.keys.insert(&entry.key[..], &encode(entry)[..])?;
        Ok(())
    }

    pub fn delete(&mut self, before: &KeyValue) -> Result<(), redb::StorageError> {
        self.detach(before.lease, &before.key)?;
        self.keys.remove(&before.key[..])?;
        Ok(())
    }

    fn detach(&mut self, lease: Option<LeaseId>, key: &[u8]) -> Result<(), redb::StorageError> {
        if let Some(lease) = lease {
            self.lease_keys.remove((lease, key))?;
        }
        Ok(())
    }

    /// Makes a lease; ids are never used again.
    pub fn grant(&mut self, ttl_millis: u64) -> Result<LeaseId, redb::StorageError> {
        let last = match self.meta.get(META_LEASE)? {
            Some(stored) => number(stored.value())?.0,
            None => 0,
        };
        let lease = last + 1;
        self.meta.insert(META_LEASE, &lease.to_be_bytes()[..])?;
        self.leases.insert(lease, ttl_millis)?;
        Ok(lease)
    }

    pub fn has_lease(&self, lease: LeaseId) -> Result<bool, redb::StorageError> {
        Ok(self.leases.get(lease)?.is_some())
    }

    /// Forgets a lease and gives its keys, which the caller deletes.
    pub fn end_lease(&mut self, lease: LeaseId) -> Result<Vec<Key>, redb::StorageError> {
        self.leases.remove(lease)?;
        let from: (u64, &[u8]) = (lease, &[]);
        let to: (u64, &[u8]) = (lease + 1, &[]);
        let entries = self.lease_keys.range(from..to)?;
        entries
            .map(|entry| Ok(Key::copy_from_slice(entry?.0.value().1)))
            .collect()
    }

    pub fn set_revision(&mut self, revision: Revision) -> Result<(), redb::StorageError> {
        self.meta
            .insert(META_REVISION, &revision.to_be_bytes()[..])?;
        Ok(())
    }

    pub fn set_meta(&mut self, name: &'static str, value: &[u8]) -> Result<(), redb::StorageError> {
        self.meta.insert(name, value)?;
        Ok(())
    }
}
