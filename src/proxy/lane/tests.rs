use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::model::{Discipline, LaneLimit};

fn lane(slots: u32) -> (Lanes, Lane) {
    let settings = model::Lane {
        discipline: Discipline::Priority,
        queue_max: 100,
        ..model::Lane::new(LaneLimit::Fixed(slots))
    };
    let lanes = Lanes::default();
    let lane = lanes.set(
        &Name::local("shop"),
        Side::Inbound,
        &settings,
        Instant::now(),
    );
    (lanes, lane)
}

const ASKED: Asked = Asked {
    class: Class::Default,
    tenant: 1,
    deadline: None,
};

fn slot(lane: &Lane) -> Slot {
    match lane.enter(ASKED, Instant::now()) {
        Entered::Slot(slot) => slot,
        _ => panic!("there is a free slot"),
    }
}

fn place(lane: &Lane) -> Place {
    match lane.enter(ASKED, Instant::now()) {
        Entered::Place(place) => place,
        _ => panic!("there is no free slot, and room in the queue"),
    }
}

fn poll(place: &mut Place) -> Option<Result<Slot, Refusal>> {
    match place.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(decided) => Some(decided),
        Poll::Pending => None,
    }
}

#[test]
fn a_slot_that_is_given_back_goes_to_the_one_that_waits() {
    let (lanes, lane) = lane(1);
    let held = slot(&lane);
    let mut waits = place(&lane);
    assert!(poll(&mut waits).is_none());
    held.done();
    let next = poll(&mut waits).expect("its turn has come").ok();
    assert_eq!(lanes.report()[0].in_flight, 1);
    drop(next);
    drop(waits);
    assert_eq!(lanes.report()[0].in_flight, 0);
    drop(slot(&lane));
}

#[test]
fn who_leaves_the_queue_gives_up_the_place_or_the_slot_it_has_just_got() {
    let (lanes, lane) = lane(1);
    let held = slot(&lane);
    let (leaves, mut stays) = (place(&lane), place(&lane));
    assert_eq!(lanes.report()[0].queued[Class::Default as usize], 2);
    held.done();
    // Its turn has come, and it does not know yet.
    drop(leaves);
    assert!(poll(&mut stays).is_some_and(|decided| decided.is_ok()));
    assert_eq!(lanes.report()[0].in_flight, 0);
}

#[test]
fn who_has_waited_long_enough_is_refused_unless_its_turn_has_just_come() {
    let (lanes, lane) = lane(1);
    let held = slot(&lane);
    let refused = place(&lane)
        .expire(Reason::Timeout)
        .err()
        .expect("nothing has become free");
    assert_eq!(refused.reason, Reason::Timeout);
    let waits = place(&lane);
    held.done();
    assert!(waits.expire(Reason::Timeout).is_ok());
    assert_eq!(lanes.report()[0].refused(Reason::Timeout), 1);
    assert_eq!(lanes.report()[0].admitted(), 2);
}

#[test]
fn more_slots_let_more_in_and_the_same_lane_goes_on() {
    let (lanes, before) = lane(1);
    let _held = slot(&before);
    let mut waits = place(&before);
    let settings = model::Lane::new(LaneLimit::Fixed(2));
    let after = lanes.set(
        &Name::local("shop"),
        Side::Inbound,
        &settings,
        Instant::now(),
    );
    assert!(poll(&mut waits).is_some_and(|decided| decided.is_ok()));
    drop(slot(&after));
    assert_eq!(lanes.report()[0].limit, 2);
}

#[test]
fn workers_together_hold_no_more_slots_than_there_are_and_nobody_is_forgotten() {
    const SLOTS: u32 = 3;
    const ROUNDS: u32 = 2_000;
    let (lanes, lane) = lane(SLOTS);
    let (holding, served) = (AtomicU32::new(0), AtomicU32::new(0));
    let work = |slot: Slot| {
        assert!(holding.fetch_add(1, Ordering::SeqCst) < SLOTS);
        std::hint::spin_loop();
        holding.fetch_sub(1, Ordering::SeqCst);
        served.fetch_add(1, Ordering::Relaxed);
        slot.done();
    };
    let worker = |seed: u64| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let mut rng = fastrand::Rng::with_seed(seed);
        runtime.block_on(async {
            for _ in 0..ROUNDS {
                let mut place = match lane.enter(ASKED, Instant::now()) {
                    Entered::Slot(slot) => {
                        work(slot);
                        continue;
                    }
                    Entered::Place(place) => place,
                    Entered::Refused(refusal) => panic!("the queue has room: {refusal:?}"),
                };
                if rng.u8(..) < 64 {
                    continue;
                }
                // Under the sanitisers and on busy machines somebody may wait for longer than a lane allows.
                let decided = std::future::poll_fn(|cx| place.poll(cx)).await;
                if let Ok(slot) = decided {
                    work(slot);
                }
            }
        });
    };
    std::thread::scope(|scope| {
        for seed in 1..=6 {
            let worker = &worker;
            scope.spawn(move || worker(seed));
        }
    });
    let report = &lanes.report()[0];
    assert_eq!((report.in_flight, report.queued), (0, [0; Class::COUNT]));
    assert!(served.load(Ordering::Relaxed) > 0);
    assert!(
        lane.shared.slots.try_enter(),
        "the way without the lock is open again"
    );
}
