//! Endpoints that do worse than the others of their service: too many failures, a success rate that stands apart, or slow answers.
//!
//! Looked at each interval on the control thread, from counters that requests keep anyway; failures in a row are judged at once
//! instead ([`super::breaker`]). The rule for success rates is Envoy's
//! (<https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier>), held to what cannot be chance: of twenty
//! endpoints that fail alike, one is nearly always 1.9 deviations below the mean.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::endpoint::{Endpoint, EndpointId};
use super::plan::Standing;
use super::time::nanos;
use super::{Cluster, Clusters};
use crate::base::rng;
use crate::model::Outlier;
use crate::proxy::events::Cause;

/// Requests of one interval from which a share of failures counts.
pub const FAILURE_REQUESTS_MIN: u64 = 50;

/// Requests of one interval from which a success rate is compared, and endpoints that have as many.
pub const SUCCESS_REQUESTS_MIN: u64 = 100;
pub const SUCCESS_ENDPOINTS_MIN: usize = 5;

/// How far below the mean success rate an endpoint stands apart: in standard deviations of the endpoints' rates …
pub const SUCCESS_DEVIATIONS: f64 = 1.9;
/// … and as a share of requests, and in standard errors of its own rate, so that it is no chance.
pub const SUCCESS_GAP_MIN: f64 = 0.05;
pub const SUCCESS_ERRORS_MIN: f64 = 5.0;

/// Answers of one interval from which their mean time is compared, and endpoints that have as many.
pub const SLOW_REQUESTS_MIN: u64 = 20;
pub const SLOW_ENDPOINTS_MIN: usize = 3;
/// Nobody is slow below this, however fast the others are.
pub const SLOW_MIN: Duration = Duration::from_millis(20);

/// How often clusters are asked whether their interval has passed.
const TICK: Duration = Duration::from_secs(1);

/// What one endpoint did in one interval.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Sample {
    pub successes: u64,
    pub failures: u64,
    /// The mean time to a successful answer.
    pub latency: Duration,
}

/// Why an endpoint stands apart.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Finding {
    FailureShare { sample: Sample },
    SuccessRate { rate: f64, mean: f64 },
    Slow { latency: Duration, median: Duration },
}

impl Finding {
    pub fn cause(self) -> Cause {
        match self {
            Finding::FailureShare { .. } => Cause::FailureShare,
            Finding::SuccessRate { .. } => Cause::SuccessRate,
            Finding::Slow { .. } => Cause::Slow,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::FailureShare { sample } => {
                let Sample { failures, .. } = sample;
                write!(f, "{failures} of {} requests failed", sample.requests())
            }
            Finding::SuccessRate { rate, mean } => write!(
                f,
                "{:.1}% of its requests succeeded, {:.1}% on average",
                rate * 100.0,
                mean * 100.0
            ),
            Finding::Slow { latency, median } => write!(
                f,
                "{:.1} ms to an answer, where the median is {:.1} ms",
                latency.as_secs_f64() * 1e3,
                median.as_secs_f64() * 1e3
            ),
        }
    }
}

impl Sample {
    fn requests(self) -> u64 {
        self.successes + self.failures
    }

    fn success_rate(self) -> f64 {
        self.successes as f64 / self.requests() as f64
    }
}

/// Those that stand apart, the worst first, as indices; each at most once.
pub fn find(samples: &[Sample], outlier: &Outlier) -> Vec<(usize, Finding)> {
    let mut found = failing(samples, outlier);
    for others in [unsuccessful(samples, outlier), slow(samples, outlier)] {
        for (index, finding) in others {
            if found.iter().all(|(known, _)| *known != index) {
                found.push((index, finding));
            }
        }
    }
    found
}

fn failing(samples: &[Sample], outlier: &Outlier) -> Vec<(usize, Finding)> {
    let limit = u64::from(outlier.failure_percent);
    let fails = |sample: &Sample| {
        let requests = sample.requests();
        requests >= FAILURE_REQUESTS_MIN && sample.failures * 100 > requests * limit
    };
    let mut found: Vec<(usize, Sample)> = samples.iter().copied().enumerate().collect();
    found.retain(|(_, sample)| fails(sample));
    found.sort_by(|(_, a), (_, b)| a.success_rate().total_cmp(&b.success_rate()));
    let finding = |(index, sample)| (index, Finding::FailureShare { sample });
    found.into_iter().map(finding).collect()
}

