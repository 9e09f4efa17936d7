//! A circuit as requests see it, on a clock that only moves when told.

use super::*;
use crate::base::rng;
use crate::model::{CircuitBreaker as Policy, Outlier, Service};
use crate::proxy::cluster::testing::{cluster, service};
use crate::proxy::cluster::{Cluster, Outcome};

const MILLISECOND: Duration = Duration::from_millis(1);

struct Scene {
    cluster: Arc<Cluster>,
    now: Instant,
    rng: fastrand::Rng,
}

impl Scene {
    fn new(policy: Policy) -> Self {
        Self {
            cluster: cluster(with(Some(policy)), 4),
            now: Instant::now(),
            rng: rng::for_test(),
        }
    }

    fn enter(&mut self) -> Result<Pass, CircuitOpen> {
        let entered = self.cluster.enter(self.now, &mut self.rng);
        entered.map(|pass| pass.expect("there is a breaker"))
    }

    fn ends(&mut self, outcome: Outcome) {
        self.ends_after(outcome, MILLISECOND);
    }

    fn ends_after(&mut self, outcome: Outcome, latency: Duration) {
        let mut pass = self.enter().expect("it may pass");
        pass.answered(outcome, self.now - latency, self.now);
    }

    fn opens(&mut self) {
        for _ in 0..10 {
            self.ends(Outcome::GatewayFailure);
        }
        assert_eq!(self.standing(), Standing::Open);
    }

