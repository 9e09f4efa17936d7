//! The lanes of this proxy, in front of its application and, by choice, in front of services that are called, shared by all workers:
//! each a [`crate::lane::Lane`] behind a lock, and its slots beside it.
//!
//! A request that finds a slot free and nobody waiting takes it by one compare-and-swap. Only the queue takes the lock, for as long
//! as it takes to decide; those who wait are woken on whatever worker they are. What a request holds is a guard: a [`Slot`] until
//! its answer's last byte, a [`Place`] while it waits. Dropping either, however the exchange ends, gives it back.
//!
//! It leaves out the client: what it is told, and how it is noticed that it has left, is [`super::http::admission`].

mod asked;
mod report;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

pub use asked::{Asked, class_of};
pub use report::LaneReport;

use self::report::Counts;
use super::cluster::nanos;
use crate::base::cidr::Cidr;
use crate::lane::{self, Id, Item, Outcome, Popped, Pushed, Reason, Refusal, Slots, Work};
use crate::model::{self, Class, Name};
use crate::telemetry::metrics::Registry;

/// A lane as the requests of one routing meet it.
#[derive(Clone)]
pub struct Lane {
    shared: Arc<Shared>,
    /// The field that names the tenant.
    tenant: Option<Arc<str>>,
    class_from: Arc<[Cidr]>,
}

/// What goes on over a change of settings.
struct Shared {
    side: Side,
    /// `namespace/name` of its service, and the side where it is not the usual one.
    label: Arc<str>,
    slots: Arc<Slots>,
    queue: Mutex<lane::Lane<Arc<Waiter>>>,
    counts: Counts,
    /// Tenants are hashed with a seed that nobody outside knows.
    seed: foldhash::quality::RandomState,
}

/// Whose requests a lane orders.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Side {
    /// Those to the application beside this proxy.
    Inbound,
    /// Those to a service, from here.
    Outbound,
}

/// Every lane of this process. Cloning gives another handle to the same.
#[derive(Clone, Default)]
pub struct Lanes(Arc<Mutex<Table>>);

type Table = HashMap<(Name, Side), Arc<Shared>>;

impl Lanes {
    /// The lane of a service, with these settings from now on.
    pub fn set(&self, service: &Name, side: Side, settings: &model::Lane, now: Instant) -> Lane {
        let mut lanes = self.lock();
        let shared = lanes.entry((service.clone(), side)).or_insert_with(|| {
            let queue = lane::Lane::new(settings.clone(), nanos(now));
            Arc::new(Shared {
                side,
                label: label(service, side),
                slots: queue.slots().clone(),
                queue: Mutex::new(queue),
                counts: Counts::default(),
                seed: foldhash::quality::RandomState::default(),
            })
        });
        shared.set(settings, now);
        Lane {
            shared: shared.clone(),
            tenant: settings.tenant.clone(),
            class_from: settings.class_from.as_slice().into(),
        }
    }

    /// Forgets lanes of services that have none any more. Requests that hold or await a slot of theirs end as they began.
    pub fn retain(&self, mut keep: impl FnMut(&Name, Side) -> bool) {
        self.lock()
            .retain(|(service, side), _| keep(service, *side));
    }

    pub fn register_metrics(&self, metrics: &Registry) {
        let lanes = self.clone();
        metrics.collect(move |scrape| lanes.report().iter().for_each(|lane| lane.collect(scrape)));
    }

    /// Every lane as it is now, by name.
    pub fn report(&self) -> Vec<LaneReport> {
        let lanes: Vec<_> = self.lock().values().cloned().collect();
        let mut reports: Vec<_> = lanes.iter().map(|lane| lane.report()).collect();
        reports.sort_by(|a, b| a.service.cmp(&b.service));
        reports
    }

