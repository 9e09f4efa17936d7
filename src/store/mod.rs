//! Ordered key-value storage with revisions, compare-and-swap transactions, ranges, watches and leases.
//!
//! One trait, [`Store`], that means the same on every engine: `tests/store` holds the suite each must pass. Keys and values are bytes; what
//! they mean is the caller's. Every transaction that changes something has the next [`Revision`], and an answer means it is durable.
//! The model is etcd's and so are the limits, so that what runs on the [`embedded`] engine runs on etcd.
//!
//! Leaves out: replication, encryption, history older than the watch window.

pub mod embedded;
mod limits;
pub mod ring;
mod types;

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

pub use limits::{
    KEY_BYTES_MAX, OPERATIONS_MAX, PAGE_BYTES_MAX, PAGE_KEYS_MAX, TXN_BYTES_MAX, VALUE_BYTES_MAX,
};
pub use types::{
    Compare, Event, EventGroup, Key, KeyRange, KeyValue, LeaseId, Operation, OperationResult, Page,
    Range, Revision, Txn, TxnOutcome,
};

/// The events of a range, grouped by revision, in order. An error ends it; [`StoreError::Compacted`] means: read the range again.
pub type EventStream = BoxStream<'static, Result<EventGroup, StoreError>>;

#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Applies `then` when every compare holds, else `otherwise`: all of it or nothing. The answer means durable.
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError>;

    /// Reads keys in order, at most [`PAGE_KEYS_MAX`] and about [`PAGE_BYTES_MAX`]. Linearizable: it sees every answered transaction.
    async fn range(&self, range: Range) -> Result<Page, StoreError>;

    /// Every change of `range` after the revision `after`.
    async fn watch(&self, range: KeyRange, after: Revision) -> Result<EventStream, StoreError>;

    /// A promise to keep renewing; keys put under it go when it ends. For replicas: instances are renewed in memory.
    async fn lease(&self, ttl: Duration) -> Result<LeaseId, StoreError>;

    async fn renew(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// Ends a lease now.
    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// The newest revision.
    async fn revision(&self) -> Result<Revision, StoreError>;

    /// Names these data: made when they were first created, so that two stores' revisions are never compared.
    fn id(&self) -> &str;

    /// Waits until the store can do nothing more, and says why. A process must exit then: what was not answered is unknown.
    async fn failed(&self) -> String;
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// The request is larger than any engine takes; nothing was done.
    #[error("{0}")]
    Limit(String),
    /// What was asked for is no longer kept.
    #[error("revision is no longer kept; the oldest is {oldest}")]
    Compacted { oldest: Revision },
    #[error("revision {asked} is in the future; the newest is {newest}")]
    Future { asked: Revision, newest: Revision },
    #[error("lease {0} does not exist or has ended")]
    NoLease(LeaseId),
    /// The engine has stopped for good; see [`Store::failed`].
    #[error("the store has failed: {0}")]
    Failed(String),
}
