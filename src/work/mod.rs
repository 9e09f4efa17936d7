//! The work plane: tasks, which are requests that the registry keeps until an instance has done them.
//!
//! A task is in the [`Store`] before it is acknowledged and until it is over, so nothing is lost with the process: what was under way
//! when it ended is tried again (at least once; an application recognises a repetition by `idempotency-key`). Beside that stands a
//! [`queue`] in memory, with the same [`crate::lane`] in front of each service as requests have; [`workers`] says who is fit, and an
//! [`attempt`] is one request. Two writes a task: one when it is accepted, one when it is over; and one for each attempt that failed.
//!
//! Leaves out: several registries that share the work, schedules, chains.

mod attempt;
mod dispatch;
mod keys;
mod lanes;
mod queue;
pub mod record;
pub mod workers;
mod writes;

use std::cmp::Ordering as CmpOrdering;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use attempt::Courier;
use queue::{Entry, Id, Phase, Queue};
use record::{Record, Wrong};
use workers::Dispatched;
use writes::{kept_until, key_of, schedule};

use crate::api::{NewTask, SubmittedTask, Task, TaskState, Tasks};
use crate::base::hash::xxh64;
use crate::model::Name;
use crate::store::{
    Compare, KeyRange, Operation, OperationResult, Range, Revision, Store, StoreError, Txn,
};

/// Tasks that are not over.
const TASKS_MAX: usize = 1_000_000;
/// Tasks that one listing shows, and that it reads to find them.
const LISTED_MAX: usize = 100;
const LOOKED_AT_MAX: usize = 10_000;

/// The tasks of one registry. [`Work::run`] must run for any to be done.
pub struct Work {
    store: Arc<dyn Store>,
    held: Mutex<Held>,
    changed: Notify,
    epoch: Instant,
    courier: Courier,
    counts: Counts,
}

/// Since the process began.
#[derive(Default)]
pub struct Counts {
    pub submitted: AtomicU64,
    pub attempts: AtomicU64,
    /// By how they ended.
    pub ended: [AtomicU64; TaskState::ALL.len()],
}

/// Tasks that are not over, by what they do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Depth {
    pub scheduled: u64,
    pub ready: u64,
    pub running: u64,
}

#[derive(Default)]
struct Held {
    queue: Queue,
    dispatched: Dispatched,
    /// Attempts under way.
    running: HashMap<Id, Running>,
    /// How often in a row nobody has taken it.
    refusals: HashMap<Id, u32>,
    /// Services whose tasks are not handed out.
    paused: HashSet<Name>,
    /// Who waits for the end of a task.
    waiting: HashMap<Id, Vec<oneshot::Sender<()>>>,
}

