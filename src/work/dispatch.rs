//! From the queue to instances: which attempts begin when, what becomes of them, and that a slot is given back however one ends.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::attempt::Verdict;
use super::queue::{Id, Room, Started};
use super::record::{self, Millis, Record};
use super::workers::{Worker, Workers};
use super::{Held, Running, Work, entry_of};
use crate::api::TaskState;
use crate::base::backoff::Backoff;
use crate::lane::{Outcome, Work as Slot};
use crate::model::Name;
use crate::store::StoreError;

/// How long a task waits that nobody has taken, at first; it doubles with each time.
const REFUSED: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// Who is fit is looked at so often.
const LOOK: Duration = Duration::from_secs(1);
const FORGET: Duration = Duration::from_secs(60);

impl Work {
    /// Hands tasks to instances, for ever. Attempts end with it.
    pub async fn run(self: &Arc<Self>, workers: Arc<dyn Workers>) -> Infallible {
        let _attempts = Attempts(self);
        tokio::select! {
            never = self.hand_out(&workers) => match never {},
            never = self.forget_forever() => match never {},
        }
    }

    async fn hand_out(self: &Arc<Self>, workers: &Arc<dyn Workers>) -> Infallible {
        loop {
            let next = self.start_those_due(workers);
            tokio::select! {
                () = tokio::time::sleep(next) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    async fn forget_forever(&self) -> Infallible {
        let mut tick = tokio::time::interval(FORGET);
        loop {
            tick.tick().await;
            self.forget().await;
        }
    }

    /// Begins the attempts whose turn has come; how long nothing else is due.
    fn start_those_due(self: &Arc<Self>, workers: &Arc<dyn Workers>) -> Duration {
        let (time, now) = (record::now(), self.nanos());
        let mut held = self.held();
        let Held { queue, paused, .. } = &mut *held;
        let mut rooms: HashMap<Name, Room> = HashMap::new();
        let room = |service: &Name| {
            let known = rooms.entry(service.clone());
            *known.or_insert_with(|| Room {
                limit: match paused.contains(service) {
                    true => 0,
                    false => workers.fit(service).iter().map(|one| one.tasks_max).sum(),
                },
                discipline: workers.discipline(service),
            })
        };
        for started in queue.start(time, now, room) {
            let id = started.id.clone();
            let attempt = Arc::clone(self).attempt(started, Arc::clone(workers));
            let abort = tokio::spawn(attempt).abort_handle();
            let running = Running {
                abort,
                instance: None,
            };
            held.running.insert(id, running);
        }
        for id in held.queue.take_late(time) {
            let work = Arc::clone(self);
            tokio::spawn(async move { work.expire(&id).await });
        }
        let next = held.queue.next();
        next.map_or(LOOK, |due| {
            Duration::from_millis(due.saturating_sub(time)).min(LOOK)
        })
    }

    /// Nobody has begun with it in time.
    async fn expire(&self, id: &Id) {
        let Ok((record, _)) = self.read(id).await else {
            return;
        };
        if let Err(error) = self.end(id, record, TaskState::Expired).await {
            tracing::warn!(task = &**id, %error, "That a task is too late could not be stored");
        }
    }

    async fn attempt(self: Arc<Self>, started: Started, workers: Arc<dyn Workers>) {
        let Started { id, service, work } = started;
        let mut slot = Slotted {
            work: &self,
            id: id.clone(),
            service,
            slot: Some(work),
            instance: None,
        };
        let record = self.read(&id).await.ok().map(|(record, _)| record);
        let Some(record) = record.filter(|record| !record.state.is_final()) else {
            // It was over before it was in the queue; or the store has failed, which ends the process.
            slot.finish(Outcome::Other);
            self.leave(&id);
            return;
        };
        let is_late = record
            .deadline()
            .is_some_and(|deadline| deadline <= record::now());
        let settled = match is_late {
            true => {
                slot.finish(Outcome::Other);
                self.end(&id, record, TaskState::Expired).await.map(drop)
            }
            false => {
                let (verdict, worker) = self.send(&record, &workers, &mut slot).await;
                slot.finish(match verdict {
                    Verdict::Done { .. } => Outcome::Done,
                    _ => Outcome::Other,
                });
                self.settle(&id, record, verdict, worker).await
            }
        };
        if let Err(error) = settled {
            tracing::warn!(task = &*id, %error, "The outcome of a task could not be stored; it will be tried again");
            self.try_later(&id);
        }
        self.changed.notify_one();
    }

    /// To one instance after another, until one has taken it.
    async fn send(
        &self,
        record: &Record,
        workers: &Arc<dyn Workers>,
        slot: &mut Slotted<'_>,
    ) -> (Verdict, Option<Worker>) {
        let mut tried = Vec::new();
        let mut last = Verdict::Refused {
            error: "no fit instance".to_owned(),
            after: None,
        };
        loop {
            let fit = workers.fit(&slot.service);
            let Some(worker) = slot.choose(fit, &tried) else {
                return (last, None);
            };
            let verdict = self.courier.send(&slot.id, record, &worker).await;
            if !matches!(verdict, Verdict::Refused { .. }) {
                return (verdict, Some(worker));
            }
            tried.push(Arc::clone(&worker.id));
            last = verdict;
        }
    }

    async fn settle(
        &self,
        id: &Id,
        mut record: Record,
        verdict: Verdict,
        worker: Option<Worker>,
    ) -> Result<(), StoreError> {
        record.instance = worker.map(|worker| worker.id.to_string());
        if !matches!(verdict, Verdict::Refused { .. }) {
            record.attempts += 1;
            self.counts.attempts.fetch_add(1, Ordering::Relaxed);
            self.held().refusals.remove(id);
        }
        match verdict {
            Verdict::Done { status, answer } => {
                record.status = Some(status);
                record.answer = Some(answer);
                record.error = None;
                self.end(id, record, TaskState::Done).await.map(drop)
            }
            Verdict::Hopeless { status, answer } => {
                record.status = Some(status);
                record.error = Some(format!("answered {status}"));
                record.answer = Some(answer);
                self.end(id, record, TaskState::Dead).await.map(drop)
            }
            Verdict::Failed {
                status,
                error,
                after,
            } => {
                record.status = status;
                record.error = Some(error);
                if record.attempts >= record.task.retry.attempts {
                    return self.end(id, record, TaskState::Dead).await.map(drop);
                }
                let backoff = record.backoff();
                let wait = backoff.wait(record.attempts, &mut fastrand::Rng::new());
                self.again(id, record, wait.max(after.unwrap_or_default()))
                    .await
            }
            Verdict::Refused { error, after } => {
                tracing::debug!(task = &**id, error, "No instance has taken a task");
                self.wait_for_somebody(id, &record, after);
                Ok(())
            }
        }
    }

    /// Nothing is written: it is as due as before.
    fn wait_for_somebody(&self, id: &Id, record: &Record, after: Option<Duration>) {
        let mut held = self.held();
        let refusals = held.refusals.entry(Arc::clone(id)).or_default();
        *refusals = refusals.saturating_add(1);
        let wait = REFUSED.wait(*refusals, &mut fastrand::Rng::new());
        let wait = wait.max(after.unwrap_or_default());
        let due = record::now() + wait.as_millis() as Millis;
        if held.queue.entry(id).is_some() {
            held.queue.schedule(Arc::clone(id), entry_of(record), due);
        }
    }

    fn try_later(&self, id: &Id) {
        let mut held = self.held();
        if let Some(entry) = held.queue.entry(id).cloned() {
            let due = record::now() + REFUSED.first.as_millis() as Millis;
            held.queue.schedule(Arc::clone(id), entry, due);
        }
    }
}

/// Breaks off what is under way when it is dropped.
struct Attempts<'w>(&'w Work);

impl Drop for Attempts<'_> {
    fn drop(&mut self) {
        for (_, running) in self.0.held().running.drain() {
            running.abort.abort();
        }
    }
}

/// An attempt's slot and instance, given back however it ends.
struct Slotted<'w> {
    work: &'w Work,
    id: Id,
    service: Arc<Name>,
    slot: Option<Slot>,
    instance: Option<Arc<str>>,
}

