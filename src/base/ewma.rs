//! A moving average of latencies that rises at once and falls slowly ("peak EWMA"), in one atomic word.
//!
//! A sample above the average replaces it, so a worsening endpoint is seen with its first slow answer; a sample below pulls it
//! down by how much time has passed. Read without samples, it decays towards zero: whoever was slow is tried again some day.
//! It knows no clock; callers pass nanoseconds that do not run backwards much.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Value (an `f32` of nanoseconds) in the upper half, its time in units of 65.5 µs in the lower. Both change together.
/// Zero is "no sample yet".
///
/// The time wraps after 78 hours: an average that nobody touched for as long decays too little, once.
#[derive(Debug, Default)]
pub struct PeakEwma(AtomicU64);

const TIME_SHIFT: u32 = 16;

/// How far (about 1 s) a caller's clock may be behind the last sample's.
const BEHIND_MAX: u32 = 16_384;

impl PeakEwma {
    /// The average in nanoseconds as of `now`, or None before the first sample.
    pub fn read(&self, now: u64, decay: Duration) -> Option<f32> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            word => Some(decayed(value(word), elapsed(word, now), decay)),
        }
    }

    /// Takes a sample of `nanos` in.
    pub fn observe(&self, now: u64, nanos: f32, decay: Duration) {
        self.update(now, |word| match word {
            0 => Some(nanos),
            word => Some(average(value(word), nanos, elapsed(word, now), decay)),
        });
    }

    /// Forgets what was before: the average is this sample.
    pub fn restart(&self, now: u64, nanos: f32) {
        self.0.store(pack(nanos, now), Ordering::Relaxed);
    }

    /// Takes a lower bound in: of a request that was given up after `nanos`, only that it took longer is known. Without a
    /// sample so far it counts where it is above `initial`.
    pub fn observe_at_least(&self, now: u64, nanos: f32, initial: f32, decay: Duration) {
        self.update(now, |word| {
            let current = match word {
                0 => initial,
                word => decayed(value(word), elapsed(word, now), decay),
            };
            (nanos > current).then_some(nanos)
        });
    }

    fn update(&self, now: u64, next: impl Fn(u64) -> Option<f32>) {
        let mut word = self.0.load(Ordering::Relaxed);
        while let Some(value) = next(word) {
            let packed = pack(value, now);
            match self
                .0
                .compare_exchange_weak(word, packed, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(current) => word = current,
            }
        }
    }
}

/// The next average: a peak at once, anything lower by the weight of the time since the last sample.
fn average(current: f32, sample: f32, elapsed: u64, decay: Duration) -> f32 {
    if sample >= current {
        return sample;
    }
    let keep = weight(elapsed, decay);
    current * keep + sample * (1.0 - keep)
}

fn decayed(current: f32, elapsed: u64, decay: Duration) -> f32 {
    current * weight(elapsed, decay)
}

/// e^(−elapsed / decay): the share that the past keeps.
fn weight(elapsed: u64, decay: Duration) -> f32 {
    let passed = elapsed as f32 / nanos(decay);
    if passed < 0.01 {
        // Right to 0.005 %, and what a busy endpoint needs.
        return 1.0 - passed;
    }
    (-passed).exp()
}

/// A duration as averages take it. (By way of `u128`, this would cost as much as the exponential.)
pub fn nanos(duration: Duration) -> f32 {
    duration.as_secs() as f32 * 1e9 + duration.subsec_nanos() as f32
}

fn pack(value: f32, now: u64) -> u64 {
    // The least positive value keeps a sample of zero apart from "no sample".
    let value = value.max(f32::MIN_POSITIVE);
    (u64::from(value.to_bits()) << 32) | u64::from((now >> TIME_SHIFT) as u32)
}

fn value(word: u64) -> f32 {
    f32::from_bits((word >> 32) as u32)
}

/// Nanoseconds since the word was written; a clock read slightly earlier on another thread counts as none.
fn elapsed(word: u64, now: u64) -> u64 {
    let ticks = ((now >> TIME_SHIFT) as u32).wrapping_sub(word as u32);
    if ticks > u32::MAX - BEHIND_MAX {
        return 0;
    }
    u64::from(ticks) << TIME_SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY: Duration = Duration::from_secs(10);
    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn before_the_first_sample_there_is_no_average() {
        assert_eq!(PeakEwma::default().read(SECOND, DECAY), None);
    }

    #[test]
    fn a_peak_counts_at_once() {
        let ewma = PeakEwma::default();
        ewma.observe(0, 1e6, DECAY);
        ewma.observe(0, 9e6, DECAY);
        assert_eq!(ewma.read(0, DECAY), Some(9e6));
    }

    #[test]
    fn faster_answers_pull_it_down_by_the_time_passed() {
        let ewma = PeakEwma::default();
        ewma.observe(0, 10e6, DECAY);
        ewma.observe(10 * SECOND, 1e6, DECAY);
        let expected = 10e6 / std::f32::consts::E + 1e6 * (1.0 - 1.0 / std::f32::consts::E);
        let read = ewma.read(10 * SECOND, DECAY).unwrap();
        assert!((read / expected - 1.0).abs() < 1e-3, "{read} {expected}");
    }

    #[test]
    fn a_restart_forgets_a_peak() {
        let ewma = PeakEwma::default();
        ewma.observe(0, 5e9, DECAY);
        ewma.restart(SECOND, 1e6);
        assert_eq!(ewma.read(SECOND, DECAY), Some(1e6));
    }

    #[test]
    fn left_alone_it_decays_towards_zero() {
        let ewma = PeakEwma::default();
        ewma.observe(0, 5e9, DECAY);
        assert!(ewma.read(100 * SECOND, DECAY).unwrap() < 1e6);
    }

    #[test]
    fn many_samples_within_one_unit_of_time_still_move_it() {
        let ewma = PeakEwma::default();
        ewma.observe(0, 100e6, DECAY);
        for step in 0..40_000_000_u64 / 1_000 {
            ewma.observe(step * 1_000_000, 1e6, DECAY);
        }
        let read = ewma.read(40 * SECOND, DECAY).unwrap();
        assert!((1e6..3e6).contains(&read), "{read}");
    }

    #[test]
    fn a_request_given_up_raises_but_never_lowers() {
        let ewma = PeakEwma::default();
        ewma.observe(0, 10e6, DECAY);
        ewma.observe_at_least(0, 5e6, 30e6, DECAY);
        assert_eq!(ewma.read(0, DECAY), Some(10e6));
        ewma.observe_at_least(0, 20e6, 30e6, DECAY);
        assert_eq!(ewma.read(0, DECAY), Some(20e6));
    }

    #[test]
    fn a_first_request_given_up_counts_only_above_the_initial_value() {
        let ewma = PeakEwma::default();
        ewma.observe_at_least(0, 5e6, 30e6, DECAY);
        assert_eq!(ewma.read(0, DECAY), None);
        ewma.observe_at_least(0, 50e6, 30e6, DECAY);
        assert_eq!(ewma.read(0, DECAY), Some(50e6));
    }

    #[test]
    fn a_clock_that_is_slightly_behind_changes_nothing() {
        let ewma = PeakEwma::default();
        ewma.observe(SECOND, 10e6, DECAY);
        assert_eq!(ewma.read(SECOND - 1_000_000, DECAY), Some(10e6));
    }
}
