//! Endpoints that report their load, and the policies that go by that.

use super::*;
use crate::load::orca;
use crate::proxy::cluster::reported::{BLACKOUT, EXPIRY};

impl Scene {
    /// The endpoint at each port says that it does 100 requests a second at this utilization.
    fn report(&mut self, utilizations: &[(u16, f64)]) {
        let set = self.cluster.endpoints();
        for (port, utilization) in utilizations {
            let report = orca::Report {
                application: Some(*utilization),
                rps: Some(100.0),
                ..orca::Report::default()
            };
            let endpoint = set.endpoints.iter().find(|e| e.address == address(*port));
            endpoint.expect("it is there").reported(&report, self.now);
        }
        self.cluster.reweigh(self.now);
    }

    /// The same, until the reports count.
    fn settled(&mut self, utilizations: &[(u16, f64)]) {
        self.report(utilizations);
        self.now += BLACKOUT;
        self.report(utilizations);
    }
}

/// 100 requests a second at a quarter of what one can do are four times as much as at all of it.
const LOADS: [(u16, f64); 2] = [(1, 0.25), (2, 1.0)];

#[test]
fn weights_from_reports_share_by_what_each_could_do() {
    for policy in [Policy::AutoWeightedRoundRobin, Policy::LoadFactor] {
        let mut scene = Scene::new(with_policy(policy), 2);
        assert!(
            (1_800..2_200).contains(&scene.picked(1, 4_000)),
            "{policy:?}"
        );
        scene.report(&LOADS);
        let before = scene.picked(1, 4_000);
        assert!(
            (1_800..2_200).contains(&before),
            "{policy:?}: a start says little"
        );
        scene.settled(&LOADS);
        let first = scene.picked(1, 4_000);
        assert!((3_000..3_400).contains(&first), "{policy:?} {first}");
        scene.now += EXPIRY + MILLISECOND;
        scene.cluster.reweigh(scene.now);
        let after = scene.picked(1, 4_000);
        assert!(
            (1_800..2_200).contains(&after),
            "{policy:?}: they are too old"
        );
    }
}

#[test]
fn configured_weights_hold_until_two_have_reported() {
    let mut scene = Scene::new(with_policy(Policy::AutoWeightedRoundRobin), 0);
    let heavy = model::Endpoint {
        weight: 3,
        ..endpoint(1)
    };
    scene.cluster.set_endpoints(vec![heavy, endpoint(2)]);
    scene.settled(&LOADS[1..]);
    assert_eq!(scene.picked(1, 4_000), 3_000);
}

#[test]
fn the_load_factor_draws_by_weight_and_takes_the_faster() {
    let mut scene = Scene::new(with_policy(Policy::LoadFactor), 2);
    scene.settled(&LOADS);
    for lease in (0..40).map(|_| scene.pick()).collect::<Vec<_>>() {
        let latency = match lease.endpoint().address.port() {
            1 => Duration::from_millis(50),
            _ => MILLISECOND,
        };
        lease.settle(Outcome::Success, latency, scene.now);
    }
    assert_eq!(scene.picked(1, 100), 0, "with two, both are drawn");
}

#[test]
fn the_lowest_report_gets_everything_until_the_next() {
    let mut scene = Scene::new(with_policy(Policy::LowestLoad), 3);
    scene.report(&[(1, 0.5), (2, 0.3), (3, 0.4)]);
    let held: Vec<Lease> = (0..100).map(|_| scene.pick()).collect();
    assert!(
        held.iter()
            .all(|lease| lease.endpoint().address.port() == 2)
    );
    scene.report(&[(2, 0.9)]);
    assert_eq!(scene.picked(3, 100), 100);
    let tried = held[0].endpoint().id;
    let other = scene.pick_avoiding(&[tried]).expect("there are others");
    assert_eq!(other.endpoint().address.port(), 3);
}

#[test]
fn what_was_reported_is_shown_with_its_age_and_weight() {
    let mut scene = Scene::new(with_policy(Policy::LoadFactor), 2);
    scene.settled(&[(1, 0.25)]);
    scene.now += seconds(0.5);
    let report = scene.cluster.report(scene.now);
    let shown = report.endpoints[0].reported.expect("it has reported");
    assert_eq!((shown.load, shown.weight), (0.25, Some(400.0)));
    assert_eq!(shown.age, seconds(0.5));
    assert_eq!(report.endpoints[1].reported, None);
}
