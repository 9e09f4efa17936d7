//! The store in one file on this machine, on redb: one writer thread that commits what has queued while the last commit was on its way
//! to the disk (natural group commit), readers on snapshots, watches from a window in memory. An answer means fsynced; a failed fsync
//! ends the engine, since nobody can know what the disk holds after it.

mod apply;
mod file;
mod lease;
mod read;
mod tables;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use redb::Database;
use tokio::sync::{mpsc, oneshot, watch};

use super::ring::Ring;
use super::{
    EventGroup, EventStream, KeyRange, LeaseId, Page, Range, Revision, Store, StoreError, Txn,
    TxnOutcome, limits,
};
pub use file::{FORMAT, OpenError};
use writer::Command;

#[derive(Clone, Debug)]
pub struct Options {
    /// The file; its folder must exist.
    pub path: PathBuf,
    /// redb's cache. What is hot is in the page cache and in the caller's memory already.
    pub cache_bytes: usize,
    /// How far back watches reach.
    pub window_events: usize,
    pub window_bytes: usize,
    /// Commands that wait for the writer; more wait outside.
    pub queue_max: usize,
}

impl Options {
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            cache_bytes: 4 << 20,
            window_events: 64 << 10,
            window_bytes: 16 << 20,
            queue_max: 4_096,
        }
    }
}

/// Dropping the last clone of what holds it lets the writer finish its queue and closes the file.
pub struct Embedded {
    database: Arc<Database>,
    id: String,
    window: Arc<Ring<EventGroup>>,
    commands: mpsc::Sender<Command>,
    /// Why the writer has stopped.
    failure: watch::Receiver<Option<String>>,
    writer: Option<std::thread::JoinHandle<()>>,
}

impl Embedded {
    /// Opens the file, or makes it where there is none. A damaged or foreign file is an error and stays as it is.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let opened = file::open(&options.path, options.cache_bytes)?;
        Ok(Self::start(opened, options))
    }

    fn start(opened: file::Opened, options: &Options) -> Self {
        let window = Arc::new(Ring::new(
            opened.revision,
            options.window_events,
            options.window_bytes,
        ));
        let (commands, queue) = mpsc::channel(options.queue_max);
        let (failed, failure) = watch::channel(None);
        let database = Arc::new(opened.database);
        let writer = writer::spawn(
            database.clone(),
            opened.revision,
            opened.leases,
            window.clone(),
            queue,
            failed,
        );
        Self {
            database,
            id: opened.id,
            window,
            commands,
            failure,
            writer: Some(writer),
        }
    }

    async fn command<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Command,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let sent = self.commands.send(make(answer)).await;
        if sent.is_err() {
            return Err(self.failure());
        }
        answered.await.unwrap_or_else(|_| Err(self.failure()))
    }

    fn failure(&self) -> StoreError {
        let reason = self.failure.borrow().clone();
        StoreError::Failed(reason.unwrap_or_else(|| writer::STOPPED.to_owned()))
    }
}

#[async_trait]
impl Store for Embedded {
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        limits::check(&txn)?;
        self.command(|answer| Command::Txn { txn, answer }).await
    }

    async fn range(&self, range: Range) -> Result<Page, StoreError> {
        read::page(&self.database, &self.window, &range)
    }

    async fn watch(&self, range: KeyRange, after: Revision) -> Result<EventStream, StoreError> {
        let newest = self.window.revision();
        if after > newest {
            return Err(StoreError::Future {
                asked: after,
                newest,
            });
        }
        self.window.after(after)?;
        Ok(events(self.window.clone(), range, after))
    }

    async fn lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.command(|answer| Command::Grant { ttl, answer }).await
    }

    async fn renew(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.command(|answer| Command::Renew { lease, answer })
            .await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.command(|answer| Command::Revoke { lease, answer })
            .await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.window.revision())
    }

    fn id(&self) -> &str {
        &self.id
    }

    async fn failed(&self) -> String {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => writer::STOPPED.to_owned(),
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // The writer ends when the last sender is gone, and the file closes cleanly behind it.
        let (closed, _) = mpsc::channel(1);
        self.commands = closed;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn events(window: Arc<Ring<EventGroup>>, range: KeyRange, after: Revision) -> EventStream {
    let newer = window.subscribe();
    let start = Some((window, newer, range, after));
    stream::unfold(start, |state| async {
        let (window, mut newer, range, mut cursor) = state?;
        loop {
            newer.mark_unchanged();
            match window.after(cursor) {
                Err(error) => return Some((Err(error), None)),
                Ok(Some((revision, group))) => {
                    cursor = revision;
                    let events: Vec<_> = group
                        .events
                        .iter()
                        .filter(|event| range.contains(&event.key))
                        .cloned()
                        .collect();
                    if !events.is_empty() {
                        return Some((
                            Ok(EventGroup { revision, events }),
                            Some((window, newer, range, cursor)),
                        ));
                    }
                }
                // `window` holds the sender, so this cannot fail while we wait.
                Ok(None) => newer.changed().await.ok()?,
            }
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests;
