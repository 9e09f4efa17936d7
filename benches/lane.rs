//! What a lane costs a request: on the way without a lock (goal: 150 ns), and when it has to queue (goal: 1 µs).

use std::hint::black_box;
use std::sync::Mutex;

use criterion::{Criterion, criterion_group, criterion_main};
use pillion::lane::{Item, Lane, Nanos, Outcome, Popped, Pushed, Work};
use pillion::model::{self, Class, Discipline, LaneLimit};

const TENANTS: u64 = 40;

fn settings(slots: u32, discipline: Discipline) -> model::Lane {
    model::Lane {
        discipline,
        ..model::Lane::new(LaneLimit::Fixed(slots))
    }
}

/// A slot is taken and given back while nobody waits, and what the request took is taken into account.
fn uncontended(c: &mut Criterion) {
    let lane: Lane<()> = Lane::new(settings(64, Discipline::Mlfq), 0);
    let slots = lane.slots().clone();
    let lane = Mutex::new(lane);
    let mut now: Nanos = 0;
    c.bench_function("a slot, uncontended", |b| {
        b.iter(|| {
            now += 20_000;
            assert!(black_box(&slots).try_enter());
            let work = Work::unqueued(Class::Default, now % TENANTS, now);
            if !slots.leave()
                && let Ok(mut lane) = lane.try_lock()
            {
                lane.settle(now + 5_000, work, Outcome::Done);
            }
        })
    });
}

/// One waits in a queue of 200 and comes out of it.
fn queued(c: &mut Criterion) {
    for discipline in [Discipline::Fifo, Discipline::Priority, Discipline::Mlfq] {
        let mut lane: Lane<u64> = Lane::new(settings(1, discipline), 0);
        let mut now: Nanos = 0;
        let item = |payload: u64| Item {
            class: Class::ALL[(payload % 4) as usize],
            tenant: payload % TENANTS,
            deadline: None,
            payload,
        };
        let Pushed::Started(mut work, _) = lane.push(now, item(0)) else {
            panic!("it is empty");
        };
        for number in 1..200 {
            black_box(lane.push(now, item(number)));
        }
        let mut number = 200;
        c.bench_function(&format!("queued, {}", discipline.as_str()), |b| {
            b.iter(|| {
                now += 10_000;
                number += 1;
                black_box(lane.push(now, item(number)));
                let done = std::mem::replace(&mut work, Work::unqueued(Class::Default, 0, now));
                lane.finish(now, done, Outcome::Done);
                while let Some(popped) = lane.pop(now) {
                    if let Popped::Started(next, ..) = popped {
                        work = next;
                        break;
                    }
                }
            })
        });
    }
}

criterion_group!(benches, uncontended, queued);
criterion_main!(benches);
