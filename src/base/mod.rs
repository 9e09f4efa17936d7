//! Small things that know nothing of a mesh: buffers, networks, the network seam, timers, units, back-off, token
//! buckets, hashing, the latest events.

pub mod backoff;
pub mod buckets;
pub mod buffer;
pub mod cidr;
pub mod descriptors;
pub mod ewma;
pub mod hash;
pub mod listening;
pub mod memory;
pub mod net;
pub mod recent;
pub mod rng;
pub mod timer;
pub mod units;
