//! How traffic reaches us without the application knowing: redirect rules and the original destination.
//!
//! The rules are data ([`Rules`]); `steps` says what they ask of a connection, and a [`Backend`] writes that: `nft`, or `iptables`
//! where nftables is missing. Their texts are pure, and only the programs of that name (and `ip`, for tproxy), and netlink for
//! `virtual_route`, touch the machine. They need the capability NET_ADMIN; reading an [`original_dst`] needs none.
//!
//! Leaves out who may be reached, and what is done with a connection: that is `proxy`'s. Linux only.

mod backend;
mod connections;
mod error;
mod host;
mod iptables;
mod nft;
mod note;
mod original;
mod program;
mod ranges;
mod routes;
mod rules;
mod steps;
mod virtual_route;

pub use backend::{
    Backend, Removal, State, apply, missing_routes, rehearse, remove, render, state,
};
pub use error::InterceptError;
pub use original::{OriginalDst, kept_dst, original_dst};
pub use ranges::{Interface, PortRange, RangeError};
pub use routes::APPLICATION_MARK;
pub use rules::{Inbound, Outbound, Rules, WhileAway};
pub use virtual_route::command as route_command;
