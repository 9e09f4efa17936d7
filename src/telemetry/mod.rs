//! What the process says about itself: log, metrics, access log, trace context.

pub mod flags;
pub mod metrics;
