//! Scenarios of one cluster: picks, verdicts, limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::report::Why;
use super::testing::{address, cluster, endpoint, key, service, with_policy};
use super::*;
use crate::base::rng::for_test;
use crate::model::{Circuit, EndpointState, Outlier, Policy};

const POLICIES: [Policy; 5] = [
    Policy::RoundRobin,
    Policy::WeightedRoundRobin,
    Policy::LeastRequest,
    Policy::LeastConnections,
    Policy::PeakEwma,
];

const MILLISECOND: Duration = Duration::from_millis(1);

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A cluster with a clock that only moves when told.
struct Scene {
    cluster: Arc<Cluster>,
    now: Instant,
    rng: fastrand::Rng,
}

impl Scene {
    fn new(service: Service, endpoints: u16) -> Self {
        Self {
            cluster: cluster(service, endpoints),
            now: Instant::now(),
            rng: for_test(),
        }
    }

    fn pick(&mut self) -> Lease {
        self.pick_avoiding(&[]).unwrap()
    }

    fn pick_avoiding(&mut self, avoid: &[EndpointId]) -> Result<Lease, PickError> {
        self.cluster.pick(avoid, self.now, &mut self.rng)
    }

    fn settle(&self, lease: Lease, outcome: Outcome) {
        lease.settle(outcome, MILLISECOND, self.now);
    }

    /// Picks until the endpoint at this port comes, and settles that; the others are let go.
    fn outcome_at(&mut self, port: u16, outcome: Outcome) {
        for _ in 0..10_000 {
            let lease = self.pick();
            if lease.endpoint().address.port() == port {
                return self.settle(lease, outcome);
            }
        }
        panic!("no pick of {port} in 10,000");
    }

    /// The ports of so many picks, each settled as a success.
    fn ports(&mut self, picks: usize) -> Vec<u16> {
        (0..picks)
            .map(|_| {
                let lease = self.pick();
                let port = lease.endpoint().address.port();
                self.settle(lease, Outcome::Success);
                port
            })
            .collect()
    }

    fn picked(&mut self, port: u16, picks: usize) -> usize {
        self.ports(picks).iter().filter(|p| **p == port).count()
    }

    fn why(&self, port: u16) -> Why {
        let report = self.cluster.report(self.now);
        let found = report
            .endpoints
            .iter()
            .find(|e| e.endpoint.address == address(port));
        found.unwrap().why
    }
}

fn round_robin() -> Service {
    with_policy(Policy::RoundRobin)
}

fn without_ejection() -> Service {
    Service {
        outlier: Outlier {
            consecutive_5xx: 0,
            ..Outlier::default()
        },
        ..round_robin()
    }
}

#[test]
fn round_robin_gives_each_endpoint_its_turn() {
    let ports = Scene::new(round_robin(), 3).ports(6);
    assert_eq!(ports[..3], ports[3..]);
    let mut first = ports[..3].to_vec();
    first.sort();
    assert_eq!(first, [1, 2, 3]);
}

#[test]
fn every_policy_reaches_every_endpoint() {
    for policy in POLICIES {
        let mut scene = Scene::new(with_policy(policy), 4);
        let held: Vec<Lease> = (0..400).map(|_| scene.pick()).collect();
        let set = scene.cluster.endpoints();
        assert!(
            set.endpoints.iter().all(|e| e.in_flight() > 50),
            "{policy:?}"
        );
        drop(held);
        assert!(set.endpoints.iter().all(|e| e.in_flight() == 0));
    }
}

#[test]
fn weights_are_kept_by_every_policy_idle_and_busy() {
    for policy in POLICIES {
        let mut scene = Scene::new(with_policy(policy), 0);
        let heavy = model::Endpoint {
            weight: 3,
            ..endpoint(1)
        };
        scene.cluster.set_endpoints(vec![heavy, endpoint(2)]);
        let idle = scene.picked(1, 4_000);
        assert!((2_800..3_200).contains(&idle), "{policy:?} {idle}");
        let held: Vec<Lease> = (0..400).map(|_| scene.pick()).collect();
        let busy = scene.cluster.endpoints().endpoints[0].in_flight();
        // Chances of weight / (active + 1) settle where the actives are as the weights' square roots.
        let expected = match policy {
            Policy::LeastRequest => 200..300,
            _ => 270..330,
        };
        assert!(expected.contains(&busy), "{policy:?} {busy}");
        drop(held);
    }
}

#[test]
fn an_empty_cluster_has_no_endpoint() {
    let error = Scene::new(service(), 0).pick_avoiding(&[]).unwrap_err();
    assert_eq!(error, PickError::NoEndpoint);
}

