//! Instants as numbers, so that they fit into atomics.

use std::sync::LazyLock;

use tokio::time::Instant;

/// Taken with the first use; earlier instants count as this one.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since the process began to count.
pub fn nanos(instant: Instant) -> u64 {
    let elapsed = instant.saturating_duration_since(*START);
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}