fn unsuccessful(samples: &[Sample], outlier: &Outlier) -> Vec<(usize, Finding)> {
    let samples = samples.iter().enumerate();
    let mut rates: Vec<(usize, f64, f64)> = samples
        .filter(|(_, sample)| sample.requests() >= SUCCESS_REQUESTS_MIN)
        .map(|(index, sample)| (index, sample.success_rate(), sample.requests() as f64))
        .collect();
    if !outlier.success_rate || rates.len() < SUCCESS_ENDPOINTS_MIN {
        return Vec::new();
    }
    let count = rates.len() as f64;
    let mean = rates.iter().map(|(_, rate, _)| rate).sum::<f64>() / count;
    let squares = rates.iter().map(|(_, rate, _)| (rate - mean).powi(2));
    let deviation = (squares.sum::<f64>() / count).sqrt();
    rates.retain(|(_, rate, requests)| {
        let error = (mean * (1.0 - mean) / requests).sqrt();
        let gap = (SUCCESS_DEVIATIONS * deviation)
            .max(SUCCESS_GAP_MIN)
            .max(SUCCESS_ERRORS_MIN * error);
        mean - rate > gap
    });
    rates.sort_by(|(_, a, _), (_, b, _)| a.total_cmp(b));
    let finding = |(index, rate, _)| (index, Finding::SuccessRate { rate, mean });
    rates.into_iter().map(finding).collect()
}

fn slow(samples: &[Sample], outlier: &Outlier) -> Vec<(usize, Finding)> {
    let samples = samples.iter().enumerate();
    let mut times: Vec<(usize, Duration)> = samples
        .filter(|(_, sample)| sample.successes >= SLOW_REQUESTS_MIN)
        .map(|(index, sample)| (index, sample.latency))
        .collect();
    if outlier.slow_factor == 0 || times.len() < SLOW_ENDPOINTS_MIN {
        return Vec::new();
    }
    times.sort_by_key(|(_, latency)| std::cmp::Reverse(*latency));
    // Of an even number the lesser of the two in the middle, as they are sorted downwards.
    let (_, median) = times[times.len() / 2];
    let limit = median.saturating_mul(outlier.slow_factor).max(SLOW_MIN);
    times.retain(|(_, latency)| *latency > limit);
    let finding = |(index, latency)| (index, Finding::Slow { latency, median });
    times.into_iter().map(finding).collect()
}

/// Looks at these clusters for as long as it is polled.
pub async fn run(clusters: Arc<Clusters>) {
    let mut rng = rng::fresh();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        for cluster in clusters.all() {
            cluster.evaluate(now, &mut rng);
        }
    }
}

/// What was seen of a cluster when it was looked at last.
#[derive(Default, Debug)]
pub(super) struct Evaluation {
    /// When the interval is over, in nanoseconds.
    due: u64,
    /// Of those that have been used: successes, failures, and nanoseconds to successful answers, since they joined.
    counts: HashMap<EndpointId, [u64; 3]>,
}

impl Cluster {
    /// Ejects who stands apart in the interval that is over, if one is.
    pub fn evaluate(&self, now: Instant, rng: &mut fastrand::Rng) {
        let evaluation = self.evaluation.lock();
        let mut evaluation = evaluation.unwrap_or_else(PoisonError::into_inner);
        let now = nanos(now);
        if now < evaluation.due {
            return;
        }
        let service = self.service();
        let interval = u64::try_from(service.outlier.interval.as_nanos()).unwrap_or(u64::MAX);
        let begins = evaluation.due == 0;
        evaluation.due = now.saturating_add(interval);
        let set = self.endpoints();
        let samples = evaluation.samples(&set.endpoints);
        if begins {
            return;
        }
        for (index, finding) in find(&samples, &service.outlier) {
            let endpoint = &set.endpoints[index];
            // Who is out already, or about to be tried, has been judged.
            if matches!(endpoint.standing(), Standing::Healthy | Standing::Critical) {
                endpoint.eject(finding.cause(), finding.to_string(), now, rng.u32(..));
            }
        }
    }
}

