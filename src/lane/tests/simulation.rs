//! One tenant with long work against forty with short work, each half of what is asked of sixteen slots, at 130 % and 220 % of
//! what they can do: the shape of the table that the disciplines were chosen by, in simulated time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::*;
use crate::model::Floors;

const SLOTS: u32 = 16;
const SHORT_TENANTS: u64 = 40;
const BULK: u64 = 1_000;
const SHORT_SERVICE: f64 = 7.0 * MS as f64;
const BULK_SERVICE: f64 = 100.0 * MS as f64;
const WARM: Nanos = 5 * SECOND;
const END: Nanos = 35 * SECOND;

/// What became of one kind of work.
#[derive(Default)]
struct Fate {
    asked: usize,
    /// From arrival to the end, of what was done.
    times: Vec<Nanos>,
}

impl Fate {
    /// The share that was done, in percent.
    fn done(&self) -> f64 {
        100.0 * self.times.len() as f64 / self.asked.max(1) as f64
    }

    /// In milliseconds.
    fn quantile(&mut self, quantile: f64) -> f64 {
        self.times.sort_unstable();
        let place = (self.times.len() as f64 * quantile) as usize;
        let time = self.times.get(place).or(self.times.last());
        time.map_or(0.0, |time| *time as f64 / MS as f64)
    }
}

struct Result {
    short: Fate,
    bulk: Fate,
    switches: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives {
        bulk: bool,
    },
    /// By its place in the table of what runs.
    Ends(usize),
    Expires {
        class: Class,
        id: Id,
    },
}

#[derive(Clone, Copy)]
struct Job {
    bulk: bool,
    arrived: Nanos,
}

struct Simulation {
    lane: Lane<Job>,
    rng: fastrand::Rng,
    load: f64,
    /// The classes of short and bulk work.
    classes: [Class; 2],
    events: BinaryHeap<Reverse<(Nanos, u64, Event)>>,
    /// Events of one moment keep their order.
    sequence: u64,
    running: Vec<Option<(Work, Job)>>,
    result: Result,
}

/// The timeout of the queue is a second, and its length makes no difference.
fn run(load: f64, discipline: Discipline, classes: [Class; 2], floors: Floors) -> Result {
    let settings = model::Lane {
        floors,
        queue_max: 10_000,
        queue_timeout: Duration::from_secs(1),
        ..settings(SLOTS, discipline)
    };
    let mut simulation = Simulation {
        lane: Lane::new(settings, 0),
        rng: fastrand::Rng::with_seed(1),
        load,
        classes,
        events: BinaryHeap::new(),
        sequence: 0,
        running: Vec::new(),
        result: Result {
            short: Fate::default(),
            bulk: Fate::default(),
            switches: 0,
        },
    };
    simulation.run();
    simulation.result
}

impl Simulation {
    fn run(&mut self) {
        self.arrival(0, false);
        self.arrival(0, true);
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            match event {
                Event::Arrives { bulk } if now < END => {
                    self.arrival(now, bulk);
                    self.arrive(now, bulk);
                }
                Event::Arrives { .. } => {}
                Event::Ends(place) => self.end(now, place),
                Event::Expires { class, id } => {
                    self.lane.leave(class, id);
                }
            }
            while let Some(popped) = self.lane.pop(now) {
                if let Popped::Started(work, _, job) = popped {
                    self.start(now, work, job);
                }
            }
        }
        self.result.switches = self.lane.switches().iter().sum();
    }

    fn at(&mut self, time: Nanos, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((time, self.sequence, event)));
    }

    /// The next one comes after a time that is distributed exponentially, so that arrivals are a Poisson process.
    fn arrival(&mut self, now: Nanos, bulk: bool) {
        let service = if bulk { BULK_SERVICE } else { SHORT_SERVICE };
        let mean = service / (self.load / 2.0 * f64::from(SLOTS));
        let after = self.exponential(mean);
        self.at(now + after, Event::Arrives { bulk });
    }

    fn arrive(&mut self, now: Nanos, bulk: bool) {
        let class = self.classes[usize::from(bulk)];
        let tenant = if bulk {
            BULK
        } else {
            self.rng.u64(1..=SHORT_TENANTS)
        };
        let job = Job { bulk, arrived: now };
        if now >= WARM {
            self.fate(bulk).asked += 1;
        }
        match self.lane.push(now, item(class, tenant, job)) {
            Pushed::Started(work, job) => self.start(now, work, job),
            Pushed::Queued { id, .. } => self.at(now + SECOND, Event::Expires { class, id }),
            Pushed::Refused(..) => {}
        }
    }

    fn start(&mut self, now: Nanos, work: Work, job: Job) {
        let service = if job.bulk {
            BULK_SERVICE
        } else {
            SHORT_SERVICE
        };
        let end = now + self.exponential(service);
        self.running.push(Some((work, job)));
        let place = self.running.len() - 1;
        self.at(end, Event::Ends(place));
    }

    fn end(&mut self, now: Nanos, place: usize) {
        let (work, job) = self.running[place].take().expect("it ends once");
        self.lane.finish(now, work, Outcome::Done);
        if job.arrived >= WARM {
            self.fate(job.bulk).times.push(now - job.arrived);
        }
    }

    fn fate(&mut self, bulk: bool) -> &mut Fate {
        match bulk {
            true => &mut self.result.bulk,
            false => &mut self.result.short,
        }
    }

    fn exponential(&mut self, mean: f64) -> Nanos {
        (-(1.0 - self.rng.f64()).ln() * mean) as Nanos
    }
}