#[test]
fn draining_and_weightless_endpoints_get_nothing_new_and_the_error_says_so() {
    let mut scene = Scene::new(service(), 0);
    let draining = model::Endpoint {
        state: EndpointState::Draining,
        ..endpoint(1)
    };
    let weightless = model::Endpoint {
        weight: 0,
        ..endpoint(2)
    };
    scene.cluster.set_endpoints(vec![draining, weightless]);
    let expected = PickError::NoneHealthy {
        draining: 1,
        weightless: 1,
    };
    assert_eq!(scene.pick_avoiding(&[]).unwrap_err(), expected);
    assert_eq!(scene.why(1), Why::Draining);
    assert_eq!(scene.why(2), Why::WeightZero);
}

#[test]
fn an_endpoint_that_drains_finishes_what_it_holds() {
    let mut scene = Scene::new(round_robin(), 1);
    let lease = scene.pick();
    let draining = model::Endpoint {
        state: EndpointState::Draining,
        ..endpoint(1)
    };
    scene.cluster.set_endpoints(vec![draining, endpoint(2)]);
    assert_eq!(scene.picked(1, 20), 0);
    assert_eq!(scene.cluster.endpoints().endpoints[0].in_flight(), 1);
    scene.settle(lease, Outcome::Success);
    assert_eq!(scene.cluster.endpoints().endpoints[0].in_flight(), 0);
}

#[test]
fn a_retry_goes_to_another_endpoint_until_all_have_been_tried() {
    for policy in POLICIES {
        let mut scene = Scene::new(with_policy(policy), 5);
        let mut tried = Vec::new();
        while let Ok(lease) = scene.pick_avoiding(&tried) {
            tried.push(lease.endpoint().id);
        }
        tried.sort();
        tried.dedup();
        assert_eq!(tried.len(), 5, "{policy:?}");
        let error = scene.pick_avoiding(&tried).unwrap_err();
        assert_eq!(error, PickError::AllTried);
    }
}

#[test]
fn an_endpoint_whose_connect_failed_is_left_alone_for_a_second_and_then_tried_once() {
    let mut scene = Scene::new(without_ejection(), 3);
    scene.outcome_at(1, Outcome::ConnectFailure);
    assert_eq!(scene.picked(1, 100), 0);
    assert!(matches!(scene.why(1), Why::ConnectFailed(_)));
    scene.now += seconds(1.2);
    assert_eq!(scene.why(1), Why::ProbeDue);
    let probe = scene.pick();
    assert!(probe.is_probe() && probe.endpoint().address.port() == 1);
    assert_eq!(scene.why(1), Why::Probing);
    assert_eq!(scene.picked(1, 100), 0);
    scene.settle(probe, Outcome::Success);
    assert_eq!(scene.picked(1, 99), 33);
}

#[test]
fn an_endpoint_that_stays_unreachable_is_tried_less_and_less() {
    let mut scene = Scene::new(without_ejection(), 2);
    scene.outcome_at(1, Outcome::ConnectFailure);
    let start = scene.now;
    let mut probes = Vec::new();
    while scene.now < start + seconds(200.0) {
        scene.now += seconds(0.1);
        let lease = scene.pick();
        let port = lease.endpoint().address.port();
        let outcome = match port {
            1 => Outcome::ConnectFailure,
            _ => Outcome::Success,
        };
        scene.settle(lease, outcome);
        if port == 1 {
            probes.push((scene.now - start).as_secs());
        }
    }
    // 1 + 2 + 4 + 8 + 16 s, then every 30 to 33 s.
    assert!((8..=11).contains(&probes.len()), "{probes:?}");
}

#[test]
fn the_only_endpoint_is_tried_even_right_after_its_connect_failed() {
    let mut scene = Scene::new(service(), 1);
    for _ in 0..20 {
        scene.outcome_at(1, Outcome::ConnectFailure);
    }
    assert_eq!(scene.pick().endpoint().address.port(), 1);
}

#[test]
fn five_failures_in_a_row_eject_and_one_probe_brings_back() {
    let mut scene = Scene::new(round_robin(), 3);
    for _ in 0..5 {
        scene.outcome_at(1, Outcome::Failure5xx);
    }
    assert!(matches!(scene.why(1), Why::Ejected(_)));
    assert_eq!(scene.picked(1, 100), 0);
    scene.now += seconds(29.0);
    assert_eq!(scene.picked(1, 100), 0);
    scene.now += seconds(5.0);
    let probe = scene.pick();
    assert!(probe.is_probe());
    assert_eq!(scene.picked(1, 100), 0);
    scene.settle(probe, Outcome::Success);
    assert_eq!(scene.picked(1, 99), 33);
    let ejections = scene.cluster.endpoints().endpoints[0].ejections_total();
    assert_eq!(ejections, 1);
}

