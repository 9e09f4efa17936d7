//! What the process says about itself: log, metrics, access log, trace context.

pub mod access_log;
pub mod flags;
pub mod log;
pub mod metrics;
pub mod trace;
