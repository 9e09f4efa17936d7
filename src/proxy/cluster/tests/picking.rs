//! Who is picked: policies, weights, zones, retries, changing sets.

use super::*;

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
            // Seven standard deviations of blind chance.
            Policy::Random | Policy::Maglev | Policy::RingHash => 240..360,
            _ => 270..330,
        };
        assert!(expected.contains(&busy), "{policy:?} {busy}");
        drop(held);
    }
}

#[test]
fn random_is_blind_to_what_endpoints_hold() {
    let mut scene = Scene::new(with_policy(Policy::Random), 0);
    let weighted = |port: u16| model::Endpoint {
        weight: port.into(),
        ..endpoint(port)
    };
    scene.cluster.set_endpoints((1..=4).map(weighted).collect());
    let _held: Vec<Lease> = (0..1_000).map(|_| scene.pick()).collect();
    let mut counts = [0.0; 4];
    for port in scene.ports(40_000) {
        counts[usize::from(port) - 1] += 1.0;
    }
    let expected = [4_000.0, 8_000.0, 12_000.0, 16_000.0];
    let square = |(count, expected): (f64, f64)| (count - expected).powi(2) / expected;
    let chi_square: f64 = std::iter::zip(counts, expected).map(square).sum();
    // Of 3 degrees of freedom; once in a million by chance.
    assert!(chi_square < 30.7, "{counts:?}");
}

#[test]
fn least_request_compares_as_many_as_it_is_told() {
    let mut service = with_policy(Policy::LeastRequest);
    service.balance.least_request.choices = 10;
    let mut scene = Scene::new(service, 4);
    let held: Vec<Lease> = (0..400).map(|_| scene.pick()).collect();
    let set = scene.cluster.endpoints();
    let in_flight: Vec<u32> = set.endpoints.iter().map(|e| e.in_flight()).collect();
    assert!(
        in_flight.iter().all(|held| (96..=104).contains(held)),
        "{in_flight:?}"
    );
    drop(held);
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
        failing: 0,
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
