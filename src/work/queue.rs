//! What is to be done in memory: when each task is due, and the lane of each service for those that are. Pure: no clock, no IO.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::Depth;
use super::record::Millis;
use crate::lane::{Item, Lane, Nanos, Outcome, Popped, Pushed, Work};
use crate::model::{self, Class, Discipline, LaneLimit, Name};

pub type Id = Arc<str>;

/// What the queue has to know of a task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub service: Arc<Name>,
    pub class: Class,
    /// A hash of whose it is.
    pub tenant: u64,
    /// When it is too late to begin.
    pub deadline: Option<Millis>,
}

/// How many tasks of a service may run at once, and in which order they come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    pub limit: u32,
    pub discipline: Discipline,
}

/// A task whose turn has come; give `work` back by [`Queue::left`].
#[derive(Debug)]
pub struct Started {
    pub id: Id,
    pub service: Arc<Name>,
    pub work: Work,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Scheduled,
    Ready,
    Running,
}

#[derive(Default)]
pub struct Queue {
    timers: BTreeSet<(Millis, Id)>,
    deadlines: BTreeSet<(Millis, Id)>,
    tasks: HashMap<Id, Held>,
    lanes: HashMap<Arc<Name>, Lane<Id>>,
}

struct Held {
    entry: Entry,
    place: Place,
}

#[derive(Clone, Copy)]
enum Place {
    Timer(Millis),
    Lane(crate::lane::Id),
    Running,
}

impl Queue {
    pub fn depth(&self) -> Depth {
        let scheduled = self.timers.len();
        let ready: usize = self.lanes.values().map(Lane::queued).sum();
        Depth {
            scheduled: scheduled as u64,
            ready: ready as u64,
            running: self.tasks.len().saturating_sub(scheduled + ready) as u64,
        }
    }

    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// The services with tasks that are due: how many wait, and how many run.
    pub fn lanes(&self) -> impl Iterator<Item = (&Arc<Name>, u64, u64)> {
        self.lanes.iter().map(|(service, lane)| {
            let running = u64::from(lane.slots().in_flight());
            (service, lane.queued() as u64, running)
        })
    }

    /// A task that is due at this time; also one that is there already, for its next attempt.
    pub fn schedule(&mut self, id: Id, entry: Entry, due: Millis) {
        self.remove(&id);
        self.timers.insert((due, id.clone()));
        if let Some(deadline) = entry.deadline {
            self.deadlines.insert((deadline, id.clone()));
        }
        let place = Place::Timer(due);
        self.tasks.insert(id, Held { entry, place });
    }

    /// When the next is due, or too late.
    pub fn next(&self) -> Option<Millis> {
        let timers = [self.timers.first(), self.deadlines.first()];
        timers.into_iter().flatten().map(|(time, _)| *time).min()
    }

    /// Those that are too late now, once. What runs already is not.
    pub fn take_late(&mut self, time: Millis) -> Vec<Id> {
        let mut late = Vec::new();
        while self
            .deadlines
            .first()
            .is_some_and(|(deadline, _)| *deadline <= time)
            && let Some((_, id)) = self.deadlines.pop_first()
        {
            if self.phase(&id).is_some_and(|phase| phase != Phase::Running) {
                late.push(id);
            }
        }
        late
    }

    pub fn phase(&self, id: &str) -> Option<Phase> {
        Some(match self.tasks.get(id)?.place {
            Place::Timer(_) => Phase::Scheduled,
            Place::Lane(_) => Phase::Ready,
            Place::Running => Phase::Running,
        })
    }

    pub fn entry(&self, id: &str) -> Option<&Entry> {
        Some(&self.tasks.get(id)?.entry)
    }

    /// Forgets a task. What runs keeps its slot until it has left.
    pub fn remove(&mut self, id: &str) -> bool {
        let Some((id, held)) = self.tasks.remove_entry(id) else {
            return false;
        };
        if let Some(deadline) = held.entry.deadline {
            self.deadlines.remove(&(deadline, Arc::clone(&id)));
        }
        match held.place {
            Place::Timer(due) => {
                self.timers.remove(&(due, id));
            }
            Place::Lane(place) => {
                if let Some(lane) = self.lanes.get_mut(&held.entry.service) {
                    lane.leave(held.entry.class, place);
                }
            }
            Place::Running => {}
        }
        true
    }

    /// Those whose turn has come, as far as there is room.
    pub fn start(
        &mut self,
        time: Millis,
        now: Nanos,
        mut room: impl FnMut(&Name) -> Room,
    ) -> Vec<Started> {
        let mut started = Vec::new();
        for (service, lane) in &mut self.lanes {
            lane.set(now, settings(room(service)));
        }
        while self.timers.first().is_some_and(|(due, _)| *due <= time)
            && let Some((_, id)) = self.timers.pop_first()
        {
            self.file(id, now, &mut room, &mut started);
        }
        for (service, lane) in &mut self.lanes {
            while let Some(popped) = lane.pop(now) {
                let Popped::Started(work, _, id) = popped else {
                    // Nothing has a time after which it is dropped.
                    continue;
                };
                if let Some(held) = self.tasks.get_mut(&id) {
                    held.place = Place::Running;
                }
                let service = Arc::clone(service);
                started.push(Started { id, service, work });
            }
        }
        let is_used = |lane: &mut Lane<Id>| lane.queued() > 0 || lane.slots().in_flight() > 0;
        self.lanes.retain(|_, lane| is_used(lane));
        started
    }

