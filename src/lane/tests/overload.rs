//! An application that does sixteen things at once and is asked for twice as much, behind a limit that nobody has set, in simulated
//! time: it is kept busy, and what it is given beyond that is bounded.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use super::*;

const CAPACITY: usize = 16;
const SERVICE: f64 = 20.0 * MS as f64;
const OVERLOAD: f64 = 2.0;
const WARM: Nanos = 10 * SECOND;
const END: Nanos = 130 * SECOND;

/// What the lane has let in, in the order it came: the first sixteen are worked on.
#[derive(Default)]
struct Application {
    busy: usize,
    queue: VecDeque<Work>,
}

struct Overload {
    lane: Lane<()>,
    rng: fastrand::Rng,
    application: Application,
    ends: BinaryHeap<Reverse<(Nanos, u64)>>,
    running: HashMap<u64, Work>,
    started: u64,
    /// Done after the warming up.
    done: u64,
    in_flight_max: u32,
}

impl Overload {
    fn run(&mut self) {
        let mut arrival = 0;
        loop {
            let end = self
                .ends
                .peek()
                .map_or(Nanos::MAX, |Reverse((end, _))| *end);
            let now = arrival.min(end);
            if now >= END {
                return;
            }
            if arrival <= end {
                arrival += self
                    .exponential(SERVICE / (OVERLOAD * CAPACITY as f64))
                    .max(1);
                if let Pushed::Started(work, ()) = self.lane.push(now, item(Class::Default, 1, ()))
                {
                    self.let_in(now, work);
                }
            } else {
                self.end(now);
            }
            while let Some(popped) = self.lane.pop(now) {
                if let Popped::Started(work, ..) = popped {
                    self.let_in(now, work);
                }
            }
            if now >= WARM {
                self.in_flight_max = self.in_flight_max.max(self.lane.slots().in_flight());
            }
        }
    }

    fn let_in(&mut self, now: Nanos, work: Work) {
        if self.application.busy < CAPACITY {
            self.application.busy += 1;
            self.start(now, work);
        } else {
            self.application.queue.push_back(work);
        }
    }

    fn start(&mut self, now: Nanos, work: Work) {
        self.started += 1;
        self.running.insert(self.started, work);
        let end = now + self.exponential(SERVICE);
        self.ends.push(Reverse((end, self.started)));
    }

    fn end(&mut self, now: Nanos) {
        let Some(Reverse((_, which))) = self.ends.pop() else {
            return;
        };
        let work = self.running.remove(&which).expect("it ends once");
        self.done += u64::from(now >= WARM);
        self.lane.finish(now, work, Outcome::Done);
        match self.application.queue.pop_front() {
            Some(next) => self.start(now, next),
            None => self.application.busy -= 1,
        }
    }

    fn exponential(&mut self, mean: f64) -> Nanos {
        (-(1.0 - self.rng.f64()).ln() * mean) as Nanos
    }
}

#[test]
fn a_limit_that_nobody_has_set_keeps_the_application_busy_at_twice_what_it_can_do() {
    let settings = model::Lane {
        queue_timeout: Duration::from_millis(500),
        ..model::Lane::new(LaneLimit::Adaptive)
    };
    let mut overload = Overload {
        lane: Lane::new(settings, 0),
        rng: fastrand::Rng::with_seed(1),
        application: Application::default(),
        ends: BinaryHeap::new(),
        running: HashMap::new(),
        started: 0,
        done: 0,
        in_flight_max: 0,
    };
    overload.run();
    let possible = (END - WARM) as f64 / SERVICE * CAPACITY as f64;
    let goodput = 100.0 * overload.done as f64 / possible;
    let (now, most) = (overload.lane.slots().limit(), overload.in_flight_max);
    println!("goodput {goodput:.1} % of the capacity; limit {now}, at most {most} in flight");
    assert!(goodput >= 95.0, "{goodput}");
    assert!(most <= 5 * CAPACITY as u32, "{most}");
}