const NO_FLOORS: Floors = Floors {
    batch_percent: 0,
    best_effort_percent: 0,
    lowest_level_percent: 0,
};
const UNLABELLED: [Class; 2] = [Class::Default, Class::Default];
const LABELLED: [Class; 2] = [Class::Default, Class::Batch];

fn shown(name: &str, load: f64, result: &mut Result) -> (f64, f64, f64, f64) {
    let Result { short, bulk, .. } = result;
    let row = (
        short.done(),
        short.quantile(0.5),
        short.quantile(0.99),
        bulk.done(),
    );
    println!(
        "{load:.2} {name:30} short {:3.0} % done, p50 {:4.0} ms, p99 {:4.0} ms; bulk {:3.0} % done",
        row.0, row.1, row.2, row.3
    );
    row
}

#[test]
fn at_130_percent_the_levels_do_without_labels_what_priority_does_with_them() {
    let mut fifo = run(1.3, Discipline::Fifo, UNLABELLED, NO_FLOORS);
    let mut priority = run(1.3, Discipline::Priority, LABELLED, NO_FLOORS);
    let mut mlfq = run(1.3, Discipline::Mlfq, UNLABELLED, Floors::default());
    let fifo = shown("fifo", 1.3, &mut fifo);
    let priority = shown("priority, labelled", 1.3, &mut priority);
    let mlfq = shown("mlfq, no labels", 1.3, &mut mlfq);
    assert!(
        fifo.0 < 90.0 && fifo.1 > 800.0,
        "in the order of arrival everybody waits for the bulk"
    );
    assert!(priority.0 > 99.5 && mlfq.0 > 99.5, "nothing short is lost");
    assert!(
        mlfq.1 < 1.2 * priority.1 && mlfq.2 < 1.2 * priority.2,
        "within 20 %"
    );
    assert!(mlfq.3 > 45.0, "what is left goes to the bulk");
}

#[test]
fn at_220_percent_the_levels_keep_the_bulk_alive_and_the_short_close_to_priority() {
    let mut fifo = run(2.2, Discipline::Fifo, UNLABELLED, NO_FLOORS);
    let mut priority = run(2.2, Discipline::Priority, LABELLED, NO_FLOORS);
    let mut mlfq = run(2.2, Discipline::Mlfq, UNLABELLED, Floors::default());
    let fifo = shown("fifo", 2.2, &mut fifo);
    let priority = shown("priority, labelled", 2.2, &mut priority);
    let mlfq = shown("mlfq, no labels", 2.2, &mut mlfq);
    assert!(
        fifo.0 < 55.0,
        "in the order of arrival half of the short is lost"
    );
    assert!(priority.3 < 2.0, "labels alone starve the bulk");
    assert!(mlfq.0 > priority.0 - 10.0, "within 10 points");
    assert!(mlfq.3 > 3.0, "5 % of the time is 4.5 % of its work");
}

#[test]
fn a_floor_gives_the_bulk_its_share_of_the_time_at_220_percent() {
    let floors = Floors {
        batch_percent: 15,
        ..NO_FLOORS
    };
    let mut result = run(2.2, Discipline::Priority, LABELLED, floors);
    let (short, _, _, bulk) = shown("priority, labelled, floor 15 %", 2.2, &mut result);
    // 15 % of sixteen slots are 13.6 % of 1.1 times their work.
    assert!((12.0..18.0).contains(&bulk), "{bulk}");
    assert!(short > 65.0, "{short}");
}

#[test]
fn auto_is_as_good_as_the_levels_when_it_matters() {
    let mut auto = run(1.3, Discipline::Auto, UNLABELLED, Floors::default());
    let (short, p50, _, _) = shown("auto", 1.3, &mut auto);
    assert!(short > 99.0 && p50 < 30.0, "{short} {p50}");
    assert_eq!(auto.switches, 1, "it does not swing under steady load");
    let mut calm = run(0.5, Discipline::Auto, UNLABELLED, Floors::default());
    shown("auto", 0.5, &mut calm);
    assert!(calm.switches <= 2, "{}", calm.switches);
}
