//! What an endpoint's sidecar, or the endpoint itself, says of its load on its answers, and what weight follows from it.
//!
//! The weight is that of gRPC A58 (<https://github.com/grpc/proposal/blob/master/A58-client-side-weighted-round-robin-lb-policy.md>):
//! requests a second ÷ (utilization + failed requests ÷ requests × penalty), which is how many requests it could do at all. Reports
//! are the endpoint's own of all its callers, so that a proxy with little traffic weighs as well as one with much. They come each
//! second, so the times are shorter than gRPC's: one that is older than three counts no more, where gRPC waits for three minutes.
//!
//! Everything here is an atomic on the endpoint; [`run`] arranges the endpoints anew each second, off the request path.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::Clusters;
use crate::load::orca;

/// Between two reports on one connection, and two rounds of weights.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// An older report counts no more: three reports.
pub const EXPIRY: Duration = Duration::from_secs(3);

/// Until its first report is so old, an endpoint has no weight of its own: figures of a start are those of cold caches.
pub const BLACKOUT: Duration = Duration::from_secs(10);

/// What a failed request counts as, in requests at full utilization.
pub const ERROR_PENALTY: f64 = 1.0;

/// The largest of the weights that are worked out together.
const WEIGHT_MAX: f64 = 65_536.0;

/// The latest report of one endpoint. Figures of two reports that come at the same time may be mixed.
#[derive(Default, Debug)]
pub(super) struct Reported {
    /// Utilization and requests a second, an `f32` each.
    figures: AtomicU64,
    /// Failed requests a second, an `f32`.
    eps: AtomicU32,
    /// When it came, in nanoseconds; 0 before the first.
    at: AtomicU64,
    /// When the first one came of those that followed each other within [`BLACKOUT`].
    since: AtomicU64,
}

/// A report at one moment.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LoadReport {
    /// 0 to 1, and above where the endpoint says so.
    pub load: f64,
    /// Requests a second that it would do at a utilization of 1; None while it is not to be weighed.
    pub weight: Option<f64>,
    pub age: Duration,
}

impl Reported {
    pub(super) fn hear(&self, report: &orca::Report, now: u64) {
        let Some(utilization) = report.utilization() else {
            return;
        };
        let now = now.max(1);
        let before = self.at.load(Ordering::Relaxed);
        if before == 0 || now.saturating_sub(before) > nanos(BLACKOUT) {
            self.since.store(now, Ordering::Relaxed);
        }
        let rps = report.rps.unwrap_or(0.0) as f32;
        self.figures
            .store(pack(utilization as f32, rps), Ordering::Relaxed);
        let eps = report.eps.unwrap_or(0.0) as f32;
        self.eps.store(eps.to_bits(), Ordering::Relaxed);
        self.at.store(now, Ordering::Release);
    }

    /// Utilization, while the report counts.
    pub(super) fn load(&self, now: u64) -> Option<f32> {
        self.age(now).filter(|age| *age <= nanos(EXPIRY))?;
        Some(unpack(self.figures.load(Ordering::Relaxed)).0)
    }

    /// None where there is no report that counts, or it is not to be weighed yet.
    pub(super) fn weight(&self, now: u64) -> Option<f64> {
        self.load(now)?;
        let settled = now.saturating_sub(self.since.load(Ordering::Relaxed)) >= nanos(BLACKOUT);
        let (utilization, rps) = unpack(self.figures.load(Ordering::Relaxed));
        let eps = f32::from_bits(self.eps.load(Ordering::Relaxed));
        weight(utilization.into(), rps.into(), eps.into()).filter(|_| settled)
    }

    /// The latest one, however old.
    pub(super) fn report(&self, now: u64) -> Option<LoadReport> {
        let age = self.age(now)?;
        let (load, _) = unpack(self.figures.load(Ordering::Relaxed));
        Some(LoadReport {
            load: load.into(),
            weight: self.weight(now),
            age: Duration::from_nanos(age),
        })
    }

    fn age(&self, now: u64) -> Option<u64> {
        let at = self.at.load(Ordering::Acquire);
        (at > 0).then(|| now.saturating_sub(at))
    }
}

/// gRPC A58; None where nothing can be divided.
fn weight(utilization: f64, rps: f64, eps: f64) -> Option<f64> {
    let failing = if rps > 0.0 { eps / rps } else { 0.0 };
    let weight = rps / (utilization + failing * ERROR_PENALTY);
    (weight.is_finite() && weight > 0.0).then_some(weight)
}