impl Slotted<'_> {
    fn choose(&mut self, fit: Vec<Worker>, tried: &[Arc<str>]) -> Option<Worker> {
        let mut held = self.work.held();
        if let Some(instance) = self.instance.take() {
            held.dispatched.end(&instance);
        }
        let worker = held.dispatched.choose(fit, tried)?;
        held.dispatched.begin(&worker.id);
        self.instance = Some(Arc::clone(&worker.id));
        if let Some(running) = held.running.get_mut(&self.id) {
            running.instance = Some(Arc::clone(&worker.id));
        }
        Some(worker)
    }

    /// The attempt is over, and not to be broken off any more.
    fn finish(&mut self, outcome: Outcome) {
        self.give_back(outcome);
        self.work.held().running.remove(&self.id);
    }

    fn give_back(&mut self, outcome: Outcome) {
        let now = self.work.nanos();
        let mut held = self.work.held();
        if let Some(slot) = self.slot.take() {
            held.queue.left(&self.service, slot, now, outcome);
        }
        if let Some(instance) = self.instance.take() {
            held.dispatched.end(&instance);
        }
    }
}

impl Drop for Slotted<'_> {
    fn drop(&mut self) {
        if self.slot.is_some() {
            // It was broken off.
            self.give_back(Outcome::Other);
            self.work.changed.notify_one();
        }
    }
}