    fn passes(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn report(&self) -> CircuitReport {
        self.cluster.report(self.now).circuit.expect("a breaker")
    }

    fn standing(&self) -> Standing {
        self.report().standing
    }
}

fn with(policy: Option<Policy>) -> Service {
    let mut service = service();
    service.circuit.breaker = policy;
    service
}

#[test]
fn a_service_without_a_breaker_lets_everybody_pass() {
    let cluster = cluster(service(), 1);
    let entered = cluster.enter(Instant::now(), &mut rng::for_test());
    assert!(entered.is_ok_and(|pass| pass.is_none()));
    assert_eq!(cluster.report(Instant::now()).circuit, None);
}

#[test]
fn an_open_circuit_says_why_and_until_when() {
    let mut scene = Scene::new(Policy::default());
    scene.opens();
    let refusal = scene.enter().unwrap_err();
    let said = refusal.to_string();
    assert!(
        said.starts_with("10 failures in a row; tried again in 5."),
        "{said}"
    );
    assert_eq!(scene.report().refused, 1);
    scene.passes(6);
    let _probes = [scene.enter(), scene.enter(), scene.enter()];
    let said = scene.enter().unwrap_err().to_string();
    assert_eq!(said, "10 failures in a row; being tried again just now");
}

#[test]
fn it_closes_after_its_probes_and_what_was_counted_before_is_forgotten() {
    let mut scene = Scene::new(Policy::default());
    (0..20).for_each(|_| scene.ends(Outcome::Success));
    for _ in 0..21 {
        scene.ends(Outcome::Failure5xx);
        if scene.standing() == Standing::Open {
            break;
        }
    }
    scene.passes(6);
    (0..3).for_each(|_| scene.ends(Outcome::Success));
    assert_eq!(scene.standing(), Standing::Closed);
    (0..9).for_each(|_| scene.ends(Outcome::Failure5xx));
    assert_eq!(scene.standing(), Standing::Closed);
    assert_eq!(scene.report().transitions, [1, 1, 1]);
}

#[test]
fn a_failed_probe_opens_it_again_for_longer() {
    let mut scene = Scene::new(Policy::default());
    scene.opens();
    scene.passes(6);
    scene.ends(Outcome::Timeout);
    scene.passes(6);
    let said = scene.enter().unwrap_err().to_string();
    assert!(said.starts_with("a request that tried it failed"), "{said}");
    scene.passes(6);
    assert!(scene.enter().is_ok());
}

#[test]
fn refusals_for_want_of_capacity_and_clients_that_leave_open_nothing() {
    let mut scene = Scene::new(Policy::default());
    for _ in 0..100 {
        scene.ends(Outcome::Shed { retry_after: None });
        scene.ends(Outcome::Cancelled);
        drop(scene.enter());
    }
    assert_eq!(scene.standing(), Standing::Closed);
}

#[test]
fn a_share_of_slow_answers_opens_it_though_none_has_failed() {
    let slow = Duration::from_millis(501);
    let mut scene = Scene::new(Policy {
        slow_after: Some(Duration::from_millis(500)),
        slow_percent: 50,
        ..Policy::default()
    });
    (0..10).for_each(|_| scene.ends(Outcome::Success));
    (0..10).for_each(|_| scene.ends_after(Outcome::Success, slow));
    assert_eq!(scene.standing(), Standing::Closed);
    scene.ends_after(Outcome::Success, slow);
    assert_eq!(scene.standing(), Standing::Open);
}

#[test]
fn shares_reach_back_as_far_as_the_window() {
    let mut scene = Scene::new(Policy {
        consecutive_failures: 0,
        ..Policy::default()
    });
    (0..19).for_each(|_| scene.ends(Outcome::Reset));
    scene.passes(10);
    (0..19).for_each(|_| scene.ends(Outcome::Reset));
    assert_eq!(scene.standing(), Standing::Closed);
    scene.ends(Outcome::Reset);
    assert_eq!(scene.standing(), Standing::Open);
}

#[test]
fn an_answer_that_breaks_off_is_a_failure_and_no_second_request() {
    let mut scene = Scene::new(Policy {
        consecutive_failures: 2,
        ..Policy::default()
    });
    for _ in 0..2 {
        let mut pass = scene.enter().unwrap();
        pass.answered(Outcome::Success, scene.now, scene.now);
        pass.failed(scene.now, scene.now);
        pass.failed(scene.now, scene.now);
    }
    assert_eq!(
        scene.standing(),
        Standing::Closed,
        "each began with a success"
    );
    let mut passes: Vec<Pass> = (0..2).map(|_| scene.enter().unwrap()).collect();
    for pass in &mut passes {
        pass.answered(Outcome::Success, scene.now, scene.now);
    }
    for pass in &mut passes {
        pass.failed(scene.now, scene.now);
    }
    assert_eq!(scene.standing(), Standing::Open);
}

#[test]
fn a_changed_policy_keeps_an_open_circuit_open_and_none_closes_it() {
    let mut scene = Scene::new(Policy::default());
    scene.opens();
    let stricter = Policy {
        consecutive_failures: 2,
        ..Policy::default()
    };
    scene
        .cluster
        .update_service(&Arc::new(with(Some(stricter))));
    assert!(scene.enter().is_err());
    scene.cluster.update_service(&Arc::new(with(None)));
    let entered = scene.cluster.enter(scene.now, &mut scene.rng);
    assert!(entered.is_ok_and(|pass| pass.is_none()));
}

#[test]
fn each_change_is_told_with_its_cause_and_how_long_it_lasts() {
    let mut scene = Scene::new(Policy::default());
    scene.opens();
    scene.passes(6);
    (0..3).for_each(|_| scene.ends(Outcome::Success));
    let events = scene.cluster.shared.events.since(0, 9).events;
    let told: Vec<_> = events
        .iter()
        .map(|event| (&*event.cause, &*event.action, &*event.evidence))
        .collect();
    let expected = [
        (
            "consecutive_failures",
            "circuit opened",
            "10 failures in a row",
        ),
        (
            "wait_over",
            "circuit half-open",
            "its time is up; 3 may try it",
        ),
        (
            "answered",
            "circuit closed",
            "3 requests that tried it were answered",
        ),
    ];
    assert_eq!(told, expected);
    let lasts = events[0].duration_ms.unwrap();
    assert!((5_000..=5_502).contains(&lasts), "{lasts}");
    assert_eq!(events[2].duration_ms, Some(6_000));
}

#[test]
fn while_it_is_open_all_endpoints_may_be_ejected() {
    let eager = Outlier {
        consecutive_5xx: 1,
        ..Outlier::default()
    };
    let mut scene = Scene::new(Policy::default());
    let service = Service {
        outlier: eager,
        ..with(Some(Policy::default()))
    };
    scene.cluster.update_service(&Arc::new(service));
    let fail = |scene: &mut Scene| {
        let leases: Vec<_> = (0..100)
            .map(|_| scene.cluster.pick(&[], scene.now, &mut scene.rng).unwrap())
            .collect();
        for lease in leases {
            lease.settle(Outcome::Failure5xx, MILLISECOND, scene.now);
        }
        scene.cluster.shared.ejected.load(Ordering::Relaxed)
    };
    assert_eq!(fail(&mut scene), 1);
    scene.opens();
    assert_eq!(fail(&mut scene), 4);
}

/// Threads that fail, succeed and are silent: what is counted is what is told, and in the end the circuit can be closed.
#[test]
fn threads_together_make_each_transition_once() {
    let mut scene = Scene::new(Policy {
        consecutive_failures: 5,
        open: MILLISECOND,
        open_max: MILLISECOND,
        ..Policy::default()
    });
    let circuit = scene.cluster.clone();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut rng = rng::for_test();
                for _ in 0..5_000 {
                    let now = Instant::now();
                    let Ok(Some(mut pass)) = circuit.enter(now, &mut rng) else {
                        std::thread::yield_now();
                        continue;
                    };
                    match rng.u8(..8) {
                        0 => {}
                        1..=4 => pass.failed(now, now),
                        _ => pass.answered(Outcome::Success, now, now),
                    }
                }
            });
        }
    });
    scene.now = Instant::now();
    let [closed, open, half_open] = scene.report().transitions;
    assert!(open > 0 && half_open <= open && closed <= half_open);
    let events = scene.cluster.shared.events.totals();
    let told: u64 = events.map(|(_, count)| count).sum();
    assert_eq!(told, closed + open + half_open);
    scene.passes(60);
    (0..3).for_each(|_| scene.ends(Outcome::Success));
    assert_eq!(scene.standing(), Standing::Closed);
}