struct Running {
    abort: AbortHandle,
    instance: Option<Arc<str>>,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WorkError {
    #[error("{}: {}", .0.field, .0.message)]
    Invalid(Wrong),
    #[error("task {0} does not exist")]
    Unknown(String),
    /// It is over already, or not over yet.
    #[error("task {id} is {}", .state.as_str())]
    State { id: String, state: TaskState },
    #[error("there are {TASKS_MAX} tasks already")]
    Full,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What [`Work::list`] shows.
#[derive(Clone, Default, Debug)]
pub struct Query {
    pub service: Option<Name>,
    pub state: Option<TaskState>,
    /// Those after this id.
    pub after: Option<String>,
}

impl Work {
    /// Reads what is not over.
    pub async fn open(store: Arc<dyn Store>) -> Result<Arc<Self>, StoreError> {
        let work = Self {
            store,
            held: Mutex::default(),
            changed: Notify::new(),
            epoch: Instant::now(),
            courier: Courier::default(),
            counts: Counts::default(),
        };
        work.read_paused().await?;
        let mut keys = KeyRange::prefix(keys::DUE);
        loop {
            let page = work.page(keys.clone()).await?;
            let mut held = work.held();
            for found in &page.entries {
                let due = keys::time_and_id(&found.key);
                let entry = entry_from(&found.value);
                if let (Some((due, id)), Some(entry)) = (due, entry) {
                    held.queue.schedule(id.into(), entry, due);
                }
            }
            drop(held);
            match page.entries.last().filter(|_| page.more) {
                Some(last) => keys.start = [&last.key[..], &[0]].concat().into(),
                None => return Ok(Arc::new(work)),
            }
        }
    }

    /// Accepts a task: it is durable when this returns.
    pub async fn submit(&self, task: NewTask) -> Result<SubmittedTask, WorkError> {
        if self.held().queue.len() >= TASKS_MAX {
            return Err(WorkError::Full);
        }
        let now = record::now();
        let record = Record::new(task, now).map_err(WorkError::Invalid)?;
        let id = record::new_id(now, &mut fastrand::Rng::new());
        let mut txn = Txn::of(schedule(&id, &record));
        if let Some(key) = key_of(&record) {
            txn.compares.push(Compare::Exists(key.clone(), false));
            txn.then.push(Operation::put(key.clone(), id.clone()));
            txn.otherwise.push(Operation::Get(key));
        }
        let outcome = self.store.txn(txn).await?;
        if !outcome.succeeded {
            let there = outcome.results.into_iter().find_map(|result| match result {
                OperationResult::Got(found) => found,
                _ => None,
            });
            let id = there.map(|there| String::from_utf8_lossy(&there.value).into_owned());
            return Ok(SubmittedTask {
                id: id.unwrap_or_default(),
                existed: true,
            });
        }
        self.take(&id, &record);
        self.counts.submitted.fetch_add(1, Ordering::Relaxed);
        Ok(SubmittedTask { id, existed: false })
    }

    pub async fn get(&self, id: &str) -> Result<Task, WorkError> {
        let (record, _) = self.read(id).await?;
        Ok(self.view(id, record))
    }

    /// As [`Self::get`], once it is over, or after so long.
    pub async fn wait(&self, id: &str, longest: Duration) -> Result<Task, WorkError> {
        let (told, over) = oneshot::channel();
        self.held().waiting.entry(id.into()).or_default().push(told);
        let task = self.get(id).await;
        let is_over = task.as_ref().map_or(true, |task| task.state.is_final());
        if !is_over {
            let _ = tokio::time::timeout(longest, over).await;
        } else {
            drop(over);
        }
        self.forget_waiting(id);
        match is_over {
            true => task,
            false => self.get(id).await,
        }
    }

    pub async fn list(&self, query: &Query) -> Result<Tasks, WorkError> {
        let mut keys = match &query.after {
            Some(after) => keys::tasks_after(after),
            None => KeyRange::prefix(keys::TASKS),
        };
        let (mut tasks, mut looked_at) = (Vec::new(), 0);
        loop {
            let page = self.page(keys.clone()).await?;
            for found in &page.entries {
                looked_at += 1;
                let id = String::from_utf8_lossy(&found.key[keys::TASKS.len()..]).into_owned();
                let Some(record) = Record::from_bytes(&found.value) else {
                    continue;
                };
                let task = self.view(&id, record);
                if query.fits(&task) {
                    tasks.push(task);
                }
                if tasks.len() == LISTED_MAX || looked_at == LOOKED_AT_MAX {
                    return Ok(Tasks {
                        tasks,
                        next: Some(id),
                    });
                }
            }
            match page.entries.last().filter(|_| page.more) {
                Some(last) => keys.start = [&last.key[..], &[0]].concat().into(),
                None => return Ok(Tasks { tasks, next: None }),
            }
        }
    }

    /// Ends a task that is not over; an attempt under way is broken off.
    pub async fn cancel(&self, id: &str) -> Result<Task, WorkError> {
        let (mut record, _) = self.read(id).await?;
        if record.state.is_final() {
            return Err(self.wrong_state(id, record.state));
        }
        record.error = Some("cancelled".to_owned());
        if !self.end(id, record, TaskState::Cancelled).await? {
            let (record, _) = self.read(id).await?;
            return Err(self.wrong_state(id, record.state));
        }
        self.get(id).await
    }

    /// Tries a task again that was given up, cancelled or too late, as if it were new.
    pub async fn retry(&self, id: &str) -> Result<Task, WorkError> {
        let (mut record, modified) = self.read(id).await?;
        let may = matches!(
            record.state,
            TaskState::Dead | TaskState::Cancelled | TaskState::Expired
        );
        if !may {
            let phase = self.held().queue.phase(id);
            return Err(self.wrong_state(id, state_of(&record, phase)));
        }
        let ended = keys::end(kept_until(&record), id);
        record.state = TaskState::Scheduled;
        record.attempts = 0;
        record.due = record::now();
        record.finished = None;
        record.task.deadline = None;
        let mut operations = schedule(id, &record);
        operations.push(Operation::Delete(ended));
        let unchanged = Compare::Modified(keys::task(id), CmpOrdering::Equal, modified);
        let outcome = self
            .store
            .txn(Txn {
                compares: vec![unchanged],
                ..Txn::of(operations)
            })
            .await?;
        if outcome.succeeded {
            self.take(id, &record);
        }
        self.get(id).await
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    pub fn depth(&self) -> Depth {
        self.held().queue.depth()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing panics while it is held.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    async fn page(&self, keys: KeyRange) -> Result<crate::store::Page, StoreError> {
        self.store.range(Range::of(keys)).await
    }

    async fn read(&self, id: &str) -> Result<(Record, Revision), WorkError> {
        let page = self.page(KeyRange::key(keys::task(id))).await?;
        let found = page.entries.first();
        let record =
            found.and_then(|found| Some((Record::from_bytes(&found.value)?, found.modified)));
        record.ok_or_else(|| WorkError::Unknown(id.to_owned()))
    }

    fn view(&self, id: &str, mut record: Record) -> Task {
        let held = self.held();
        let state = state_of(&record, held.queue.phase(id));
        let running = held.running.get(id);
        if let Some(instance) = running.and_then(|running| running.instance.as_ref()) {
            record.instance = Some(instance.to_string());
        }
        record.view(id, state)
    }

    fn wrong_state(&self, id: &str, state: TaskState) -> WorkError {
        WorkError::State {
            id: id.to_owned(),
            state,
        }
    }

    /// What is in the store is in the queue too.
    fn take(&self, id: &str, record: &Record) {
        let mut held = self.held();
        held.queue.schedule(id.into(), entry_of(record), record.due);
        drop(held);
        self.changed.notify_one();
    }

    /// It is over.
    fn leave(&self, id: &str) {
        let mut held = self.held();
        held.queue.remove(id);
        held.refusals.remove(id);
        if let Some(running) = held.running.remove(id) {
            running.abort.abort();
        }
        let waiting = held.waiting.remove(id);
        drop(held);
        for told in waiting.into_iter().flatten() {
            let _ = told.send(());
        }
        self.changed.notify_one();
    }

    fn forget_waiting(&self, id: &str) {
        let mut held = self.held();
        if let Some(waiting) = held.waiting.get_mut(id) {
            waiting.retain(|told| !told.is_closed());
            if waiting.is_empty() {
                held.waiting.remove(id);
            }
        }
    }
}

impl Query {
    fn fits(&self, task: &Task) -> bool {
        let of_service = |service: &Name| {
            *service.namespace == *task.task.namespace && *service.name == *task.task.service
        };
        self.service.as_ref().is_none_or(of_service)
            && self.state.is_none_or(|state| state == task.state)
    }
}

/// What the store says, but for what only memory knows.
fn state_of(record: &Record, phase: Option<Phase>) -> TaskState {
    match phase {
        _ if record.state.is_final() => record.state,
        Some(Phase::Running) => TaskState::Running,
        Some(Phase::Ready) => TaskState::Ready,
        Some(Phase::Scheduled) if record.due <= record::now() => TaskState::Ready,
        Some(Phase::Scheduled) | None => TaskState::Scheduled,
    }
}

fn entry_of(record: &Record) -> Entry {
    Entry {
        service: Arc::new(record.service()),
        class: record.class(),
        tenant: xxh64(record.task.tenant.as_bytes(), 0),
        deadline: record.deadline(),
    }
}

fn entry_from(value: &[u8]) -> Option<Entry> {
    let [namespace, service, class, tenant, deadline]: [String; 5] =
        serde_json::from_slice(value).ok()?;
    Some(Entry {
        service: Arc::new(Name::new(&namespace, &service)),
        class: crate::model::Class::from_bytes(class.as_bytes()).unwrap_or_default(),
        tenant: xxh64(tenant.as_bytes(), 0),
        deadline: record::time_of(&deadline),
    })
}
