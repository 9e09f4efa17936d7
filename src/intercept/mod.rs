//! How traffic reaches us without the application knowing: redirect rules and the original destination.
//!
//! Leaves out who may be reached, and what is done with a connection: that is `proxy`'s.

mod original;

pub use original::{OriginalDst, original_dst};
