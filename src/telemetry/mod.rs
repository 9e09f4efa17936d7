//! What the process says about itself: log, metrics, access log.
