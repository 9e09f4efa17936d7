//! Instants as numbers, so that they fit into atomics.

use std::sync::LazyLock;

use tokio::time::Instant;

/// Taken with the first use; earlier instants count as this one.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since the process began to count.
pub fn nanos(instant: Instant) -> u64 {
    let elapsed = instant.saturating_duration_since(*START);
    // 584 years fit.
    elapsed.as_secs() * 1_000_000_000 + u64::from(elapsed.subsec_nanos())
}
