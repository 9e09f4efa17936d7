//! How traffic reaches us without the application knowing: redirect rules and the original destination.
//!
//! The rules are data ([`Rules`]), their text is pure, and only `nft` and `route` touch the machine. That needs the capability NET_ADMIN;
//! reading an [`original_dst`] needs none.
//!
//! Leaves out who may be reached, and what is done with a connection: that is `proxy`'s. Linux with nftables only.

mod connections;
mod nft;
mod original;
mod ranges;
mod route;
mod rules;
mod table;

pub use nft::{InterceptError, Removal, State, apply, rehearse, remove, state};
pub use original::{OriginalDst, original_dst};
pub use ranges::{Interface, PortRange, RangeError};
pub use route::command as route_command;
pub use rules::{Inbound, Outbound, Rules};
