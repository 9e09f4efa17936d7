//! Instants as numbers, so that they fit into atomics.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::Instant;

/// Taken with the first use; earlier instants count as this one.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since the process began to count.
pub fn nanos(instant: Instant) -> u64 {
    let elapsed = instant.saturating_duration_since(*START);
    // 584 years fit.
    elapsed.as_secs() * 1_000_000_000 + u64::from(elapsed.subsec_nanos())
}

/// Time in units of 2²⁰ ns (1.05 ms), so that 40 bits hold 36 years of it.
pub(super) type Tick = u64;

pub(super) const TICK_MAX: Tick = (1 << 40) - 1;

pub(super) fn tick(nanos: u64) -> Tick {
    nanos >> 20
}

/// Rounded up: nothing that waits for it is early.
pub(super) fn tick_after(nanos: u64, wait: Duration) -> Tick {
    let until = nanos.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
    until.div_ceil(1 << 20).min(TICK_MAX)
}

pub(super) fn nanos_of(tick: Tick) -> u64 {
    tick << 20
}
