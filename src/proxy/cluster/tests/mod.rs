//! Scenarios of one cluster: picks, verdicts, limits.

mod admitted;
mod events;
mod hashing;
mod health;
mod history;
mod limits;
mod load;
mod outliers;
mod picking;
mod unequal;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::report::Why;
use super::testing::{address, cluster, endpoint, key, service, with_policy};
use super::*;
use crate::base::rng::for_test;
use crate::model::{Circuit, EndpointState, Outlier, Policy};

const POLICIES: [Policy; 10] = [
    Policy::Maglev,
    Policy::RingHash,
    Policy::Random,
    Policy::RoundRobin,
    Policy::WeightedRoundRobin,
    Policy::LeastRequest,
    Policy::LeastConnections,
    Policy::PeakEwma,
    Policy::AutoWeightedRoundRobin,
    Policy::LoadFactor,
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
        // The process counts from the first instant that it is asked about, and earlier ones are as that: the scene's must not be.
        nanos(Instant::now());
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
        found.unwrap().why.clone()
    }
}

fn round_robin() -> Service {
    with_policy(Policy::RoundRobin)
}

fn without_ejection() -> Service {
    Service {
        outlier: Outlier::none(),
        ..round_robin()
    }
}
