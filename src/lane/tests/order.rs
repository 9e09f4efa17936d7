//! Who is next, who is refused, and why, one rule at a time.

use std::collections::HashMap;
use std::time::Duration;

use super::*;
use crate::model::Floors;

/// A lane of one slot that is taken, so that everything else waits.
fn taken(settings: model::Lane) -> (Lane<&'static str>, Work) {
    let mut lane = Lane::new(settings, 0);
    match lane.push(0, item(Class::Default, 99, "first")) {
        Pushed::Started(work, "first") => (lane, work),
        other => panic!("a lane with a free slot: {other:?}"),
    }
}

fn wait(lane: &mut Lane<&'static str>, now: Nanos, class: Class, tenant: u64, name: &'static str) {
    let pushed = lane.push(now, item(class, tenant, name));
    assert!(
        matches!(
            pushed,
            Pushed::Queued {
                displaced: None,
                ..
            }
        ),
        "{pushed:?}"
    );
}

/// Lets everything through, each taking no time.
fn order(lane: &mut Lane<&'static str>, now: Nanos, mut work: Work) -> Vec<&'static str> {
    let mut order = Vec::new();
    loop {
        lane.finish(now, work, Outcome::Other);
        match lane.pop(now) {
            Some(Popped::Started(next, _, name)) => {
                work = next;
                order.push(name);
            }
            Some(Popped::Dropped(refusal, name)) => panic!("{name}: {refusal:?}"),
            None => return order,
        }
    }
}

#[test]
fn fifo_knows_neither_class_nor_tenant() {
    let (mut lane, work) = taken(settings(1, Discipline::Fifo));
    wait(&mut lane, 1, Class::Batch, 1, "a");
    wait(&mut lane, 2, Class::Critical, 2, "b");
    wait(&mut lane, 3, Class::BestEffort, 1, "c");
    assert_eq!(order(&mut lane, 4, work), ["a", "b", "c"]);
}

#[test]
fn priority_goes_by_class_and_then_by_tenant_in_turn() {
    let (mut lane, work) = taken(settings(1, Discipline::Priority));
    wait(&mut lane, 1, Class::BestEffort, 1, "best-effort");
    wait(&mut lane, 1, Class::Default, 1, "a1");
    wait(&mut lane, 1, Class::Default, 1, "a2");
    wait(&mut lane, 1, Class::Default, 2, "b1");
    wait(&mut lane, 1, Class::Critical, 1, "critical");
    let order = order(&mut lane, 1, work);
    assert_eq!(order, ["critical", "a1", "b1", "a2", "best-effort"]);
}

#[test]
fn mlfq_lets_those_first_who_have_had_little() {
    let (mut lane, work) = taken(settings(1, Discipline::Mlfq));
    // The first tenant, 99, has had 300 ms when it is done.
    wait(&mut lane, 1, Class::Default, 99, "much");
    wait(&mut lane, 2, Class::Default, 1, "little");
    lane.slots.leave();
    lane.settle(300 * MS, work, Outcome::Done);
    let names = [0, 1].map(|_| match lane.pop(300 * MS) {
        Some(Popped::Started(work, _, name)) => {
            lane.finish(300 * MS, work, Outcome::Other);
            name
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(names, ["little", "much"]);
}

#[test]
fn tenants_of_a_class_get_the_same_time_however_long_their_work_takes() {
    let patient = model::Lane {
        queue_timeout: Duration::from_secs(1_000),
        ..settings(1, Discipline::Priority)
    };
    let mut lane: Lane<u64> = Lane::new(patient, 0);
    let service = HashMap::from([(1, 2 * MS), (2, 20 * MS), (3, 50 * MS)]);
    let mut waiting: HashMap<u64, usize> = HashMap::new();
    let mut had: HashMap<u64, Nanos> = HashMap::new();
    let Pushed::Started(mut work, mut tenant) = lane.push(0, item(Class::Default, 1, 1)) else {
        panic!("it is empty");
    };
    let mut now = 0;
    for _ in 0..20_000 {
        for tenant in 1..=3 {
            let waits = waiting.entry(tenant).or_default();
            while *waits < 3 {
                lane.push(now, item(Class::Default, tenant, tenant));
                *waits += 1;
            }
        }
        now += service[&tenant];
        *had.entry(tenant).or_default() += service[&tenant];
        lane.finish(now, work, Outcome::Done);
        let Some(Popped::Started(next, _, of)) = lane.pop(now) else {
            panic!("somebody always waits, and not for long");
        };
        (work, tenant) = (next, of);
        *waiting.entry(tenant).or_default() -= 1;
    }
    let (least, most) = (had.values().min(), had.values().max());
    let (least, most) = (least.expect("three"), most.expect("three"));
    assert!(had.len() == 3 && *most < *least * 11 / 10, "{had:?}");
}

#[test]
fn what_cannot_be_done_in_time_is_refused_at_once() {
    let mut lane = Lane::new(settings(1, Discipline::Fifo), 0);
    let due = |deadline, payload| Item {
        deadline: Some(deadline),
        ..item(Class::Default, 1, payload)
    };
    let Pushed::Started(work, _) = lane.push(0, item(Class::Default, 1, "teaches 10 ms")) else {
        panic!("it is empty");
    };
    lane.finish(10 * MS, work, Outcome::Done);
    let Pushed::Started(_work, _) = lane.push(10 * MS, item(Class::Default, 1, "runs")) else {
        panic!("it is empty");
    };
    let late = lane.push(10 * MS, due(29 * MS, "late"));
    assert!(
        matches!(
            late,
            Pushed::Refused(
                Refusal {
                    reason: Reason::Deadline,
                    ..
                },
                "late"
            )
        ),
        "10 ms of waiting and 10 ms of service: {late:?}"
    );
    let pushed = lane.push(10 * MS, due(30 * MS, "in time"));
    assert!(matches!(pushed, Pushed::Queued { .. }), "{pushed:?}");
    let passed = lane.push(10 * MS, due(10 * MS, "passed"));
    assert!(matches!(passed, Pushed::Refused(..)), "{passed:?}");
}

#[test]
fn what_has_waited_too_long_is_dropped_when_its_turn_comes() {
    let (mut lane, work) = taken(model::Lane {
        queue_timeout: Duration::from_millis(100),
        ..settings(1, Discipline::Fifo)
    });
    wait(&mut lane, 0, Class::Default, 1, "old");
    wait(&mut lane, 60 * MS, Class::Default, 1, "young");
    lane.finish(100 * MS, work, Outcome::Other);
    let dropped = lane.pop(100 * MS);
    assert!(
        matches!(
            dropped,
            Some(Popped::Dropped(
                Refusal {
                    reason: Reason::Timeout,
                    ..
                },
                "old"
            ))
        ),
        "{dropped:?}"
    );
    let started = lane.pop(100 * MS);
    assert!(
        matches!(started, Some(Popped::Started(_, _, "young"))),
        "{started:?}"
    );
    assert!(lane.pop(100 * MS).is_none());
}

#[test]
fn a_tenant_that_waits_for_more_than_half_the_time_is_served_newest_first() {
    let (mut lane, work) = taken(model::Lane {
        queue_timeout: Duration::from_millis(100),
        ..settings(1, Discipline::Priority)
    });
    wait(&mut lane, 0, Class::Default, 1, "old");
    wait(&mut lane, 40 * MS, Class::Default, 1, "young");
    assert_eq!(order(&mut lane, 60 * MS, work), ["young", "old"]);
}

#[test]
fn a_full_queue_gives_up_the_newest_of_the_lowest_class_below() {
    let (mut lane, work) = taken(model::Lane {
        queue_max: 3,
        ..settings(1, Discipline::Priority)
    });
    wait(&mut lane, 1, Class::BestEffort, 1, "older");
    wait(&mut lane, 2, Class::BestEffort, 1, "newer");
    wait(&mut lane, 3, Class::Batch, 1, "batch");
    let full = lane.push(4, item(Class::BestEffort, 1, "one more"));
    assert!(
        matches!(
            full,
            Pushed::Refused(
                Refusal {
                    reason: Reason::Full,
                    ..
                },
                "one more"
            )
        ),
        "{full:?}"
    );
    let pushed = lane.push(5, item(Class::Critical, 1, "critical"));
    let Pushed::Queued {
        displaced: Some((refusal, "newer")),
        ..
    } = pushed
    else {
        panic!("{pushed:?}");
    };
    assert_eq!(refusal.reason, Reason::Class);
    assert_eq!(order(&mut lane, 6, work), ["critical", "batch", "older"]);
}

#[test]
fn a_full_queue_gives_up_the_newest_of_the_tenant_that_holds_most_of_it() {
    let (mut lane, work) = taken(model::Lane {
        queue_max: 2,
        ..settings(1, Discipline::Mlfq)
    });
    wait(&mut lane, 1, Class::Default, 1, "a1");
    wait(&mut lane, 2, Class::Default, 1, "a2");
    let pushed = lane.push(3, item(Class::Default, 2, "b"));
    let Pushed::Queued {
        displaced: Some((refusal, "a2")),
        ..
    } = pushed
    else {
        panic!("{pushed:?}");
    };
    assert_eq!(refusal.reason, Reason::Tenant);
    let pushed = lane.push(4, item(Class::Default, 2, "b2"));
    assert!(
        matches!(pushed, Pushed::Refused(..)),
        "they hold the same: {pushed:?}"
    );
    assert_eq!(order(&mut lane, 5, work), ["a1", "b"]);
}

#[test]
fn a_lane_without_a_queue_refuses_what_finds_no_slot() {
    let (mut lane, work) = taken(model::Lane {
        queue_max: 0,
        ..settings(1, Discipline::Priority)
    });
    let full = lane.push(1, item(Class::Critical, 1, "second"));
    assert!(matches!(full, Pushed::Refused(..)), "{full:?}");
    lane.finish(2, work, Outcome::Done);
    assert!(
        lane.slots.try_enter(),
        "nobody waits, so nobody needs the lock"
    );
}

#[test]
fn who_has_left_is_not_served() {
    let (mut lane, work) = taken(settings(1, Discipline::Mlfq));
    let Pushed::Queued { id, .. } = lane.push(1, item(Class::Default, 1, "leaves")) else {
        panic!("the slot is taken");
    };
    wait(&mut lane, 2, Class::Default, 1, "stays");
    assert_eq!(lane.leave(Class::Default, id), Some("leaves"));
    assert_eq!(lane.leave(Class::Default, id), None);
    assert_eq!(order(&mut lane, 3, work), ["stays"]);
}

#[test]
fn what_would_starve_gets_its_share_of_the_time_and_no_more() {
    let mut lane: Lane<Class> = Lane::new(
        model::Lane {
            floors: Floors {
                batch_percent: 15,
                ..Floors::default()
            },
            queue_timeout: Duration::from_secs(1_000),
            ..settings(4, Discipline::Priority)
        },
        0,
    );
    let service = |class| {
        if class == Class::Batch {
            100 * MS
        } else {
            3 * MS
        }
    };
    let mut running: Vec<(Nanos, Work)> = Vec::new();
    let mut now = 0;
    let mut had: HashMap<Class, Nanos> = HashMap::new();
    while now < 20_000 * MS {
        for class in [Class::Critical, Class::Batch] {
            while lane.queued_of(class) < 3 {
                if let Pushed::Started(work, class) = lane.push(now, item(class, 1, class)) {
                    running.push((now + service(class), work));
                }
            }
        }
        running.sort_by_key(|(end, _)| std::cmp::Reverse(*end));
        let (end, work) = running.pop().expect("slots are always in use");
        now = end;
        *had.entry(work.class()).or_default() += now - work.started;
        lane.finish(now, work, Outcome::Done);
        while let Some(Popped::Started(work, _, class)) = lane.pop(now) {
            running.push((now + service(class), work));
        }
    }
    let (batch, critical) = (had[&Class::Batch] as f64, had[&Class::Critical] as f64);
    let share = batch / (batch + critical);
    assert!((0.13..0.17).contains(&share), "{share}");
}

#[test]
fn auto_says_why_it_changes() {
    let (mut lane, work) = taken(settings(1, Discipline::Auto));
    assert_eq!(lane.discipline(), Discipline::Fifo);
    wait(&mut lane, 1, Class::BestEffort, 1, "a");
    assert_eq!(lane.take_switch(), None);
    wait(&mut lane, 2, Class::Default, 2, "b");
    let switch = lane.take_switch().expect("two wait for one slot");
    assert_eq!(switch.to, Discipline::Mlfq);
    assert_eq!(lane.take_switch(), None, "once");
    assert_eq!(order(&mut lane, 3, work), ["b", "a"]);
    let Pushed::Started(work, _) = lane.push(10 * SECOND, item(Class::Default, 1, "later")) else {
        panic!("it is empty");
    };
    lane.finish(10 * SECOND, work, Outcome::Done);
    assert_eq!(lane.discipline(), Discipline::Fifo);
    assert_eq!(lane.switches(), [1, 1]);
    let why = lane.why().expect("it has changed");
    assert!(why.starts_with("nobody waits"), "{why}");
}

#[test]
fn new_settings_keep_what_waits() {
    let (mut lane, work) = taken(settings(1, Discipline::Fifo));
    wait(&mut lane, 1, Class::BestEffort, 1, "a");
    wait(&mut lane, 2, Class::Critical, 1, "b");
    lane.set(2, settings(2, Discipline::Priority));
    let first = lane.pop(3);
    assert!(
        matches!(first, Some(Popped::Started(_, _, "b"))),
        "a slot has come: {first:?}"
    );
    assert_eq!(order(&mut lane, 4, work), ["a"]);
}

#[test]
fn tenants_without_number_take_no_memory_without_bound() {
    let mut lane: Lane<()> = Lane::new(settings(1, Discipline::Mlfq), 0);
    let Pushed::Started(_work, ()) = lane.push(0, item(Class::Default, 0, ())) else {
        panic!("it is empty");
    };
    for tenant in 0..10 * TENANTS_MAX as u64 {
        let pushed = lane.push(tenant, item(Class::Default, tenant, ()));
        if let Pushed::Queued { id, .. } = pushed {
            lane.leave(Class::Default, id);
        }
    }
    assert!(lane.bands[Class::Default as usize].tenants() <= TENANTS_MAX + 1);
}

/// One slot, and each 10 ms three of the default class and one of batch that take as long; what is told after half a second.
fn told_under_overload(discipline: Discipline) -> Option<Class> {
    let (mut lane, mut work) = taken(model::Lane {
        queue_max: 4,
        ..settings(1, discipline)
    });
    let mut now = 0;
    for _ in 0..50 {
        now += 10 * MS;
        for class in [Class::Batch, Class::Default, Class::Default, Class::Default] {
            let _ = lane.push(now, item(class, 1, "next"));
        }
        lane.finish(now, work, Outcome::Done);
        work = match lane.pop(now) {
            Some(Popped::Started(work, ..)) => work,
            other => panic!("somebody waits: {other:?}"),
        };
    }
    let told = lane.slots().word().admits(now);
    lane.finish(now, work, Outcome::Done);
    told
}

#[test]
fn a_class_that_gets_nowhere_is_told_so_where_the_class_matters() {
    assert_eq!(
        told_under_overload(Discipline::Priority),
        Some(Class::Default)
    );
    assert_eq!(told_under_overload(Discipline::Fifo), None);
}

#[test]
fn a_class_with_a_floor_finds_a_place_in_a_queue_full_of_what_matters_more() {
    let floors = Floors {
        batch_percent: 20,
        ..Floors::default()
    };
    let (mut lane, work) = taken(model::Lane {
        queue_max: 8,
        floors,
        ..settings(1, Discipline::Priority)
    });
    for id in 0..8 {
        wait(&mut lane, id, Class::Critical, 1, "critical");
    }
    for _ in 0..2 {
        let pushed = lane.push(10, item(Class::Batch, 2, "batch"));
        let Pushed::Queued {
            displaced: Some((refusal, "critical")),
            ..
        } = pushed
        else {
            panic!("two of eight places are its due: {pushed:?}");
        };
        assert_eq!(refusal.reason, Reason::Full);
    }
    let third = lane.push(11, item(Class::Batch, 2, "batch"));
    assert!(matches!(third, Pushed::Refused(..)), "{third:?}");
    let critical = lane.push(12, item(Class::Critical, 1, "critical"));
    assert!(
        matches!(critical, Pushed::Refused(..)),
        "what is due to others stays theirs: {critical:?}"
    );
    assert_eq!(lane.queued_of(Class::Batch), 2);
    lane.finish(20, work, Outcome::Other);
}
