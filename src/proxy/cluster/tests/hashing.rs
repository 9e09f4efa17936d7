//! Policies that hash: where keys lead while endpoints come, go, fail and are busy.

use super::*;
use crate::base::hash::xxh64;
use crate::model::Hashing;

const HASHING: [Policy; 2] = [Policy::Maglev, Policy::RingHash];
const KEYS: u64 = 2_000;

fn key(number: u64) -> u64 {
    xxh64(&number.to_le_bytes(), 0)
}

impl Scene {
    fn pick_by_key(&mut self, key: u64, avoid: &[EndpointId]) -> Result<Lease, PickError> {
        self.cluster
            .pick_by_key(Some(key), avoid, self.now, &mut self.rng)
    }

    fn port_of(&mut self, key: u64) -> u16 {
        let lease = self.pick_by_key(key, &[]).unwrap();
        lease.endpoint().address.port()
    }

    /// Where all the keys lead.
    fn map(&mut self) -> Vec<u16> {
        (0..KEYS).map(|number| self.port_of(key(number))).collect()
    }
}

fn with(policy: Policy, bounded_load_percent: Option<u32>) -> Service {
    let mut service = with_policy(policy);
    let hashing = Hashing {
        bounded_load_percent,
        ..Hashing::default()
    };
    service.balance.hashing = Some(Arc::new(hashing));
    service
}

/// The share of keys that lead elsewhere, though they need not.
fn moved_needlessly(before: &[u16], after: &[u16], gone: u16) -> f64 {
    let moved = std::iter::zip(before, after).filter(|(was, is)| was != is && **was != gone);
    moved.count() as f64 / before.len() as f64
}

#[test]
fn a_key_leads_to_the_same_endpoint_whatever_the_order_they_are_told_in() {
    for policy in HASHING {
        let mut scene = Scene::new(with_policy(policy), 7);
        let before = scene.map();
        assert_eq!(scene.map(), before);
        let reversed = (1..=7).rev().map(endpoint).collect();
        scene.cluster.set_endpoints(reversed);
        assert_eq!(scene.map(), before, "{policy:?}");
    }
}

#[test]
fn keys_are_shared_by_weight() {
    for policy in HASHING {
        let mut scene = Scene::new(with_policy(policy), 0);
        let heavy = model::Endpoint {
            weight: 3,
            ..endpoint(1)
        };
        scene.cluster.set_endpoints(vec![heavy, endpoint(2)]);
        let share = scene.map().iter().filter(|port| **port == 1).count() as f64 / KEYS as f64;
        assert!((0.65..0.85).contains(&share), "{policy:?} {share}");
    }
}

#[test]
fn an_ejected_endpoint_loses_its_keys_and_has_them_again_and_no_other_key_moves() {
    for policy in HASHING {
        let mut service = with_policy(policy);
        service.balance.slow_start.window = Duration::ZERO;
        let mut scene = Scene::new(service, 5);
        let before = scene.map();
        let own = (0..KEYS)
            .map(key)
            .find(|key| scene.port_of(*key) == 3)
            .unwrap();
        for _ in 0..5 {
            let lease = scene.pick_by_key(own, &[]).unwrap();
            scene.settle(lease, Outcome::Failure5xx);
        }
        assert!(matches!(scene.why(3), Why::Ejected(_)));
        let without = scene.map();
        assert!(!without.contains(&3));
        assert_eq!(moved_needlessly(&before, &without, 3), 0.0, "{policy:?}");
        scene.now += seconds(34.0);
        let probe = scene.pick();
        assert!(probe.is_probe());
        scene.settle(probe, Outcome::Success);
        assert_eq!(scene.map(), before, "{policy:?}");
    }
}

#[test]
fn one_that_comes_back_slowly_has_the_same_keys_each_time() {
    for policy in HASHING {
        let mut scene = Scene::new(with_policy(policy), 4);
        let before = scene.map();
        let own = |map: &[u16]| map.iter().filter(|port| **port == 2).count();
        let set = scene.cluster.endpoints();
        set.endpoints[1].has_returned(nanos(scene.now));
        let mut seen = 0;
        for second in [0.0, 3.0, 6.0, 9.0] {
            let before = scene.now;
            scene.now += seconds(second);
            let map = scene.map();
            assert_eq!(scene.map(), map, "{policy:?}");
            assert!(own(&map) >= seen);
            seen = own(&map);
            scene.now = before;
        }
        assert!(seen < own(&before));
        scene.now += seconds(11.0);
        assert_eq!(scene.map(), before, "{policy:?}");
    }
}