impl Evaluation {
    /// What each endpoint has done since it was looked at last.
    fn samples(&mut self, endpoints: &[Arc<Endpoint>]) -> Vec<Sample> {
        let mut counts = HashMap::with_capacity(self.counts.len());
        let sample = |endpoint: &Arc<Endpoint>| {
            let count = endpoint.counts();
            if count == [0; 3] {
                return Sample::default();
            }
            let before = self.counts.get(&endpoint.id).copied().unwrap_or_default();
            counts.insert(endpoint.id, count);
            let [successes, failures, nanos] =
                [0, 1, 2].map(|at| count[at].saturating_sub(before[at]));
            Sample {
                successes,
                failures,
                latency: Duration::from_nanos(nanos.checked_div(successes).unwrap_or(0)),
            }
        };
        let samples = endpoints.iter().map(sample).collect();
        self.counts = counts;
        samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(successes: u64, failures: u64) -> Sample {
        Sample {
            successes,
            failures,
            latency: Duration::from_millis(10),
        }
    }

    fn found(samples: &[Sample]) -> Vec<(usize, Cause)> {
        let found = find(samples, &Outlier::default());
        let cause = |(index, finding): (usize, Finding)| (index, finding.cause());
        found.into_iter().map(cause).collect()
    }

    #[test]
    fn more_than_85_percent_of_at_least_50_requests_are_too_many_failures() {
        assert_eq!(found(&[sample(7, 43)]), [(0, Cause::FailureShare)]);
        assert_eq!(found(&[sample(8, 42)]), []);
        assert_eq!(found(&[sample(0, 49)]), []);
    }

    #[test]
    fn a_success_rate_far_below_the_others_stands_apart() {
        let mut samples = vec![sample(99, 1); 5];
        samples.push(sample(80, 20));
        assert_eq!(found(&samples), [(5, Cause::SuccessRate)]);
        samples.remove(0);
        samples.remove(0);
        assert_eq!(found(&samples), [], "four endpoints are too few");
    }

    #[test]
    fn who_fails_as_all_do_does_not_stand_apart() {
        assert_eq!(found(&[sample(50, 50); 8]), []);
    }

    #[test]
    fn five_times_the_median_is_slow_where_it_can_be_felt() {
        let taking = |ms| Sample {
            latency: Duration::from_millis(ms),
            ..sample(20, 0)
        };
        let slow = [taking(10), taking(60), taking(10)];
        assert_eq!(found(&slow), [(1, Cause::Slow)]);
        assert_eq!(found(&[taking(10), taking(50), taking(10)]), []);
        assert_eq!(found(&[taking(1), taking(19), taking(1)]), []);
        assert_eq!(found(&slow[..2]), [], "two endpoints are too few");
        let idle = Sample {
            successes: 19,
            ..taking(60)
        };
        assert_eq!(found(&[taking(10), idle, taking(10), taking(10)]), []);
    }

    #[test]
    fn the_worst_come_first_and_each_once() {
        let mut samples = vec![sample(1_000, 10); 10];
        samples[3] = sample(10, 90);
        samples[5] = sample(0, 100);
        samples[7] = Sample {
            latency: Duration::from_secs(1),
            ..sample(1_000, 10)
        };
        let causes = [
            (5, Cause::FailureShare),
            (3, Cause::FailureShare),
            (7, Cause::Slow),
        ];
        assert_eq!(found(&samples), causes);
    }

    /// Healthy endpoints with 1 % random errors, at the fewest requests that are compared.
    #[test]
    fn chance_alone_ejects_nearly_nobody() {
        let mut rng = rng::for_test();
        let mut ejected = 0;
        for _ in 0..1_000 {
            let samples: Vec<Sample> = (0..20)
                .map(|_| {
                    let failures = (0..100).filter(|_| rng.u32(..100) == 0).count() as u64;
                    sample(100 - failures, failures)
                })
                .collect();
            ejected += found(&samples).len();
        }
        // There is about one; by the deviations alone there would be about 1,000.
        assert!(ejected <= 20, "{ejected} of 20,000");
    }
}