    /// Nothing that is done under the lock leaves the table half changed.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One service may have both.
fn label(service: &Name, side: Side) -> Arc<str> {
    match side {
        Side::Inbound => service.to_string(),
        Side::Outbound => format!("{service} (outbound)"),
    }
    .into()
}

/// How a request begins at a lane.
pub enum Entered {
    Slot(Slot),
    Place(Place),
    Refused(Refusal),
}

impl Lane {
    /// Its service, for answers.
    pub fn label(&self) -> &str {
        &self.shared.label
    }

    /// The least important class that gets anywhere, where not everybody does.
    pub fn admits(&self, now: Instant) -> Option<Class> {
        self.shared.slots.word().admits(nanos(now))
    }

    /// A slot where one is free and nobody waits, or else a place in the queue, where there is room.
    pub fn enter(&self, asked: Asked, now: Instant) -> Entered {
        let now = nanos(now);
        let in_time = asked.deadline.is_none_or(|deadline| deadline > now);
        if in_time && self.shared.slots.try_enter() {
            self.shared.counts.admitted(asked.class);
            let work = Work::unqueued(asked.class, asked.tenant, now);
            return Entered::Slot(Slot::new(&self.shared, work));
        }
        self.queue(asked, now)
    }

    #[cold]
    fn queue(&self, asked: Asked, now: lane::Nanos) -> Entered {
        let shared = &self.shared;
        let waiter = Arc::new(Waiter::default());
        let item = Item {
            class: asked.class,
            tenant: asked.tenant,
            deadline: asked.deadline,
            payload: waiter.clone(),
        };
        let mut queue = shared.lock();
        let patience = queue.settings().queue_timeout;
        match queue.push(now, item) {
            Pushed::Started(work, _) => {
                drop(queue);
                shared.counts.admitted(asked.class);
                Entered::Slot(Slot::new(shared, work))
            }
            Pushed::Queued { id, displaced } => {
                let displaced = displaced
                    .and_then(|(refusal, waiter)| waiter.decide(Verdict::Refused(refusal)));
                // A slot may have come free, or more of them, while this one was on its way into the queue.
                let woken = shared.let_in(queue, now);
                woken.into_iter().chain(displaced).for_each(Waker::wake);
                Entered::Place(Place {
                    shared: shared.clone(),
                    waiter: Some(waiter),
                    class: asked.class,
                    id,
                    patience,
                })
            }
            Pushed::Refused(refusal, _) => {
                drop(queue);
                shared.counts.refused(asked.class, refusal.reason);
                Entered::Refused(refusal)
            }
        }
    }
}

type Woken = SmallVec<[Waker; 4]>;

impl Shared {
    fn set(&self, settings: &model::Lane, now: Instant) {
        let now = nanos(now);
        let mut queue = self.lock();
        if queue.settings() != settings {
            queue.set(now, settings.clone());
            // There may be more slots than before.
            self.let_in(queue, now).into_iter().for_each(Waker::wake);
        }
    }

    /// A slot is given back, and the next let in.
    fn leave(&self, work: Work, outcome: Outcome) {
        let now = nanos(Instant::now());
        let queue = match self.slots.leave() {
            true => self.lock(),
            // Nobody waits: what this one took is noted where that costs no waiting.
            false => match self.queue.try_lock() {
                Ok(queue) => queue,
                Err(_) => return,
            },
        };
        let mut queue = queue;
        queue.settle(now, work, outcome);
        self.let_in(queue, now).into_iter().for_each(Waker::wake);
    }

    /// Gives free slots to those who wait. They are to be woken when the lock is not held any more.
    fn let_in(
        &self,
        mut queue: MutexGuard<'_, lane::Lane<Arc<Waiter>>>,
        now: lane::Nanos,
    ) -> Woken {
        let mut woken = Woken::new();
        while let Some(popped) = queue.pop(now) {
            woken.extend(match popped {
                Popped::Started(work, waited, waiter) => {
                    self.counts.waited(Duration::from_nanos(waited));
                    waiter.decide(Verdict::Started(work))
                }
                Popped::Dropped(refusal, waiter) => waiter.decide(Verdict::Refused(refusal)),
            });
        }
        let switch = queue.take_switch();
        drop(queue);
        if let Some(switch) = switch {
            let discipline = switch.to.as_str();
            tracing::info!(service = %self.label, discipline, reason = switch.reason, "Lane changes its discipline");
        }
        woken
    }

