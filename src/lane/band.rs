//! Those of one class who wait: by tenant, and the tenants in turn, by level.
//!
//! Within a level the turns follow deficit round robin (Shreedhar and Varghese, 1995) over service time: each round gives every
//! tenant as much time as one piece of work takes on average, and a tenant is served once what it has saved pays for its next one.
//! The level is attained service, as in a multilevel feedback queue (Corbató, 1962), of the tenant and not of the piece of work,
//! because a request cannot be interrupted; it is halved each second, which is what brings a tenant up again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::floor::Floor;
use super::{Id, Nanos};

/// Tenants of a class that are told apart; all further ones count as one.
pub const TENANTS_MAX: usize = 1_024;

pub const LEVELS: usize = 4;

/// Attained service at which a tenant leaves each level but the last: 50 ms, 200 ms, 800 ms of slot-time.
const QUANTA: [Nanos; LEVELS - 1] = [50_000_000, 200_000_000, 800_000_000];

/// The tenant that all beyond [`TENANTS_MAX`] count as.
const OTHERS: u64 = 0;

/// What is not known to take longer counts as this much.
const COST_MIN: Nanos = 1_000;

/// An idle tenant with less attained service than this is forgotten.
const FORGOTTEN: Nanos = 1_000_000;

/// One piece of work that waits.
#[derive(Debug)]
pub struct Entry<T> {
    pub tenant: u64,
    pub arrived: Nanos,
    pub deadline: Option<Nanos>,
    /// Slot-time that it is expected to take.
    pub cost: Nanos,
    pub payload: T,
}

pub struct Band<T> {
    /// In the order of arrival, since ids grow.
    entries: BTreeMap<Id, Entry<T>>,
    /// Tenants are hashes already, so that theirs need no seed.
    flows: HashMap<u64, Flow, FixedState>,
    /// Tenants that may have something waiting, by level. One that has not is taken out when its turn comes.
    rings: [VecDeque<u64>; LEVELS],
    /// Slot-time that those who wait are expected to take.
    work: Nanos,
    /// An average piece of work of the class.
    mean: Average,
    /// What a round gives each tenant; the same for a second, since it would favour somebody to change it within a round.
    quantum: Nanos,
    pub floor: Floor,
    /// Of the lowest level.
    pub lowest: Floor,
}

/// One tenant.
#[derive(Debug, Default)]
struct Flow {
    ids: VecDeque<Id>,
    work: Nanos,
    /// Slot-time had lately.
    attained: Nanos,
    cost: Average,
    /// Slot-time saved for its next turn.
    deficit: Nanos,
    /// It is in a ring.
    filed: bool,
}

/// A moving average of durations; each sample counts an eighth.
#[derive(Clone, Copy, Debug, Default)]
pub struct Average(Option<Nanos>);

impl Average {
    pub fn observe(&mut self, sample: Nanos) {
        self.0 = Some(match self.0 {
            None => sample,
            Some(average) => average - average / 8 + sample / 8,
        });
    }

    pub fn get(self) -> Option<Nanos> {
        self.0
    }
}

impl Flow {
    fn level(&self, levelled: bool) -> usize {
        match levelled {
            true => QUANTA.partition_point(|quantum| *quantum <= self.attained),
            false => 0,
        }
    }
}