    fn file(
        &mut self,
        id: Id,
        now: Nanos,
        room: &mut impl FnMut(&Name) -> Room,
        started: &mut Vec<Started>,
    ) {
        let Some(held) = self.tasks.get_mut(&id) else {
            return;
        };
        let service = Arc::clone(&held.entry.service);
        let lane = self.lanes.entry(Arc::clone(&service));
        let lane = lane.or_insert_with(|| Lane::new(settings(room(&service)), now));
        let item = Item {
            class: held.entry.class,
            tenant: held.entry.tenant,
            deadline: None,
            payload: id,
        };
        match lane.push(now, item) {
            Pushed::Started(work, id) => {
                held.place = Place::Running;
                started.push(Started { id, service, work });
            }
            Pushed::Queued { id, .. } => held.place = Place::Lane(id),
            // Its queue has no end.
            Pushed::Refused(_, id) => {
                self.timers.insert((Millis::MAX, id));
            }
        }
    }

    /// A task that was started has left its slot.
    pub fn left(&mut self, service: &Name, work: Work, now: Nanos, outcome: Outcome) {
        if let Some(lane) = self.lanes.get_mut(service) {
            lane.finish(now, work, outcome);
        }
    }
}

/// What is accepted is kept: the queue has no end, and nothing waits in vain.
fn settings(room: Room) -> model::Lane {
    model::Lane {
        discipline: room.discipline,
        queue_max: u32::MAX,
        queue_timeout: Duration::from_secs(100 * 365 * 24 * 3_600),
        ..model::Lane::new(LaneLimit::Fixed(room.limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(class: Class, tenant: u64) -> Entry {
        Entry {
            service: Arc::new(Name::local("cart")),
            class,
            tenant,
            deadline: None,
        }
    }

    fn room(limit: u32, discipline: Discipline) -> impl Fn(&Name) -> Room {
        move |_| Room { limit, discipline }
    }

    fn ids(started: &[Started]) -> String {
        started
            .iter()
            .map(|one| &*one.id)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn nothing_starts_before_it_is_due_or_without_room() {
        let mut queue = Queue::default();
        for (id, due) in [("a", 10), ("b", 20), ("c", 20)] {
            queue.schedule(id.into(), entry(Class::Default, 0), due);
        }
        let fifo = |limit| room(limit, Discipline::Fifo);
        assert_eq!(
            (queue.next(), ids(&queue.start(9, 9, fifo(9)))),
            (Some(10), String::new())
        );
        assert_eq!(ids(&queue.start(10, 10, fifo(0))), "");
        assert_eq!(queue.phase("a"), Some(Phase::Ready));
        let first = queue.start(20, 20, fifo(1));
        assert_eq!(ids(&first), "a");
        assert_eq!(queue.phase("a"), Some(Phase::Running));
        assert_eq!(ids(&queue.start(30, 30, fifo(1))), "");
        for one in first {
            queue.left(&one.service, one.work, 31, Outcome::Done);
        }
        assert!(queue.remove("a") && !queue.remove("a"));
        assert_eq!(ids(&queue.start(32, 32, fifo(9))), "b c");
    }

    #[test]
    fn what_is_removed_never_starts() {
        let mut queue = Queue::default();
        for (id, due) in [("timer", 50), ("lane", 1), ("other", 1)] {
            queue.schedule(id.into(), entry(Class::Default, 0), due);
        }
        queue.start(1, 1, room(0, Discipline::Fifo));
        assert!(queue.remove("timer") && queue.remove("lane"));
        assert_eq!(
            ids(&queue.start(60, 60, room(9, Discipline::Fifo))),
            "other"
        );
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn the_discipline_is_the_lanes() {
        let order = |discipline| {
            let mut queue = Queue::default();
            for (place, (id, class)) in [
                ("batch", Class::Batch),
                ("plain", Class::Default),
                ("vital", Class::Critical),
            ]
            .into_iter()
            .enumerate()
            {
                queue.schedule(id.into(), entry(class, 0), place as Millis);
            }
            queue.start(5, 5, room(0, discipline));
            let started = queue.start(6, 6, room(9, discipline));
            ids(&started)
        };
        assert_eq!(order(Discipline::Fifo), "batch plain vital");
        assert_eq!(order(Discipline::Priority), "vital plain batch");
        assert_eq!(order(Discipline::Mlfq), "vital plain batch");
    }
}
