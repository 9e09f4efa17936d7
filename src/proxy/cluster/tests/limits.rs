//! What is refused, and that every count returns to zero.

use super::*;

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

#[test]
fn a_full_endpoint_leaves_its_requests_to_the_others_until_all_are_full() {
    for policy in POLICIES {
        let limited = Service {
            circuit: Circuit {
                endpoint_requests_max: 2,
                ..Circuit::default()
            },
            ..with_policy(policy)
        };
        let mut scene = Scene::new(limited, 3);
        let leases: Vec<_> = (0..6).map(|_| scene.pick()).collect();
        let set = scene.cluster.endpoints();
        let held: Vec<_> = set.endpoints.iter().map(|e| e.in_flight()).collect();
        assert_eq!(held, [2, 2, 2], "{policy:?}");
        let error = scene.pick_avoiding(&[]).unwrap_err();
        assert_eq!(error, PickError::Overflow(Overflow::EndpointRequests));
        let refused = |limit| scene.cluster.limits().refused(limit);
        assert_eq!(refused(Overflow::EndpointRequests), 1);
        assert_eq!(refused(Overflow::Requests), 0);
        drop(leases);
        assert_eq!(scene.cluster.limits().requests(), 0);
    }
}

#[test]
fn retries_are_limited_besides_their_budget() {
    let limited = Service {
        circuit: Circuit {
            retries_max: 2,
            retry_budget_min_per_second: 1,
            ..Circuit::default()
        },
        ..service()
    };
    let scene = Scene::new(limited, 1);
    let retry = || scene.cluster.try_retry(scene.now);
    let (first, second) = (retry().unwrap(), retry().unwrap());
    assert!(retry().is_none());
    let limits = scene.cluster.limits();
    assert_eq!(limits.refused(Overflow::Retries), 1);
    drop(first);
    let again = retry();
    assert!(again.is_some());
    drop((second, again));
    // What the budget refuses holds no place.
    let granted = (0..100).filter(|_| retry().is_some()).count();
    assert_eq!((granted, limits.retries()), (7, 0));
    assert_eq!(limits.refused(Overflow::Retries), 1);
}

#[test]
fn good_answers_earn_retries_and_failures_do_not() {
    let service = Service {
        circuit: Circuit {
            retry_budget_min_per_second: 0,
            ..Circuit::default()
        },
        ..without_ejection()
    };
    let mut scene = Scene::new(service, 1);
    let granted = |scene: &mut Scene, outcome: Outcome| {
        for _ in 0..50 {
            let lease = scene.pick();
            scene.settle(lease, outcome);
        }
        let retry = || scene.cluster.try_retry(scene.now);
        (0..100).filter(|_| retry().is_some()).count()
    };
    assert_eq!(granted(&mut scene, Outcome::GatewayFailure), 0);
    let shed = Outcome::Shed { retry_after: None };
    assert_eq!(granted(&mut scene, shed), 0);
    assert_eq!(granted(&mut scene, Outcome::Success), 10);
}

#[tokio::test]
async fn those_who_wait_for_a_connection_get_the_places_given_back() {
    let limited = Service {
        circuit: Circuit {
            endpoint_connections_max: 1,
            pending_max: 2,
            ..Circuit::default()
        },
        ..service()
    };
    let cluster = cluster(limited, 2);
    let endpoints = cluster.endpoints().endpoints.clone();
    let permit = |index: usize| cluster.try_connection(&endpoints[index]).unwrap();
    let (first, second) = (permit(0), permit(1));
    let wait = |index: usize| {
        let (cluster, endpoint) = (cluster.clone(), endpoints[index].clone());
        tokio::spawn(async move { cluster.connection(&endpoint).await })
    };
    let (wants_first, wants_second) = (wait(0), wait(1));
    while cluster.limits().pending() < 2 {
        tokio::task::yield_now().await;
    }
    let refused = cluster.connection(&endpoints[0]).await.unwrap_err();
    assert_eq!(refused, Overflow::Pending);
    // The one who waits for the other endpoint may be woken too, but must not swallow it.
    drop(second);
    assert!(wants_second.await.unwrap().is_ok());
    drop(first);
    assert!(wants_first.await.unwrap().is_ok());
    assert_eq!(cluster.limits().pending(), 0);
}

/// Threads pick, settle, connect and change the set at once: limits hold at every moment, and in the end nothing is held.
#[test]
fn limits_hold_and_every_count_returns_to_zero_under_threads() {
    const REQUESTS_MAX: u32 = 5;
    const CONNECTIONS_MAX: u32 = 4;
    let limited = Service {
        circuit: Circuit {
            requests_max: REQUESTS_MAX,
            endpoint_requests_max: 2,
            connections_max: CONNECTIONS_MAX,
            endpoint_connections_max: 2,
            pending_max: 3,
            endpoint_pending_max: 2,
            retries_max: 2,
            retry_budget_min_per_second: u32::MAX,
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
    let counts = [
        limits.requests(),
        limits.pending(),
        limits.connections(),
        limits.retries(),
    ];
    assert_eq!(counts, [0; 4]);
    let last = cluster.endpoints();
    for endpoint in all.endpoints.iter().chain(&last.endpoints) {
        let pending = endpoint.load().pending.load(Ordering::Relaxed);
        let counts = [endpoint.in_flight(), endpoint.connections(), pending];
        assert_eq!(counts, [0; 3]);
    }
    let phases = last.endpoints.iter().map(|e| e.breaker().phase);
    let ejected = phases.filter(|phase| phase.is_ejected()).count();
    assert_eq!(
        cluster.shared.ejected.load(Ordering::Relaxed) as usize,
        ejected
    );
}

fn hammer(cluster: &Arc<Cluster>, most: &AtomicU32) {
    let mut rng = for_test();
    for round in 0..5_000 {
        let set = cluster.endpoints();
        let waited_for = &set.endpoints[round % set.endpoints.len()];
        let _pending = cluster.try_pending(waited_for);
        let waiting = waited_for.load().pending.load(Ordering::Relaxed);
        let _retry = cluster.try_retry(Instant::now());
        assert!(waiting <= 2 && cluster.limits().retries() <= 2);
        most.fetch_max(cluster.limits().requests(), Ordering::Relaxed);
        assert!(cluster.limits().pending() <= 3 && cluster.limits().connections() <= 4);
        let lease = match cluster.pick(&[], Instant::now(), &mut rng) {
            Ok(lease) => lease,
            Err(PickError::Overflow(_)) => continue,
            Err(other) => panic!("{other}"),
        };
        assert!(lease.endpoint().in_flight() <= 2);
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
