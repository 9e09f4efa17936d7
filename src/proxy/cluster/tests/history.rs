//! Random histories of a cluster, checked after every step against what must always hold.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Pick { avoid: usize },
    Settle { which: usize, outcome: usize },
    Answer { which: usize, outcome: usize },
    Drop { which: usize },
    Wait { millis: u64 },
    Replace { kinds: Vec<u8> },
}

fn step() -> impl Strategy<Value = Step> {
    let index = 0..64_usize;
    let outcome = 0..Outcome::COUNT;
    prop_oneof![
        8 => (0..4_usize).prop_map(|avoid| Step::Pick { avoid }),
        5 => (index.clone(), outcome.clone()).prop_map(|(which, outcome)| Step::Settle { which, outcome }),
        1 => (index.clone(), outcome).prop_map(|(which, outcome)| Step::Answer { which, outcome }),
        1 => index.prop_map(|which| Step::Drop { which }),
        2 => (0..20_000_u64).prop_map(|millis| Step::Wait { millis }),
        1 => prop::collection::vec(0..6_u8, 0..8).prop_map(|kinds| Step::Replace { kinds }),
    ]
}

fn outcome(index: usize) -> Outcome {
    let all = [
        Outcome::Success,
        Outcome::Failure5xx,
        Outcome::GatewayFailure,
        Outcome::ConnectFailure,
        Outcome::Reset,
        Outcome::Timeout,
        Outcome::Shed { retry_after: None },
        Outcome::Cancelled,
    ];
    all[index]
}

fn of_kind(port: usize, kind: u8) -> model::Endpoint {
    let plain = endpoint(port as u16 + 1);
    match kind {
        0 => model::Endpoint { weight: 0, ..plain },
        1 => model::Endpoint {
            state: EndpointState::Draining,
            ..plain
        },
        2 => model::Endpoint {
            state: EndpointState::Critical,
            ..plain
        },
        3 => model::Endpoint {
            priority: 1,
            ..plain
        },
        4 => model::Endpoint { weight: 5, ..plain },
        _ => plain,
    }
}

fn takes_requests(endpoint: &Endpoint) -> bool {
    endpoint.model.weight > 0 && endpoint.model.state != EndpointState::Draining
}

struct History {
    scene: Scene,
    held: Vec<Lease>,
    /// When each endpoint was last given out as a probe that has no verdict yet.
    probing: HashMap<EndpointId, Instant>,
}

impl History {
    fn step(&mut self, step: Step) {
        match step {
            Step::Pick { avoid } => self.pick(avoid),
            Step::Settle {
                which,
                outcome: kind,
            } => {
                if let Some(lease) = self.take(which) {
                    lease.settle(outcome(kind), MILLISECOND, self.scene.now);
                }
            }
            Step::Answer {
                which,
                outcome: kind,
            } => {
                let count = self.held.len();
                if count > 0 {
                    let lease = &mut self.held[which % count];
                    lease.answered(outcome(kind), MILLISECOND, self.scene.now);
                    self.probing.remove(&lease.endpoint().id);
                }
            }
            Step::Drop { which } => drop(self.take(which)),
            Step::Wait { millis } => self.scene.now += Duration::from_millis(millis),
            Step::Replace { kinds } => {
                let endpoints = kinds.iter().enumerate();
                let endpoints = endpoints.map(|(port, kind)| of_kind(port, *kind));
                self.scene.cluster.set_endpoints(endpoints.collect());
            }
        }
    }

    fn take(&mut self, which: usize) -> Option<Lease> {
        let count = self.held.len();
        let lease = (count > 0).then(|| self.held.swap_remove(which % count))?;
        self.probing.remove(&lease.endpoint().id);
        Some(lease)
    }

    fn pick(&mut self, avoid: usize) {
        let set = self.scene.cluster.endpoints();
        let avoid: Vec<EndpointId> = set.endpoints.iter().take(avoid).map(|e| e.id).collect();
        let mut usable = set.endpoints.iter().filter(|e| takes_requests(e));
        match self.scene.pick_avoiding(&avoid) {
            Ok(lease) => {
                let endpoint = lease.endpoint();
                assert!(takes_requests(endpoint), "{endpoint:?}");
                assert!(!avoid.contains(&endpoint.id));
                assert!(set.endpoints.iter().any(|e| e.id == endpoint.id));
                if lease.is_probe() {
                    let before = self.probing.insert(endpoint.id, self.scene.now);
                    let alone =
                        before.is_none_or(|since| self.scene.now - since >= breaker::PROBE_WAIT);
                    assert!(alone, "a second probe while the first has no verdict");
                }
                self.held.push(lease);
            }
            Err(PickError::NoEndpoint) => assert!(set.endpoints.is_empty()),
            Err(PickError::NoneHealthy { .. }) => assert!(usable.next().is_none()),
            Err(PickError::AllTried) => assert!(usable.all(|e| avoid.contains(&e.id))),
            Err(error @ (PickError::NotAdmitted(_) | PickError::Overflow(_))) => panic!("{error}"),
        }
    }

    fn check(&self) {
        let set = self.scene.cluster.endpoints();
        let phases = set.endpoints.iter().map(|e| e.breaker().phase);
        let ejected = phases.filter(|phase| phase.is_ejected()).count();
        assert_eq!(
            self.scene.cluster.shared.ejected.load(Ordering::Relaxed) as usize,
            ejected
        );
        let requests = self.scene.cluster.limits().requests();
        assert_eq!(requests as usize, self.held.len());
        for endpoint in &set.endpoints {
            let held = self.held.iter().filter(|l| l.endpoint().id == endpoint.id);
            assert_eq!(endpoint.in_flight() as usize, held.count());
        }
    }
}

proptest! {
    #[test]
    fn any_history_keeps_the_rules(
        policy in 0..POLICIES.len(),
        steps in prop::collection::vec(step(), 1..200),
        seed: u64,
    ) {
        let eager = Service {
            outlier: Outlier {
                consecutive_5xx: 2,
                max_ejection_percent: 40,
                ..Outlier::default()
            },
            ..with_policy(POLICIES[policy])
        };
        let mut history = History {
            scene: Scene::new(eager, 5),
            held: Vec::new(),
            probing: HashMap::new(),
        };
        history.scene.rng = fastrand::Rng::with_seed(seed);
        for step in steps {
            history.step(step);
            history.check();
        }
        history.held.clear();
        history.check();
    }
}