    /// The discipline keeps its books in order at every step, so that a panic elsewhere has not left them half written.
    fn lock(&self) -> MutexGuard<'_, lane::Lane<Arc<Waiter>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of a lane's slots. Dropping it gives the slot to the next, and says nothing good of how long it took.
#[must_use = "dropping the slot gives it back"]
pub struct Slot {
    shared: Arc<Shared>,
    work: Option<Work>,
}

impl Slot {
    fn new(shared: &Arc<Shared>, work: Work) -> Self {
        Self {
            shared: shared.clone(),
            work: Some(work),
        }
    }

    /// The answer has ended as it should.
    pub fn done(mut self) {
        self.give_back(Outcome::Done);
    }

    fn give_back(&mut self, outcome: Outcome) {
        if let Some(work) = self.work.take() {
            self.shared.leave(work, outcome);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.give_back(Outcome::Other);
    }
}

/// A place in a lane's queue. Dropping it gives the place up, or the slot that it has just got.
#[must_use = "dropping the place leaves the queue"]
pub struct Place {
    shared: Arc<Shared>,
    /// None once it has been decided.
    waiter: Option<Arc<Waiter>>,
    class: Class,
    id: Id,
    /// The longest it may wait.
    pub patience: Duration,
}

impl Place {
    /// Ready with the slot, or with why there will be none.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Slot, Refusal>> {
        let verdict = self.waiter.as_ref().and_then(|waiter| waiter.poll(cx));
        match verdict {
            Some(verdict) => Poll::Ready(self.decided(verdict)),
            None => Poll::Pending,
        }
    }

    /// It will not wait any longer for this reason, unless its turn has come at this very moment.
    pub fn expire(mut self, reason: Reason) -> Result<Slot, Refusal> {
        let mut queue = self.shared.lock();
        let (refusal, left) = queue.expire(self.class, self.id, reason);
        drop(queue);
        match left.map_or_else(|| self.verdict(), |_| None) {
            Some(verdict) => self.decided(verdict),
            None => self.decided(Verdict::Refused(refusal)),
        }
    }

    fn decided(&mut self, verdict: Verdict) -> Result<Slot, Refusal> {
        self.waiter = None;
        match verdict {
            Verdict::Started(work) => {
                self.shared.counts.admitted(self.class);
                Ok(Slot::new(&self.shared, work))
            }
            Verdict::Refused(refusal) => {
                self.shared.counts.refused(self.class, refusal.reason);
                Err(refusal)
            }
        }
    }

    fn verdict(&self) -> Option<Verdict> {
        self.waiter.as_ref()?.lock().verdict.take()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.waiter.is_none() {
            return;
        }
        let left = self.shared.lock().leave(self.class, self.id).is_some();
        if !left && let Some(Verdict::Started(work)) = self.verdict() {
            drop(Slot::new(&self.shared, work));
        }
        self.shared.counts.left();
    }
}

/// What a task that waits and whoever decides about it share. It is decided under the queue's lock, so that whoever leaves the
/// queue finds either itself there or the verdict here.
#[derive(Default)]
struct Waiter(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    verdict: Option<Verdict>,
    waker: Option<Waker>,
}

enum Verdict {
    Started(Work),
    Refused(Refusal),
}

impl Waiter {
    /// Whom to wake.
    fn decide(&self, verdict: Verdict) -> Option<Waker> {
        let mut waiting = self.lock();
        waiting.verdict = Some(verdict);
        waiting.waker.take()
    }

    fn poll(&self, cx: &mut Context<'_>) -> Option<Verdict> {
        let mut waiting = self.lock();
        let verdict = waiting.verdict.take();
        if verdict.is_none() {
            waiting.waker = Some(cx.waker().clone());
        }
        verdict
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