/// Whole weights in the proportion of these; who has none gets the mean of the others. None where fewer than two have one, so that
/// there is nothing to compare.
pub(super) fn weights(reported: &[Option<f64>]) -> Option<Vec<u32>> {
    let known = || reported.iter().flatten();
    let count = known().count();
    if count < 2 {
        return None;
    }
    let mean = known().sum::<f64>() / count as f64;
    let most = known().copied().fold(0.0, f64::max);
    let whole = |weight: &Option<f64>| {
        let share = weight.unwrap_or(mean) / most;
        (share * WEIGHT_MAX).round().max(1.0) as u32
    };
    Some(reported.iter().map(whole).collect())
}

/// Weighs the endpoints of these clusters anew each second, for as long as it is polled.
pub async fn run(clusters: Arc<Clusters>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        clusters
            .all()
            .iter()
            .for_each(|cluster| cluster.reweigh(now));
    }
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

fn pack(utilization: f32, rps: f32) -> u64 {
    (u64::from(utilization.to_bits()) << 32) | u64::from(rps.to_bits())
}

fn unpack(word: u64) -> (f32, f32) {
    (
        f32::from_bits((word >> 32) as u32),
        f32::from_bits(word as u32),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn says(reported: &Reported, utilization: f64, now: u64) {
        let report = orca::Report {
            application: Some(utilization),
            rps: Some(100.0),
            ..orca::Report::default()
        };
        reported.hear(&report, now);
    }

    #[test]
    fn the_weight_is_what_an_endpoint_could_do() {
        assert_eq!(weight(0.5, 100.0, 0.0), Some(200.0));
        // A tenth fails.
        assert_eq!(weight(0.4, 100.0, 10.0), Some(200.0));
        for nothing in [
            weight(0.0, 100.0, 0.0),
            weight(0.5, 0.0, 0.0),
            weight(0.0, 0.0, 1.0),
        ] {
            assert_eq!(nothing, None);
        }
    }

    #[test]
    fn a_report_is_weighed_after_the_blackout_and_until_it_expires() {
        let reported = Reported::default();
        assert_eq!(reported.report(SECOND), None);
        for second in 1..=12 {
            says(&reported, 0.5, second * SECOND);
            let weighs = reported.weight(second * SECOND).is_some();
            assert_eq!(weighs, second >= 11, "{second}");
        }
        assert_eq!(reported.load(15 * SECOND), Some(0.5));
        assert_eq!(reported.load(15 * SECOND + 1), None);
        assert_eq!(reported.weight(15 * SECOND + 1), None);
        let old = reported.report(20 * SECOND).expect("it is still shown");
        assert_eq!((old.age, old.weight), (Duration::from_secs(8), None));
    }

    #[test]
    fn after_a_short_silence_the_next_report_counts_at_once_and_after_a_long_one_it_does_not() {
        let reported = Reported::default();
        says(&reported, 0.5, SECOND);
        says(&reported, 0.5, 11 * SECOND);
        says(&reported, 0.25, 20 * SECOND);
        assert_eq!(reported.weight(20 * SECOND), Some(400.0));
        says(&reported, 0.25, 31 * SECOND);
        assert_eq!(reported.weight(31 * SECOND), None);
    }

    #[test]
    fn who_has_no_weight_gets_the_mean_of_the_others() {
        let shares = |weights: &[Option<f64>]| {
            let whole = weights_of(weights)?;
            let least = f64::from(*whole.iter().min()?);
            Some(
                whole
                    .iter()
                    .map(|one| (f64::from(*one) / least).round())
                    .collect::<Vec<_>>(),
            )
        };
        fn weights_of(reported: &[Option<f64>]) -> Option<Vec<u32>> {
            weights(reported)
        }
        assert_eq!(
            shares(&[Some(300.0), None, Some(100.0)]),
            Some(vec![3.0, 2.0, 1.0])
        );
        assert_eq!(
            shares(&[Some(300.0), None, None]),
            None,
            "nothing to compare"
        );
        let extreme = weights(&[Some(1e30), Some(1e-30)]);
        assert_eq!(extreme, Some(vec![65_536, 1]));
    }
}