#[test]
fn a_dropped_probe_leaves_the_next_request_to_probe() {
    let mut scene = Scene::new(round_robin(), 3);
    for _ in 0..5 {
        scene.outcome_at(1, Outcome::Timeout);
    }
    scene.now += seconds(40.0);
    drop(scene.pick());
    let probe = scene.pick();
    assert!(probe.is_probe() && probe.endpoint().address.port() == 1);
}

#[test]
fn a_probe_refused_by_a_limit_leaves_the_next_request_to_probe() {
    let mut scene = Scene::new(round_robin(), 2);
    for _ in 0..5 {
        scene.outcome_at(1, Outcome::Failure5xx);
    }
    scene.now += seconds(40.0);
    let full = Service {
        circuit: Circuit {
            requests_max: 0,
            ..Circuit::default()
        },
        ..round_robin()
    };
    scene.cluster.update_service(&Arc::new(full));
    let error = scene.pick_avoiding(&[]).unwrap_err();
    assert_eq!(error, PickError::Overflow(Overflow::Requests));
    scene.cluster.update_service(&Arc::new(round_robin()));
    assert!(scene.pick().is_probe());
}

#[test]
fn an_answer_judges_a_probe_before_its_body_ends() {
    let mut scene = Scene::new(round_robin(), 2);
    for _ in 0..5 {
        scene.outcome_at(1, Outcome::Failure5xx);
    }
    scene.now += seconds(40.0);
    let mut probe = scene.pick();
    probe.answered(Outcome::Success, MILLISECOND, scene.now);
    assert_eq!(scene.why(1), Why::Healthy);
    assert_eq!(probe.endpoint().in_flight(), 1);
    probe.settle(Outcome::Reset, MILLISECOND, scene.now);
    assert!(matches!(scene.why(1), Why::ConnectionBroke(_)));
}

#[test]
fn no_more_than_a_tenth_is_ejected_but_always_one() {
    for (endpoints, ejected) in [(3, 1), (30, 3)] {
        let mut scene = Scene::new(round_robin(), endpoints);
        for _ in 0..20 * endpoints {
            let lease = scene.pick();
            scene.settle(lease, Outcome::Failure5xx);
        }
        let report = scene.cluster.report(scene.now);
        let found = report.endpoints.iter();
        let found = found.filter(|e| matches!(e.why, Why::Ejected(_))).count();
        assert_eq!(found, ejected);
    }
}

#[test]
fn an_ejected_endpoint_that_is_removed_leaves_its_place_to_another() {
    let mut scene = Scene::new(round_robin(), 3);
    for _ in 0..5 {
        scene.outcome_at(1, Outcome::Failure5xx);
    }
    scene.cluster.set_endpoints(vec![endpoint(2), endpoint(3)]);
    for _ in 0..5 {
        scene.outcome_at(2, Outcome::Failure5xx);
    }
    assert!(matches!(scene.why(2), Why::Ejected(_)));
}

#[test]
fn shed_requests_and_cancelled_ones_eject_nobody() {
    let mut scene = Scene::new(round_robin(), 2);
    for _ in 0..100 {
        let lease = scene.pick();
        scene.settle(lease, Outcome::Shed { retry_after: None });
        let lease = scene.pick();
        scene.settle(lease, Outcome::Cancelled);
    }
    assert_eq!((scene.why(1), scene.why(2)), (Why::Healthy, Why::Healthy));
}

#[test]
fn a_failing_or_shedding_endpoint_does_not_attract_traffic_by_its_speed() {
    for outcome in [
        Outcome::Shed { retry_after: None },
        Outcome::Failure5xx,
        Outcome::GatewayFailure,
    ] {
        let never = Outlier {
            consecutive_5xx: 0,
            ..Outlier::default()
        };
        let mut scene = Scene::new(
            Service {
                outlier: never,
                ..service()
            },
            2,
        );
        scene.outcome_at(1, outcome);
        scene.outcome_at(2, Outcome::Success);
        assert_eq!(scene.picked(1, 100), 0, "{outcome:?}");
    }
}

