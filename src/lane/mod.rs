//! The queue in front of a service as a pure discipline: who gets a slot, who waits, who is refused, and why.
//!
//! The same for a request of 3 ms in a sidecar's memory and for a task of 3 h: it knows no clock and does no IO. Callers pass the
//! time in, as nanoseconds that do not run backwards, and whatever they want back as the payload. Work comes by
//! [`Lane::push`], is let in by [`Lane::pop`] and gives its slot back by [`Lane::finish`]. A caller that shares a lane between
//! threads puts it behind a lock and keeps its [`Slots`] beside that: taking one while nobody waits is one compare-and-swap,
//! and only the queue needs the lock.
//!
//! The order is a [`Discipline`]: arrival; or the class, and in it the tenants in turn; or the class, and in it the tenants that
//! have had the least service lately. Who would starve gets a share counted in slot-seconds ([`floor`]), and as
//! large a share of the queue's places, to be there for it. A deadline that cannot be met refuses at once, and again when its turn
//! comes. When the queue is full, the newest of the lowest class below the arrival's has to go, or else the newest of a tenant that holds more of the queue. A class that gets nowhere for it is told to stay
//! away ([`level`]).
//!
//! It leaves out what a refusal looks like to a client, waking those who wait, and timers: whoever waits watches its own time, and
//! takes itself out by [`Lane::leave`].

mod adaptive;
mod auto;
mod band;
mod floor;
mod level;
mod refusal;
mod slots;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use auto::Switch;
pub use band::TENANTS_MAX;
pub use level::{HOLDS, Word};
pub use refusal::{Reason, Refusal};
pub use slots::{SLOTS_MAX, Slots};

use self::adaptive::Adaptive;
use self::auto::Auto;
use self::band::{Average, Band, Entry, LEVELS, nanos};
use self::level::Level;
use crate::model::{self, Class, Discipline, LaneLimit};

/// A time on the caller's clock, or a length of time.
pub type Nanos = u64;

/// A place in the queue; later ones are greater.
pub type Id = u64;

const SECOND: Nanos = 1_000_000_000;

/// What wants a slot.
#[derive(Debug)]
pub struct Item<T> {
    pub class: Class,
    /// A hash of whoever it is for, with a seed that nobody outside knows.
    pub tenant: u64,
    /// When it has to be done; None is never.
    pub deadline: Option<Nanos>,
    pub payload: T,
}

/// What holds a slot. Give it to [`Lane::finish`].
#[derive(Debug)]
#[must_use = "its slot is taken until it is finished"]
pub struct Work {
    class: Class,
    tenant: u64,
    started: Nanos,
    /// Slot-time that was charged for it when its turn came; None where it did not have to wait.
    charged: Option<Nanos>,
    level: usize,
}

impl Work {
    /// Of something that took a slot without waiting, by [`Slots::try_enter`].
    pub fn unqueued(class: Class, tenant: u64, started: Nanos) -> Self {
        Self {
            class,
            tenant,
            started,
            charged: None,
            level: 0,
        }
    }

    pub fn class(&self) -> Class {
        self.class
    }
}

/// How work ended, as far as its lane is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Done,
    /// Failed, or given up: the time it took says nothing of the next.
    Other,
}

#[derive(Debug)]
pub enum Pushed<T> {
    /// It has a slot.
    Started(Work, T),
    /// It waits, in the place of another that was refused for it where the queue was full.
    Queued {
        id: Id,
        displaced: Option<(Refusal, T)>,
    },
    Refused(Refusal, T),
}

#[derive(Debug)]
pub enum Popped<T> {
    /// It has a slot after waiting for so long.
    Started(Work, Nanos, T),
    /// It has waited in vain.
    Dropped(Refusal, T),
}