#[test]
fn the_removal_of_one_of_ten_moves_a_tenth_of_the_keys() {
    for policy in HASHING {
        let mut scene = Scene::new(with_policy(policy), 10);
        let before = scene.map();
        let rest = (1..=10).filter(|port| *port != 4).map(endpoint).collect();
        scene.cluster.set_endpoints(rest);
        let after = scene.map();
        let moved = std::iter::zip(&before, &after).filter(|(was, is)| was != is);
        let moved = moved.count() as f64 / KEYS as f64;
        assert!((0.05..0.17).contains(&moved), "{policy:?} {moved}");
        assert!(moved_needlessly(&before, &after, 4) < 0.06, "{policy:?}");
    }
}

#[test]
fn retries_of_a_key_go_through_the_endpoints_in_one_order() {
    for policy in HASHING {
        let mut scene = Scene::new(with_policy(policy), 6);
        let mut order = |key| {
            let mut tried = Vec::new();
            while let Ok(lease) = scene.pick_by_key(key, &tried) {
                tried.push(lease.endpoint().id);
            }
            tried
        };
        for number in 0..50 {
            let first = order(key(number));
            assert_eq!((first.len(), &order(key(number))), (6, &first));
        }
    }
}

#[test]
fn a_key_that_is_in_demand_spills_over_under_a_bound_and_stays_without_one() {
    for policy in HASHING {
        let in_flight = |bound| {
            let mut scene = Scene::new(with(policy, bound), 4);
            let held: Vec<Lease> = (0..400)
                .map(|_| scene.pick_by_key(key(1), &[]).unwrap())
                .collect();
            let set = scene.cluster.endpoints();
            let mut counts: Vec<u32> = set.endpoints.iter().map(|e| e.in_flight()).collect();
            drop(held);
            counts.sort_unstable();
            counts
        };
        assert_eq!(in_flight(None), [0, 0, 0, 400]);
        // Three at 125 % of a mean of 100, and what is left.
        assert_eq!(in_flight(Some(125)), [25, 125, 125, 125], "{policy:?}");
        assert_eq!(in_flight(Some(100)), [100; 4], "{policy:?}");
    }
}

#[test]
fn a_request_without_a_key_goes_anywhere() {
    for policy in HASHING {
        let mut scene = Scene::new(with_policy(policy), 3);
        let ports = scene.ports(600);
        for port in 1..=3 {
            let share = ports.iter().filter(|p| **p == port).count();
            assert!((120..280).contains(&share), "{policy:?} {share}");
        }
    }
}

#[test]
fn the_few_that_are_left_of_many_are_found() {
    for policy in HASHING {
        let mut scene = Scene::new(with_policy(policy), 0);
        let spare = |port| model::Endpoint {
            priority: 1,
            ..endpoint(port)
        };
        let draining = |port| model::Endpoint {
            state: EndpointState::Draining,
            ..endpoint(port)
        };
        let last = [endpoint(5_000), spare(5_001), spare(5_002)];
        let all = (1..=3_000).map(draining).chain(last).collect();
        scene.cluster.set_endpoints(all);
        assert_eq!(scene.map(), [5_000; KEYS as usize], "{policy:?}");
        let drained = (1..=3_000).chain([5_000]).map(draining);
        let all = drained.chain([spare(5_001), spare(5_002)]).collect();
        scene.cluster.set_endpoints(all);
        let map = scene.map();
        assert_eq!(scene.map(), map);
        for port in [5_001, 5_002] {
            let share = map.iter().filter(|p| **p == port).count();
            assert!((700..1_300).contains(&share), "{policy:?} {share}");
        }
    }
}

#[test]
fn a_changed_policy_is_in_effect_at_once() {
    let mut scene = Scene::new(round_robin(), 5);
    for policy in HASHING {
        scene.cluster.update_service(&Arc::new(with_policy(policy)));
        let map = scene.map();
        assert_eq!(scene.map(), map);
        assert_eq!(map, Scene::new(with_policy(policy), 5).map());
    }
    scene.cluster.update_service(&Arc::new(round_robin()));
    assert_ne!(scene.port_of(1), scene.port_of(1));
}