#[test]
fn retry_after_is_honoured_up_to_five_minutes() {
    let latency = |asked: u64| {
        let mut scene = Scene::new(service(), 1);
        let retry_after = Some(Duration::from_secs(asked));
        let lease = scene.pick();
        scene.settle(lease, Outcome::Shed { retry_after });
        let report = scene.cluster.report(scene.now);
        report.endpoints[0].latency.unwrap().as_secs_f64().round()
    };
    assert_eq!([1, 60, 9_999].map(latency), [5.0, 60.0, 300.0]);
}

#[test]
fn the_slower_endpoint_is_left_to_the_faster_one_and_tried_again_some_day() {
    let mut scene = Scene::new(service(), 2);
    let mut slow_picks = 0;
    for step in 0..4_000 {
        scene.now += seconds(0.01);
        let lease = scene.pick();
        let slow = lease.endpoint().address.port() == 1;
        let latency = if slow { 100 } else { 10 };
        lease.settle(Outcome::Success, Duration::from_millis(latency), scene.now);
        slow_picks += usize::from(slow && step >= 100);
    }
    assert!((1..100).contains(&slow_picks), "{slow_picks}");
}

#[test]
fn requests_over_the_limit_are_refused_and_a_settled_one_makes_room() {
    let limited = Service {
        circuit: Circuit {
            requests_max: 2,
            ..Circuit::default()
        },
        ..service()
    };
    let mut scene = Scene::new(limited, 2);
    let (first, _second) = (scene.pick(), scene.pick());
    let error = scene.pick_avoiding(&[]).unwrap_err();
    assert_eq!(error, PickError::Overflow(Overflow::Requests));
    assert!(error.to_string().contains("circuit.requests_max"));
    scene.settle(first, Outcome::Success);
    let _third = scene.pick();
    assert_eq!(scene.cluster.limits().refused(Overflow::Requests), 1);
}

#[test]
fn connections_are_limited_for_the_service_and_for_each_endpoint() {
    let limited = Service {
        circuit: Circuit {
            connections_max: 3,
            endpoint_connections_max: 2,
            ..Circuit::default()
        },
        ..service()
    };
    let cluster = cluster(limited, 2);
    let set = cluster.endpoints();
    let [a, b] = &set.endpoints[..] else {
        panic!("two endpoints");
    };
    let first = cluster.try_connection(a).unwrap();
    let _second = cluster.try_connection(a).unwrap();
    let refused = cluster.try_connection(a).unwrap_err();
    assert_eq!(refused, Overflow::EndpointConnections);
    let _third = cluster.try_connection(b).unwrap();
    assert_eq!(
        cluster.try_connection(b).unwrap_err(),
        Overflow::Connections
    );
    assert_eq!(b.connections(), 1, "a refused one leaves no trace");
    drop(first);
    let _fourth = cluster.try_connection(b).unwrap();
    assert_eq!(cluster.limits().connections(), 3);
}

#[tokio::test]
async fn a_connection_given_back_wakes_one_who_waits() {
    let cluster = cluster(service(), 1);
    let permit = cluster
        .try_connection(&cluster.endpoints().endpoints[0])
        .unwrap();
    let waiter = {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.limits().connection_returned().await })
    };
    tokio::task::yield_now().await;
    drop(permit);
    waiter.await.unwrap();
}

#[test]
fn what_is_known_of_an_address_survives_a_changed_description() {
    let mut scene = Scene::new(round_robin(), 2);
    let lease = scene.pick();
    let id = lease.endpoint().id;
    let heavier = |port| model::Endpoint {
        weight: 5,
        ..endpoint(port)
    };
    scene.cluster.set_endpoints(vec![heavier(1), heavier(2)]);
    let set = scene.cluster.endpoints();
    let same = set.endpoints.iter().find(|e| e.id == id).unwrap();
    assert_eq!((same.in_flight(), same.model.weight), (1, 5));
    drop(lease);
    assert_eq!(same.in_flight(), 0);
}

#[test]
fn an_unchanged_set_changes_nothing() {
    let cluster = cluster(service(), 3);
    let before = cluster.endpoints();
    cluster.set_endpoints((1..=3).map(endpoint).collect());
    assert!(Arc::ptr_eq(&before, &cluster.endpoints()));
}

#[test]
fn an_address_that_left_and_returned_starts_afresh() {
    let scene = Scene::new(service(), 2);
    let before = scene.cluster.endpoints().endpoints[0].id;
    scene.cluster.set_endpoints(vec![endpoint(2)]);
    scene.cluster.set_endpoints(vec![endpoint(1), endpoint(2)]);
    assert_ne!(scene.cluster.endpoints().endpoints[0].id, before);
}