pub struct Lane<T> {
    settings: model::Lane,
    slots: Arc<Slots>,
    /// By class, the most important first.
    bands: [Band<T>; Class::COUNT],
    queued: usize,
    next_id: Id,
    auto: Option<Auto>,
    adaptive: Option<Adaptive>,
    level: Level,
    service: Average,
    /// Slot-time that was used since `second`.
    used: Nanos,
    /// When the second under way began.
    second: Nanos,
    switch: Option<Switch>,
    /// The reason of the last change.
    why: Option<String>,
    /// To `mlfq`, and back to `fifo`.
    switches: [u64; 2],
}

impl<T> Lane<T> {
    pub fn new(settings: model::Lane, now: Nanos) -> Self {
        let mut lane = Self {
            slots: Arc::new(Slots::new(adaptive::INITIAL)),
            bands: Class::ALL.map(|class| {
                let floors = &settings.floors;
                Band::new(floor_percent(&settings, class), floors.lowest_level_percent)
            }),
            queued: 0,
            next_id: 0,
            auto: None,
            adaptive: None,
            level: Level::new(now),
            service: Average::default(),
            used: 0,
            second: now,
            switch: None,
            why: None,
            switches: [0; 2],
            settings: settings.clone(),
        };
        lane.set(now, settings);
        lane
    }

    /// Takes new settings over. What holds a slot or waits goes on.
    pub fn set(&mut self, now: Nanos, settings: model::Lane) {
        let before = self.discipline();
        self.settings = settings;
        self.adaptive = match self.settings.limit {
            LaneLimit::Fixed(_) => None,
            LaneLimit::Adaptive => self.adaptive.take().or_else(|| Some(Adaptive::new(now))),
        };
        self.auto = (self.settings.discipline == Discipline::Auto)
            .then(|| self.auto.take().unwrap_or_default());
        for (class, band) in Class::ALL.into_iter().zip(&mut self.bands) {
            let lowest = self.settings.floors.lowest_level_percent;
            band.floor.set(floor_percent(&self.settings, class), now);
            band.lowest.set(lowest, now);
        }
        self.slots.set_limit(self.limit());
        if self.discipline() != before {
            self.file_all();
        }
    }

