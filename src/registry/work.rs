//! What the work plane learns from the registry: which instances are fit, and in which order tasks come.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;

use super::documents::problems::source;
use super::view::Entry;
use super::{Refusal, Registry};
use crate::api::{DocumentKey, InstanceState, NewTask, SubmittedTask, Task, TaskLane, Tasks};
use crate::config::Loader;
use crate::model::{Discipline, Name};
use crate::store::Revision;
use crate::work::workers::{Worker, Workers};
use crate::work::{Query, WorkError};

/// An instance says in this label how many tasks it takes at once …
const TASKS_MAX_LABEL: &str = "pillion.dev/max-tasks";
/// … or it takes so many.
const TASKS_MAX: u32 = 4;

/// Services whose instances or discipline are remembered; then it begins anew.
const REMEMBERED_MAX: usize = 50_000;

/// Tasks of a batch that are written at the same time.
const AT_ONCE_MAX: usize = 512;

/// The fit instances of services whose tasks were looked at, by the revision of the last change of their instances.
#[derive(Default)]
pub struct FitInstances(Mutex<HashMap<Name, Fit>>);

struct Fit {
    at: Revision,
    workers: Arc<[Worker]>,
}

/// The disciplines of lanes by the revision of the document that says them.
#[derive(Default)]
pub struct Disciplines(Mutex<HashMap<Name, (u64, Discipline)>>);

impl Workers for Registry {
    fn fit(&self, service: &Name) -> Vec<Worker> {
        let state = self.view.state();
        let Some(set) = state.services.get(service) else {
            return Vec::new();
        };
        let mut known = lock(&self.fit.0);
        let found = known.get(service).filter(|found| found.at == set.changed);
        let workers = match found {
            Some(found) => Arc::clone(&found.workers),
            None => {
                let workers: Arc<[Worker]> = set.entries.iter().filter_map(worker).collect();
                let fit = Fit {
                    at: set.changed,
                    workers: Arc::clone(&workers),
                };
                remember(&mut known, service, fit);
                workers
            }
        };
        let with_load = workers.iter().map(|worker| {
            let known = state.instances.get(&worker.id);
            let load = known.and_then(|known| known.load.as_ref()?.factor);
            Worker {
                load,
                ..worker.clone()
            }
        });
        with_load.collect()
    }

    fn discipline(&self, service: &Name) -> Discipline {
        let key = DocumentKey {
            kind: "Service".to_owned(),
            namespace: service.namespace.to_string(),
            name: service.name.to_string(),
        };
        let Some(document) = self.view.state().documents.get(&key).cloned() else {
            return Discipline::default();
        };
        let mut known = lock(&self.disciplines.0);
        match known.get(service) {
            Some((revision, discipline)) if *revision == document.revision => *discipline,
            _ => {
                let (snapshot, _) = Loader::new().judge(&[source(&document)]);
                let found = snapshot.services.get(service);
                let lane = found.and_then(|service| service.lane.as_ref());
                let discipline = lane.map_or_else(Discipline::default, |lane| lane.discipline);
                remember(&mut known, service, (document.revision, discipline));
                discipline
            }
        }
    }
}

/// What is cached is replaced whole, never changed by halves.
fn lock<T>(cache: &Mutex<T>) -> MutexGuard<'_, T> {
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remember<T>(cache: &mut HashMap<Name, T>, service: &Name, value: T) {
    if cache.len() >= REMEMBERED_MAX {
        cache.clear();
    }
    cache.insert(service.clone(), value);
}

/// An instance, if it is fit; without its load.
fn worker((id, entry): (&Arc<str>, &Entry)) -> Option<Worker> {
    if entry.state != InstanceState::Passing {
        return None;
    }
    let instance = entry.instance(None)?;
    let tasks_max = instance.labels.get(TASKS_MAX_LABEL);
    let tasks_max = tasks_max.and_then(|text| text.parse().ok());
    let worker = Worker {
        id: Arc::clone(id),
        address: instance.ports.first()?.address.as_str().into(),
        load: None,
        tasks_max: tasks_max.unwrap_or(TASKS_MAX),
    };
    (instance.weight > 0).then_some(worker)
}

impl Registry {
    pub async fn submit_task(&self, task: NewTask) -> Result<SubmittedTask, Refusal> {
        Ok(self.work.submit(task).await?)
    }

    /// Many at once, which share the commits of the store. The answers in their order, one a line.
    pub async fn submit_tasks(&self, tasks: Vec<Result<NewTask, Refusal>>) -> Vec<u8> {
        let mut submitting = FuturesOrdered::new();
        let mut answers = Vec::new();
        for task in tasks {
            if submitting.len() == AT_ONCE_MAX {
                answers.extend(submitting.next().await.unwrap_or_default());
            }
            submitting.push_back(self.answered(task));
        }
        while let Some(line) = submitting.next().await {
            answers.extend(line);
        }
        answers
    }

    async fn answered(&self, task: Result<NewTask, Refusal>) -> Vec<u8> {
        let submitted = match task {
            Ok(task) => self.submit_task(task).await,
            Err(refusal) => Err(refusal),
        };
        // Wire types always serialize.
        let line = match &submitted {
            Ok(submitted) => serde_json::to_vec(submitted),
            Err(refusal) => serde_json::to_vec(&refusal.body()),
        };
        let mut line = line.unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// Of this id; with `wait`, once it is over.
    pub async fn task(&self, id: &str, wait: Option<Duration>) -> Result<Task, Refusal> {
        Ok(match wait {
            Some(longest) => self.work.wait(id, longest).await?,
            None => self.work.get(id).await?,
        })
    }

    pub async fn tasks(&self, query: &Query) -> Result<Tasks, Refusal> {
        Ok(self.work.list(query).await?)
    }

    /// Of one service, or of all that have any.
    pub fn task_lanes(&self, of: Option<&Name>) -> Vec<TaskLane> {
        self.work.lanes(of, self)
    }

    pub async fn pause_tasks(&self, service: &Name, paused: bool) -> Result<(), Refusal> {
        Ok(self.work.pause(service, paused).await?)
    }

    pub async fn cancel_task(&self, id: &str) -> Result<Task, Refusal> {
        Ok(self.work.cancel(id).await?)
    }

    pub async fn retry_task(&self, id: &str) -> Result<Task, Refusal> {
        Ok(self.work.retry(id).await?)
    }
}

impl From<WorkError> for Refusal {
    fn from(error: WorkError) -> Self {
        let message = error.to_string();
        match error {
            WorkError::Invalid(wrong) => {
                let status = http::StatusCode::UNPROCESSABLE_ENTITY;
                Self::new(status, "invalid_task", message).hint(wrong.hint)
            }
            WorkError::Unknown(id) => Self::not_found(format!("task {id}")),
            WorkError::State { .. } => Self::new(http::StatusCode::CONFLICT, "task_state", message)
                .hint("only what is not over is cancelled, and only what failed is tried again"),
            WorkError::Full => Self::limit(message).hint("wait until some are done"),
            WorkError::Store(error) => error.into(),
        }
    }
}
