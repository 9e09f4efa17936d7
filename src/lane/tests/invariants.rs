//! Whatever happens in whatever order: slots are never given out twice, and everything that came has exactly one end.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Push {
        class: usize,
        tenant: u64,
        due: Option<Nanos>,
    },
    /// One that holds a slot, by its place among them.
    Finish {
        which: usize,
        done: bool,
    },
    Leave {
        which: usize,
    },
    Wait(Nanos),
    /// The settings change to this many slots and this discipline.
    Set {
        slots: u32,
        discipline: usize,
    },
    /// Somebody takes a slot without the lane, where there is one.
    Enter {
        class: usize,
    },
}

const DISCIPLINES: [Discipline; 4] = [
    Discipline::Fifo,
    Discipline::Priority,
    Discipline::Mlfq,
    Discipline::Auto,
];

fn step() -> impl Strategy<Value = Step> {
    let class = 0..Class::COUNT;
    prop_oneof![
        6 => (class.clone(), 0..6_u64, proptest::option::of(0..200 * MS))
            .prop_map(|(class, tenant, due)| Step::Push { class, tenant, due }),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(which, done)| Step::Finish { which, done }),
        1 => any::<usize>().prop_map(|which| Step::Leave { which }),
        3 => (0..300 * MS).prop_map(Step::Wait),
        1 => (0..6_u32, 0..DISCIPLINES.len())
            .prop_map(|(slots, discipline)| Step::Set { slots, discipline }),
        1 => class.prop_map(|class| Step::Enter { class }),
    ]
}

/// What came and has not ended yet, kept beside the lane in the plainest way.
struct Oracle {
    lane: Lane<u64>,
    now: Nanos,
    next: u64,
    waiting: HashMap<u64, (Class, Id)>,
    running: Vec<Work>,
    ended: usize,
}

impl Oracle {
    fn step(&mut self, step: Step) {
        match step {
            Step::Push { class, tenant, due } => self.push(Class::ALL[class], tenant, due),
            Step::Finish { which, done } => {
                if !self.running.is_empty() {
                    let work = self.running.swap_remove(which % self.running.len());
                    let outcome = if done { Outcome::Done } else { Outcome::Other };
                    self.lane.finish(self.now, work, outcome);
                    self.ended += 1;
                }
            }
            Step::Leave { which } => {
                let chosen = self
                    .waiting
                    .keys()
                    .copied()
                    .max_by_key(|name| name % (1 + which as u64 % 7));
                if let Some(name) = chosen {
                    let (class, id) = self.waiting[&name];
                    assert_eq!(self.lane.leave(class, id), Some(name));
                    self.gone(name);
                }
            }
            Step::Wait(nanos) => self.now += nanos,
            Step::Set { slots, discipline } => {
                self.lane.set(self.now, settings_of(slots, discipline))
            }
            Step::Enter { class } => {
                if self.lane.slots().try_enter() {
                    assert!(self.waiting.is_empty(), "others wait");
                    let work = Work::unqueued(Class::ALL[class], 1, self.now);
                    self.running.push(work);
                    self.next += 1;
                }
            }
        }
        self.pop_all();
        self.check();
    }

    fn push(&mut self, class: Class, tenant: u64, due: Option<Nanos>) {
        let name = self.next;
        self.next += 1;
        let pushed = self.lane.push(
            self.now,
            Item {
                deadline: due.map(|due| self.now + due),
                ..item(class, tenant, name)
            },
        );
        match pushed {
            Pushed::Started(work, of) => {
                assert_eq!(of, name);
                assert!(self.waiting.is_empty(), "others wait");
                self.running.push(work);
            }
            Pushed::Queued { id, displaced } => {
                self.waiting.insert(name, (class, id));
                if let Some((refusal, of)) = displaced {
                    let (other, _) = self.waiting[&of];
                    let fits = match refusal.reason {
                        Reason::Class => other > class,
                        Reason::Tenant => other == class,
                        // It has more places than are its due, and the one that came fewer.
                        Reason::Full => other < class,
                        Reason::Deadline | Reason::Timeout => false,
                    };
                    assert!(fits, "{class:?} for {other:?}: {refusal:?}");
                    self.gone(of);
                }
            }
            Pushed::Refused(refusal, of) => {
                assert_eq!(of, name);
                assert!((1..=30).contains(&refusal.retry_after.as_secs()));
                self.ended += 1;
            }
        }
    }

    fn pop_all(&mut self) {
        while let Some(popped) = self.lane.pop(self.now) {
            match popped {
                Popped::Started(work, wait, name) => {
                    assert!(wait <= self.now);
                    assert!(self.waiting.remove(&name).is_some(), "{name} did not wait");
                    self.running.push(work);
                }
                Popped::Dropped(_, name) => self.gone(name),
            }
        }
    }

    fn gone(&mut self, name: u64) {
        assert!(self.waiting.remove(&name).is_some(), "{name} had ended");
        self.ended += 1;
    }

    fn check(&self) {
        let slots = self.lane.slots();
        assert_eq!(slots.in_flight() as usize, self.running.len());
        assert_eq!(self.lane.queued(), self.waiting.len());
        assert!(self.lane.queued() <= self.lane.settings().queue_max as usize);
        let of_classes: usize = Class::ALL
            .iter()
            .map(|class| self.lane.queued_of(*class))
            .sum();
        assert_eq!(of_classes, self.waiting.len());
        let free = slots.in_flight() < slots.limit();
        assert!(
            !free || self.waiting.is_empty(),
            "a slot is free, and somebody waits"
        );
        assert_eq!(
            self.next as usize,
            self.ended + self.running.len() + self.waiting.len()
        );
    }
}

fn settings_of(slots: u32, discipline: usize) -> model::Lane {
    let limit = match slots {
        0 => LaneLimit::Adaptive,
        slots => LaneLimit::Fixed(slots),
    };
    model::Lane {
        limit,
        queue_max: 12,
        queue_timeout: Duration::from_millis(400),
        ..settings(slots, DISCIPLINES[discipline])
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn slots_are_kept_and_nothing_is_lost_or_doubled(
        slots in 0..6_u32,
        discipline in 0..DISCIPLINES.len(),
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let mut oracle = Oracle {
            lane: Lane::new(settings_of(slots, discipline), 0),
            now: 0,
            next: 0,
            waiting: HashMap::new(),
            running: Vec::new(),
            ended: 0,
        };
        for step in steps {
            oracle.step(step);
        }
        while !oracle.running.is_empty() {
            oracle.now += MS;
            oracle.step(Step::Finish { which: 0, done: true });
        }
        assert!(oracle.waiting.is_empty());
        assert!(oracle.lane.slots().try_enter(), "the way without the lock is open again");
    }
}