impl<T> Band<T> {
    pub fn new(floor_percent: u8, lowest_percent: u8) -> Self {
        Self {
            entries: BTreeMap::new(),
            flows: HashMap::default(),
            rings: Default::default(),
            work: 0,
            mean: Average::default(),
            quantum: COST_MIN,
            floor: Floor::new(floor_percent),
            lowest: Floor::new(lowest_percent),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Tenants that are told apart at the moment.
    #[cfg(test)]
    pub fn tenants(&self) -> usize {
        self.flows.len()
    }

    pub fn work(&self) -> Nanos {
        self.work
    }

    pub fn oldest(&self) -> Option<Id> {
        self.entries.first_key_value().map(|(id, _)| *id)
    }

    pub fn newest(&self) -> Option<Id> {
        self.entries.last_key_value().map(|(id, _)| *id)
    }

    /// The tenant as it is known here, and the slot-time that its next piece of work is expected to take.
    pub fn expect(&mut self, tenant: u64) -> (u64, Nanos) {
        let known = self.flow(tenant).0;
        let flow = self.flows.get(&known).and_then(|flow| flow.cost.get());
        (known, flow.or(self.mean.get()).unwrap_or(0).max(COST_MIN))
    }

    pub fn push(&mut self, id: Id, entry: Entry<T>, levelled: bool) {
        let cost = entry.cost;
        self.work += cost;
        let (tenant, flow) = self.flow(entry.tenant);
        flow.ids.push_back(id);
        flow.work += cost;
        if !flow.filed {
            flow.filed = true;
            let level = flow.level(levelled);
            self.rings[level].push_back(tenant);
        }
        self.entries.insert(id, Entry { tenant, ..entry });
    }

    pub fn remove(&mut self, id: Id) -> Option<Entry<T>> {
        let entry = self.entries.remove(&id)?;
        self.work = self.work.saturating_sub(entry.cost);
        if let Some(flow) = self.flows.get_mut(&entry.tenant) {
            flow.work = flow.work.saturating_sub(entry.cost);
            if let Ok(place) = flow.ids.binary_search(&id) {
                flow.ids.remove(place);
            }
            if flow.ids.is_empty() {
                flow.deficit = 0;
            }
        }
        Some(entry)
    }

    /// Whose turn it is, and whether only because the lowest level is owed time.
    pub fn choose(&mut self, levelled: bool) -> Option<(u64, usize)> {
        let lowest = LEVELS - 1;
        if levelled
            && self.lowest.is_owed(self.cost())
            && let Some(tenant) = self.turn(lowest, levelled)
        {
            return Some((tenant, lowest));
        }
        (0..LEVELS).find_map(|level| Some((self.turn(level, levelled)?, level)))
    }

    /// Time has passed, in which those who wait now have waited.
    pub fn accrue(&mut self, now: Nanos, slots: u32) {
        self.floor.accrue(now, slots, !self.entries.is_empty());
        let deepest = &self.rings[LEVELS - 1];
        self.lowest.accrue(now, slots, !deepest.is_empty());
    }

    /// The class is owed time.
    pub fn is_owed(&self) -> bool {
        !self.is_empty() && self.floor.is_owed(self.cost())
    }

    /// Of an average piece of work.
    fn cost(&self) -> Nanos {
        self.mean.get().unwrap_or(0).max(COST_MIN)
    }

    /// The next of a tenant: the oldest, or the newest once the oldest has waited for longer than `patience`, since it will
    /// hardly be served in time any more. What has expired comes out first.
    pub fn next_of(&self, tenant: u64, now: Nanos, patience: Duration) -> Option<Id> {
        let ids = &self.flows.get(&tenant)?.ids;
        let oldest = *ids.front()?;
        let waited = now.saturating_sub(self.entries.get(&oldest)?.arrived);
        let patience = nanos(patience);
        match waited > patience / 2 && waited < patience {
            true => ids.back().copied(),
            false => Some(oldest),
        }
    }

    /// The tenant pays for its turn out of what it has saved.
    pub fn pay(&mut self, tenant: u64, cost: Nanos) {
        if let Some(flow) = self.flows.get_mut(&tenant) {
            flow.deficit = flow.deficit.saturating_sub(cost);
        }
    }

    /// Slot-time that a tenant has got, or below 0 has not needed after all.
    pub fn charge(&mut self, tenant: u64, nanos: i64) {
        let (_, flow) = self.flow(tenant);
        flow.attained = flow.attained.saturating_add_signed(nanos);
    }

    /// How long a piece of work of the tenant has taken.
    pub fn observe(&mut self, tenant: u64, service: Nanos) {
        self.mean.observe(service);
        let (_, flow) = self.flow(tenant);
        flow.cost.observe(service);
    }

    /// Slot-time of those who will have their turn before a further piece of work of this tenant.
    pub fn work_before(&self, tenant: u64, cost: Nanos, levelled: bool) -> Nanos {
        let own = self.flows.get(&tenant);
        let level = own.map_or(0, |flow| flow.level(levelled));
        let turn = own.map_or(0, |flow| flow.work) + cost;
        let of = |flow: &Flow| match flow.level(levelled).cmp(&level) {
            std::cmp::Ordering::Less => flow.work,
            // Turns go round, so nobody gets much more than this tenant before it is through.
            std::cmp::Ordering::Equal => flow.work.min(turn),
            std::cmp::Ordering::Greater => 0,
        };
        let all: Nanos = self.flows.values().map(of).sum();
        // The tenant's own work was counted among its level's.
        all.min(self.work)
    }

    /// The newest of the tenant that has the most waiting, where that is more than this one would have.
    pub fn newest_of_longest(&self, tenant: u64) -> Option<Id> {
        let own = self.flows.get(&tenant).map_or(0, |flow| flow.ids.len());
        let longest = self.flows.values().max_by_key(|flow| flow.ids.len())?;
        (longest.ids.len() > own + 1).then(|| longest.ids.back().copied())?
    }

    /// Seconds have passed: what was attained counts half for each, idle tenants are forgotten, and the rest filed anew.
    pub fn halve(&mut self, times: u32, levelled: bool) {
        for flow in self.flows.values_mut() {
            flow.attained = flow.attained.checked_shr(times).unwrap_or(0);
        }
        self.quantum = self.cost();
        self.file_all(levelled);
        self.flows
            .retain(|_, flow| !flow.ids.is_empty() || flow.attained >= FORGOTTEN);
    }

    /// Files every tenant that has something waiting at its level, in the order they were in.
    pub fn file_all(&mut self, levelled: bool) {
        for tenant in std::mem::take(&mut self.rings).into_iter().flatten() {
            let Some(flow) = self.flows.get_mut(&tenant) else {
                continue;
            };
            flow.filed = !flow.ids.is_empty();
            if flow.filed {
                self.rings[flow.level(levelled)].push_back(tenant);
            }
        }
    }

    /// The tenant's flow; beyond [`TENANTS_MAX`], that of all others.
    fn flow(&mut self, tenant: u64) -> (u64, &mut Flow) {
        let full = self.flows.len() >= TENANTS_MAX;
        let known = match full && !self.flows.contains_key(&tenant) {
            true => OTHERS,
            false => tenant,
        };
        (known, self.flows.entry(known).or_default())
    }

    /// Whose turn it is at a level.
    fn turn(&mut self, level: usize, levelled: bool) -> Option<u64> {
        let mut passed = 0;
        loop {
            let tenant = *self.rings[level].front()?;
            match self.standing(tenant, level, levelled) {
                Standing::Ready => return Some(tenant),
                Standing::Gone => {
                    self.rings[level].pop_front();
                }
                Standing::Sank(deeper) => {
                    self.rings[level].pop_front();
                    self.rings[deeper].push_back(tenant);
                }
                Standing::Saving => {
                    self.save(tenant);
                    self.rings[level].rotate_left(1);
                    passed += 1;
                }
            }
            if passed >= self.rings[level].len() {
                self.skip_rounds(level);
                passed = 0;
            }
        }
    }

    fn standing(&mut self, tenant: u64, level: usize, levelled: bool) -> Standing {
        let mean = self.mean.get();
        let Some(flow) = self.flows.get_mut(&tenant) else {
            return Standing::Gone;
        };
        if flow.ids.is_empty() {
            flow.filed = false;
            return Standing::Gone;
        }
        // Between two halvings a level only sinks.
        let now = flow.level(levelled);
        if now > level {
            return Standing::Sank(now);
        }
        match flow.deficit >= cost_of(flow, mean) {
            true => Standing::Ready,
            false => Standing::Saving,
        }
    }

    fn save(&mut self, tenant: u64) {
        if let Some(flow) = self.flows.get_mut(&tenant) {
            flow.deficit += self.quantum;
        }
    }

    /// Nobody could pay after a whole round: all rounds at once until somebody can.
    fn skip_rounds(&mut self, level: usize) {
        let mean = self.mean.get();
        let lacks = |tenant: &u64| {
            let flow = self.flows.get(tenant)?;
            Some(cost_of(flow, mean).saturating_sub(flow.deficit))
        };
        let least = self.rings[level].iter().filter_map(lacks).min();
        let saved = least.unwrap_or(0).div_ceil(self.quantum) * self.quantum;
        for tenant in &self.rings[level] {
            if let Some(flow) = self.flows.get_mut(tenant) {
                flow.deficit += saved;
            }
        }
    }
}

/// What a tenant in a ring can do at its turn.
enum Standing {
    Ready,
    Saving,
    /// It has had so much service that it belongs to this level now.
    Sank(usize),
    Gone,
}

fn cost_of(flow: &Flow, mean: Option<Nanos>) -> Nanos {
    flow.cost.get().or(mean).unwrap_or(0).max(COST_MIN)
}

pub fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}
