//! Small things that know nothing of a mesh: buffers, the network seam, timers, units, back-off.

pub mod backoff;
pub mod buffer;
pub mod net;
pub mod timer;
