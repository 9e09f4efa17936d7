//! What endpoints say of whom their lanes let in.

use super::*;
use crate::model::Class;

impl Scene {
    fn pick_of(&mut self, class: Class) -> Result<Lease, PickError> {
        match self.cluster.sheds(self.now) {
            true => self
                .cluster
                .pick_admitting(class, None, &[], self.now, &mut self.rng),
            false => self.cluster.pick(&[], self.now, &mut self.rng),
        }
    }

    /// Of 1,000 picks: those at this port, and those that nobody took.
    fn picks_of(&mut self, class: Class, port: u16) -> (usize, usize) {
        let (mut there, mut kept) = (0, 0);
        for _ in 0..1_000 {
            match self.pick_of(class) {
                Ok(lease) => {
                    there += usize::from(lease.endpoint().address.port() == port);
                    self.settle(lease, Outcome::Success);
                }
                Err(error) => {
                    assert_eq!(error, PickError::NotAdmitted(class));
                    kept += 1;
                }
            }
        }
        (there, kept)
    }

    fn says(&self, port: u16, admits: Class) {
        let set = self.cluster.endpoints();
        let mut endpoints = set.endpoints.iter();
        let endpoint = endpoints.find(|endpoint| endpoint.address == address(port));
        endpoint.unwrap().admits_only(admits, self.now);
    }
}

#[test]
fn who_is_shut_out_goes_elsewhere_but_for_a_few_that_ask_again() {
    let mut scene = Scene::new(round_robin(), 3);
    scene.says(1, Class::Default);
    let (there, kept) = scene.picks_of(Class::Batch, 1);
    assert!(
        (5..=35).contains(&there),
        "one in twenty of a third: {there}"
    );
    assert_eq!(kept, 0, "the others let them in");
    assert_eq!(scene.picks_of(Class::Default, 1).1, 0);
    assert!(scene.picks_of(Class::Default, 1).0 >= 300, "let in");
}

#[test]
fn where_nobody_lets_them_in_they_stay_at_home_for_a_second() {
    let mut scene = Scene::new(round_robin(), 2);
    scene.says(1, Class::Critical);
    scene.says(2, Class::Default);
    let (_, kept) = scene.picks_of(Class::BestEffort, 1);
    assert!((900..1_000).contains(&kept), "{kept}");
    assert_eq!(scene.picks_of(Class::Critical, 1).1, 0);
    let cancelled: u64 = scene
        .cluster
        .endpoints()
        .endpoints
        .iter()
        .map(cancelled)
        .sum();
    assert_eq!(cancelled, 0, "a pick that is not used leaves no trace");
    scene.says(2, Class::BestEffort);
    assert_eq!(
        scene.picks_of(Class::BestEffort, 1).1,
        0,
        "the last word counts"
    );
    scene.now += seconds(1.0);
    let (there, kept) = scene.picks_of(Class::BestEffort, 1);
    assert_eq!((there, kept), (500, 0), "it has been forgotten");
}

fn cancelled(endpoint: &Arc<Endpoint>) -> u64 {
    endpoint.totals()[Outcome::Cancelled.index()]
}