#[test]
fn the_own_zone_is_preferred() {
    let zoned = Cluster::new(key(), &Arc::new(round_robin()), Some("a".into()));
    let at = |port, zone: &str| model::Endpoint {
        zone: Some(zone.into()),
        ..endpoint(port)
    };
    zoned.set_endpoints(vec![at(1, "a"), at(2, "b"), at(3, "b")]);
    let mut rng = for_test();
    let mut pick = || zoned.pick(&[], Instant::now(), &mut rng).unwrap();
    assert!((0..20).all(|_| pick().endpoint().address.port() == 1));
}

#[test]
fn traffic_splits_between_priorities_by_what_the_first_can_carry() {
    let mut scene = Scene::new(without_ejection(), 0);
    let at = |port, priority| model::Endpoint {
        priority,
        ..endpoint(port)
    };
    scene
        .cluster
        .set_endpoints(vec![at(1, 0), at(2, 0), at(3, 1)]);
    scene.outcome_at(1, Outcome::ConnectFailure);
    let second = scene.picked(3, 10_000);
    // Half of the first priority × 1.4 carries 70 %.
    assert!((2_700..3_300).contains(&second), "{second}");
}

#[test]
fn outcomes_are_counted_by_kind() {
    let mut scene = Scene::new(round_robin(), 1);
    for outcome in [Outcome::Success, Outcome::Success, Outcome::Timeout] {
        scene.outcome_at(1, outcome);
    }
    drop(scene.pick());
    let totals = scene.cluster.endpoints().endpoints[0].totals();
    let named: Vec<_> = std::iter::zip(Outcome::NAMES, totals)
        .filter(|(_, total)| *total > 0)
        .collect();
    assert_eq!(named, [("success", 2), ("timeout", 1), ("cancelled", 1)]);
}

/// Threads pick, settle, connect and change the set at once: limits hold at every moment, and in the end nothing is held.
#[test]
fn limits_hold_and_every_count_returns_to_zero_under_threads() {
    const REQUESTS_MAX: u32 = 5;
    const CONNECTIONS_MAX: u32 = 4;
    let limited = Service {
        circuit: Circuit {
            requests_max: REQUESTS_MAX,
            connections_max: CONNECTIONS_MAX,
            endpoint_connections_max: 2,
            pending_max: 3,
            ..Circuit::default()
        },
        outlier: Outlier {
            consecutive_5xx: 2,
            base_ejection: MILLISECOND,
            max_ejection_percent: 50,
            ..Outlier::default()
        },
        ..service()
    };
    let cluster = cluster(limited, 6);
    let all = cluster.endpoints();
    let most = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| hammer(&cluster, &most));
        }
        scope.spawn(|| {
            for round in 0..200_u16 {
                let count = 3 + round % 4;
                cluster.set_endpoints((1..=count).map(endpoint).collect());
                std::thread::yield_now();
            }
        });
    });
    assert!(most.load(Ordering::Relaxed) <= REQUESTS_MAX);
    let limits = cluster.limits();
    let counts = [limits.requests(), limits.pending(), limits.connections()];
    assert_eq!(counts, [0, 0, 0]);
    let last = cluster.endpoints();
    for endpoint in all.endpoints.iter().chain(&last.endpoints) {
        assert_eq!((endpoint.in_flight(), endpoint.connections()), (0, 0));
    }
    let phases = last.endpoints.iter().map(|e| e.breaker().phase);
    let ejected = phases.filter(|phase| phase.is_ejected()).count();
    assert_eq!(cluster.shared.ejected.now() as usize, ejected);
}

fn hammer(cluster: &Arc<Cluster>, most: &AtomicU32) {
    let mut rng = for_test();
    for round in 0..5_000 {
        let _pending = cluster.try_pending();
        most.fetch_max(cluster.limits().requests(), Ordering::Relaxed);
        assert!(cluster.limits().pending() <= 3 && cluster.limits().connections() <= 4);
        let lease = match cluster.pick(&[], Instant::now(), &mut rng) {
            Ok(lease) => lease,
            Err(PickError::Overflow(Overflow::Requests)) => continue,
            Err(other) => panic!("{other}"),
        };
        let _connection = cluster.try_connection(lease.endpoint());
        let outcome = match round % 7 {
            0 => Outcome::ConnectFailure,
            1 | 2 => Outcome::Failure5xx,
            3 => Outcome::Reset,
            4 => continue,
            _ => Outcome::Success,
        };
        lease.settle(outcome, MILLISECOND, Instant::now());
    }
}