    /// To be shared with those who take a slot without the lane.
    pub fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }

    pub fn settings(&self) -> &model::Lane {
        &self.settings
    }

    /// The discipline in effect; never `Auto`.
    pub fn discipline(&self) -> Discipline {
        match &self.auto {
            Some(auto) => auto.current(),
            None => self.settings.discipline,
        }
    }

    pub fn queued(&self) -> usize {
        self.queued
    }

    /// How many of a class wait.
    pub fn queued_of(&self, class: Class) -> usize {
        self.bands[class as usize].len()
    }

    /// How often `auto` has changed the discipline: to `mlfq` for a long queue, and back to `fifo` for want of one.
    pub fn switches(&self) -> [u64; 2] {
        self.switches
    }

    /// Why `auto` has last changed it.
    pub fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// The last change of discipline, once.
    pub fn take_switch(&mut self) -> Option<Switch> {
        self.switch.take()
    }

    /// Something has arrived.
    pub fn push(&mut self, now: Nanos, item: Item<T>) -> Pushed<T> {
        self.pass(now);
        if item.deadline.is_some_and(|deadline| deadline <= now) {
            return self.refused(Reason::Deadline, item);
        }
        if self.queued == 0 && self.enter() {
            return Pushed::Started(Work::unqueued(item.class, item.tenant, now), item.payload);
        }
        let (tenant, cost) = self.bands[item.class as usize].expect(item.tenant);
        if let Some(deadline) = item.deadline {
            let wait = self.expected_wait(item.class, tenant, cost);
            if now.saturating_add(wait).saturating_add(cost) > deadline {
                return self.refused(Reason::Deadline, item);
            }
        }
        let displaced = match self.make_room(&item, tenant) {
            Ok(displaced) => displaced,
            Err(reason) => {
                self.level.refused(item.class);
                return self.refused(reason, item);
            }
        };
        let id = self.next_id;
        self.next_id += 1;
        let entry = Entry {
            tenant,
            arrived: now,
            deadline: item.deadline,
            cost,
            payload: item.payload,
        };
        let levelled = self.is_levelled();
        self.bands[item.class as usize].push(id, entry, levelled);
        self.queued += 1;
        let slots = self.slots.limit();
        let switch = self.auto.as_mut();
        let switch = switch.and_then(|auto| auto.queued(self.queued, slots));
        self.switched(switch);
        Pushed::Queued { id, displaced }
    }

    /// Lets the next in, where a slot is free; or drops one that has waited in vain. None: nobody waits, or there is no slot.
    pub fn pop(&mut self, now: Nanos) -> Option<Popped<T>> {
        if self.queued == 0 || !self.slots.try_enter_waiting() {
            return None;
        }
        self.pass(now);
        let chosen = self.choose(now);
        let chosen =
            chosen.and_then(|(class, id, level)| Some((class, level, self.remove(class, id)?)));
        let Some((class, level, entry)) = chosen else {
            // Somebody waits, so somebody is chosen; if not, a slot must not be lost for it.
            self.slots.leave();
            return None;
        };
        if let Some(reason) = self.expired(&entry, now) {
            self.slots.leave();
            self.level.refused(class);
            return Some(Popped::Dropped(self.refusal(reason), entry.payload));
        }
        self.level.let_in(class);
        let wait = now.saturating_sub(entry.arrived);
        self.charge(class, entry.tenant, level, entry.cost as i64);
        self.bands[class as usize].pay(entry.tenant, entry.cost);
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.waited(wait);
        }
        let work = Work {
            class,
            tenant: entry.tenant,
            started: now,
            charged: Some(entry.cost),
            level,
        };
        Some(Popped::Started(work, wait, entry.payload))
    }

    /// Takes something out that will not wait any longer. None where its turn has come, or it has been dropped.
    pub fn leave(&mut self, class: Class, id: Id) -> Option<T> {
        Some(self.remove(class, id)?.payload)
    }

    /// The same for something that has waited in vain, and what to say to it.
    pub fn expire(&mut self, class: Class, id: Id, reason: Reason) -> (Refusal, Option<T>) {
        let refusal = self.refusal(reason);
        let left = self.leave(class, id);
        if left.is_some() {
            self.level.refused(class);
        }
        (refusal, left)
    }

    /// Gives the slot back and settles.
    pub fn finish(&mut self, now: Nanos, work: Work, outcome: Outcome) {
        self.slots.leave();
        self.settle(now, work, outcome);
    }

    /// Takes into account how long something took that has given its slot back by [`Slots::leave`].
    pub fn settle(&mut self, now: Nanos, work: Work, outcome: Outcome) {
        self.seconds(now);
        self.tell(now);
        if self.queued > 0 {
            self.accrue(now);
        }
        let service = now.saturating_sub(work.started);
        self.used = self.used.saturating_add(service);
        let Work {
            class,
            tenant,
            charged,
            level,
            ..
        } = work;
        let rest = service as i64 - charged.unwrap_or(0) as i64;
        match charged {
            Some(_) => self.charge(class, tenant, level, rest),
            None => {
                self.level.let_in(class);
                self.bands[class as usize].charge(tenant, rest);
            }
        }
        if outcome == Outcome::Other {
            return;
        }
        self.service.observe(service);
        self.bands[class as usize].observe(tenant, service);
        if let Some(adaptive) = &mut self.adaptive
            && adaptive.served(now, service)
        {
            self.slots.set_limit(adaptive.limit());
        }
    }

    /// What to say to somebody who has waited in vain, or for whom there was no room.
    pub fn refusal(&self, reason: Reason) -> Refusal {
        let work = self.bands.iter().map(Band::work).sum::<Nanos>();
        Refusal::new(reason, work / self.slots_at_least_one())
    }

    fn refused(&self, reason: Reason, item: Item<T>) -> Pushed<T> {
        self.slots.set_waiting(self.queued > 0);
        Pushed::Refused(self.refusal(reason), item.payload)
    }

    /// Nobody waits. Whoever gives a slot back from now on must know that somebody may be about to.
    fn enter(&mut self) -> bool {
        self.slots.set_waiting(true);
        let entered = self.slots.try_enter_waiting();
        if entered {
            self.slots.set_waiting(false);
        }
        entered
    }

    fn limit(&self) -> u32 {
        match (&self.adaptive, self.settings.limit) {
            (Some(adaptive), _) => adaptive.limit(),
            (None, LaneLimit::Fixed(limit)) => limit,
            (None, LaneLimit::Adaptive) => adaptive::INITIAL,
        }
    }

    fn slots_at_least_one(&self) -> Nanos {
        Nanos::from(self.slots.limit().max(1))
    }

    fn is_levelled(&self) -> bool {
        self.discipline() == Discipline::Mlfq
    }

    /// Until a slot is free for it, by what those before it are expected to take.
    fn expected_wait(&self, class: Class, tenant: u64, cost: Nanos) -> Nanos {
        let work = match self.discipline() {
            Discipline::Fifo => self.bands.iter().map(Band::work).sum(),
            _ => {
                let above = &self.bands[..class as usize];
                let above: Nanos = above.iter().map(Band::work).sum();
                let levelled = self.is_levelled();
                above + self.bands[class as usize].work_before(tenant, cost, levelled)
            }
        };
        (work + self.service.get().unwrap_or(0)) / self.slots_at_least_one()
    }

    /// A place in the queue; the payload of what had to go for it, where it was full.
    fn make_room(&mut self, item: &Item<T>, tenant: u64) -> Result<Option<(Refusal, T)>, Reason> {
        if self.queued < self.settings.queue_max as usize {
            return Ok(None);
        }
        if !self.goes_by_class() {
            return Err(Reason::Full);
        }
        let own = || self.bands[item.class as usize].newest_of_longest(tenant);
        let (class, id, reason) = match self.gives_way(item.class) {
            Some((class, id)) if class > item.class => (class, id, Reason::Class),
            Some((class, id)) => (class, id, Reason::Full),
            None => (item.class, own().ok_or(Reason::Full)?, Reason::Tenant),
        };
        let refusal = self.refusal(reason);
        let displaced = self.bands[class as usize].remove(id);
        if reason != Reason::Tenant {
            self.level.refused(class);
        }
        // The one that it makes room for waits in its place, so that somebody waits all the time.
        self.queued -= usize::from(displaced.is_some());
        Ok(displaced.map(|entry| (refusal, entry.payload)))
    }

    /// Who has to go for something of this class: the newest of the lowest class below it, or of any other class while its own has
    /// fewer places than are its due.
    fn gives_way(&self, to: Class) -> Option<(Class, Id)> {
        let is_due = self.queued_of(to) < self.places_due(to);
        let mut lowest_first = Class::ALL.into_iter().rev();
        let class = lowest_first.find(|class| {
            let spare = self.queued_of(*class) > self.places_due(*class);
            spare && (*class > to || is_due && *class != to)
        })?;
        Some((class, self.bands[class as usize].newest()?))
    }

    /// Who is owed a share of the time has to be there when it is given: as large a share of the queue's places, one at least; but
    /// not more than a quarter of a short queue, so that what matters more finds room.
    fn places_due(&self, class: Class) -> usize {
        let places = self.settings.queue_max as usize;
        let percent = usize::from(floor_percent(&self.settings, class));
        (places * percent).div_ceil(100).min(places / 4)
    }

    /// Who is next, and the level it was found at.
    fn choose(&mut self, now: Nanos) -> Option<(Class, Id, usize)> {
        if self.discipline() == Discipline::Fifo {
            let oldest = |class: Class| Some((self.bands[class as usize].oldest()?, class));
            let (id, class) = Class::ALL.into_iter().filter_map(oldest).min()?;
            return Some((class, id, 0));
        }
        let levelled = self.is_levelled();
        let waits = |class: &Class| !self.bands[*class as usize].is_empty();
        let owed = |class: &Class| self.bands[*class as usize].is_owed();
        let mut lowest_first = Class::ALL.into_iter().rev();
        let class = lowest_first
            .find(owed)
            .or_else(|| Class::ALL.into_iter().find(waits))?;
        let band = &mut self.bands[class as usize];
        let (tenant, level) = band.choose(levelled)?;
        let id = band.next_of(tenant, now, self.settings.queue_timeout)?;
        Some((class, id, level))
    }

    fn remove(&mut self, class: Class, id: Id) -> Option<Entry<T>> {
        let entry = self.bands[class as usize].remove(id)?;
        self.queued -= 1;
        if self.queued == 0 {
            self.slots.set_waiting(false);
        }
        Some(entry)
    }

    fn expired(&self, entry: &Entry<T>, now: Nanos) -> Option<Reason> {
        let late = |deadline: Nanos| now.saturating_add(entry.cost) > deadline;
        if entry.deadline.is_some_and(late) {
            return Some(Reason::Deadline);
        }
        let waited = now.saturating_sub(entry.arrived);
        (waited >= nanos(self.settings.queue_timeout)).then_some(Reason::Timeout)
    }

    fn charge(&mut self, class: Class, tenant: u64, level: usize, nanos: i64) {
        let band = &mut self.bands[class as usize];
        band.charge(tenant, nanos);
        band.floor.charge(nanos);
        if level == LEVELS - 1 {
            band.lowest.charge(nanos);
        }
    }

    /// Time has passed, in which the queue was as it is now.
    fn pass(&mut self, now: Nanos) {
        self.accrue(now);
        self.seconds(now);
        self.tell(now);
    }

    /// Callers hear of it from those who hold a slot, who need not take the lock for it.
    fn tell(&mut self, now: Nanos) {
        if let Some(admits) = self.level.pass(now)
            && self.goes_by_class()
        {
            self.slots.word().say(admits, now);
        }
    }

    /// Whether the class makes a difference to what a full lane refuses.
    fn goes_by_class(&self) -> bool {
        self.settings.queue_max > 0 && self.discipline() != Discipline::Fifo
    }

    /// Those who wait are owed their share. While nobody does there is nothing to add up before somebody comes.
    fn accrue(&mut self, now: Nanos) {
        let slots = self.slots.limit();
        for band in &mut self.bands {
            band.accrue(now, slots);
        }
    }

    /// What is done once a second.
    fn seconds(&mut self, now: Nanos) {
        let slots = self.slots.limit();
        let passed = now.saturating_sub(self.second);
        if passed < SECOND {
            return;
        }
        let seconds = passed / SECOND;
        self.second += seconds * SECOND;
        let levelled = self.is_levelled();
        let times = u32::try_from(seconds).unwrap_or(u32::MAX);
        for band in &mut self.bands {
            band.halve(times, levelled);
        }
        let load =
            std::mem::take(&mut self.used) as f64 / (passed as f64 * f64::from(slots.max(1)));
        let switch = self.auto.as_mut();
        let switch = switch.and_then(|auto| auto.passed(seconds, load, self.queued, slots));
        self.switched(switch);
    }

    fn switched(&mut self, switch: Option<Switch>) {
        if let Some(switch) = switch {
            self.switches[usize::from(switch.to == Discipline::Fifo)] += 1;
            self.why = Some(switch.reason.clone());
            self.switch = Some(switch);
            self.file_all();
        }
    }

    fn file_all(&mut self) {
        let levelled = self.is_levelled();
        for band in &mut self.bands {
            band.file_all(levelled);
        }
    }
}

fn floor_percent(settings: &model::Lane, class: Class) -> u8 {
    match class {
        Class::Critical | Class::Default => 0,
        Class::Batch => settings.floors.batch_percent,
        Class::BestEffort => settings.floors.best_effort_percent,
    }
}
