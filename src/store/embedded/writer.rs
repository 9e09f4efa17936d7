//! The writer thread: takes what has queued, applies it in one redb transaction, commits, answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use redb::Database;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::apply::{self, Applied};
use super::lease::Leases;
use super::tables::Tables;
use crate::store::ring::Ring;
use crate::store::{Event, EventGroup, LeaseId, Revision, StoreError, Txn, TxnOutcome};

/// Commands of one commit; what is beyond waits for the next.
const BATCH_MAX: usize = 1_024;
pub const STOPPED: &str = "its writer has stopped";

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

pub enum Command {
    Txn {
        txn: Txn,
        answer: Answer<TxnOutcome>,
    },
    Grant {
        ttl: Duration,
        answer: Answer<LeaseId>,
    },
    Renew {
        lease: LeaseId,
        answer: Answer<()>,
    },
    Revoke {
        lease: LeaseId,
        answer: Answer<()>,
    },
}

pub fn spawn(
    database: Arc<Database>,
    revision: Revision,
    leases: HashMap<LeaseId, Duration>,
    window: Arc<Ring<EventGroup>>,
    queue: mpsc::Receiver<Command>,
    failed: watch::Sender<Option<String>>,
) -> JoinHandle<()> {
    let work = move || {
        let mut writer = Writer {
            database,
            revision,
            leases: Leases::default(),
            window,
        };
        for (lease, ttl) in leases {
            writer.leases.add(lease, ttl, Instant::now());
        }
        // A panic in the engine ends the thread; dropping `failed` then tells everyone.
        if let Err(error) = writer.run(queue) {
            failed.send_replace(Some(error.to_string()));
        }
    };
    // Without a thread there is no store, and no way to go on: the same as an allocation that fails.
    std::thread::Builder::new()
        .name("store".to_owned())
        .spawn(work)
        .expect("a thread for the store's writer")
}

struct Writer {
    database: Arc<Database>,
    revision: Revision,
    leases: Leases,
    window: Arc<Ring<EventGroup>>,
}

/// What is told to whom once the commit has reached the disk.
enum Reply {
    Txn(Answer<TxnOutcome>, Result<TxnOutcome, StoreError>),
    Grant(Answer<LeaseId>, LeaseId),
    Done(Answer<()>, Result<(), StoreError>),
}

impl Writer {
    /// Ends without an error when nobody can send commands any more.
    fn run(&mut self, mut queue: mpsc::Receiver<Command>) -> Result<(), redb::Error> {
        let clock = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let clock = clock.map_err(redb::Error::Io)?;
        let mut batch = Vec::new();
        loop {
            batch.clear();
            let received = clock.block_on(receive(&mut queue, &mut batch, self.leases.next()));
            let ended = self.leases.ended(Instant::now());
            if !received && ended.is_empty() {
                return Ok(());
            }
            self.commit(&mut batch, ended)?;
        }
    }

    fn commit(&mut self, batch: &mut Vec<Command>, ended: Vec<LeaseId>) -> Result<(), redb::Error> {
        let before = self.revision;
        let mut replies = Vec::with_capacity(batch.len());
        let mut dirty = false;
        let write = self.database.begin_write()?;
        {
            let mut tables = Tables::open(&write)?;
            for lease in ended {
                dirty |= self.end_lease(&mut tables, lease)?;
            }
            for command in batch.drain(..) {
                let (reply, wrote) = self.apply(&mut tables, command)?;
                replies.push(reply);
                dirty |= wrote;
            }
            if self.revision != before {
                tables.set_revision(self.revision)?;
            }
        }
        if dirty {
            write.commit()?;
        } else {
            write.abort()?;
        }
        self.window.publish(self.revision);
        replies.into_iter().for_each(Reply::send);
        Ok(())
    }

    /// Applies a command; true when something is to be committed.
    fn apply(
        &mut self,
        tables: &mut Tables<'_>,
        command: Command,
    ) -> Result<(Reply, bool), redb::Error> {
        Ok(match command {
            Command::Txn { txn, answer } => match apply::apply(tables, self.revision, &txn)? {
                Applied::NoLease(lease) => {
                    (Reply::Txn(answer, Err(StoreError::NoLease(lease))), false)
                }
                Applied::Done { outcome, events } => {
                    let wrote = self.record(events);
                    (Reply::Txn(answer, Ok(outcome)), wrote)
                }
            },
            Command::Grant { ttl, answer } => {
                let lease = tables.grant(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))?;
                self.leases.add(lease, ttl, Instant::now());
                (Reply::Grant(answer, lease), true)
            }
            Command::Renew { lease, answer } => {
                let renewed = self.leases.renew(lease, Instant::now());
                (Reply::Done(answer, known(renewed, lease)), false)
            }
            Command::Revoke { lease, answer } => {
                let wrote = self.end_lease(tables, lease)?;
                (Reply::Done(answer, known(wrote, lease)), wrote)
            }
        })
    }

    fn end_lease(&mut self, tables: &mut Tables<'_>, lease: LeaseId) -> Result<bool, redb::Error> {
        if !self.leases.remove(lease) {
            return Ok(false);
        }
        let events = apply::end_lease(tables, self.revision, lease)?;
        self.record(events);
        Ok(true)
    }

    /// Puts the events into the window, unseen until the commit.
    fn record(&mut self, events: Vec<Event>) -> bool {
        if events.is_empty() {
            return false;
        }
        self.revision += 1;
        let bytes = events.iter().map(cost).sum();
        self.window.push(
            self.revision,
            bytes,
            Arc::new(EventGroup {
                revision: self.revision,
                events,
            }),
        );
        true
    }
}

impl Reply {
    fn send(self) {
        // Who no longer waits does not need the answer.
        match self {
            Reply::Txn(answer, outcome) => drop(answer.send(outcome)),
            Reply::Grant(answer, lease) => drop(answer.send(Ok(lease))),
            Reply::Done(answer, outcome) => drop(answer.send(outcome)),
        }
    }
}

/// Waits for the first command, then takes what else is there; false: there will be no more. Returns early for a lease's end.
async fn receive(
    queue: &mut mpsc::Receiver<Command>,
    batch: &mut Vec<Command>,
    lease_end: Option<Instant>,
) -> bool {
    let received = queue.recv_many(batch, BATCH_MAX);
    match lease_end {
        None => received.await > 0,
        Some(end) => tokio::time::timeout_at(end, received)
            .await
            .map_or(true, |count| count > 0),
    }
}

fn known(known: bool, lease: LeaseId) -> Result<(), StoreError> {
    if known {
        Ok(())
    } else {
        Err(StoreError::NoLease(lease))
    }
}

/// About what an event holds in memory.
fn cost(event: &Event) -> usize {
    let value = |entry: &Option<crate::store::KeyValue>| {
        entry.as_ref().map_or(0, |entry| entry.value.len())
    };
    128 + 2 * event.key.len() + value(&event.now) + value(&event.before)
}
