//! The sidecar's name server: the services of the mesh by name, and everything else as the machine's own servers say.
//!
//! It runs on a thread of its own, which `app` starts where the bootstrap asks for it and tells the [`Names`] of each
//! snapshot. What a query means is pure ([`answer`]); a query that is not about the mesh goes to an upstream as the bytes
//! it came as ([`forward`]), and so does the answer: there is no cache, no recursion and no opinion about records.
//!
//! A service has one address, a virtual IPv4 one (see [`VirtualAddresses`](crate::model::VirtualAddresses)), which only
//! connections redirected to this sidecar can reach. Asked for IPv6 or anything else, it says at once that there is none, so
//! that nobody waits for a second family; programs on a machine without any IPv4 address of its own may then not ask for
//! IPv4 at all.
//!
//! Leaves out names of single instances, reverse look-ups, and `hostnames` of routes that no service has.

pub mod answer;
mod counts;
mod forward;
mod names;
mod server;
#[cfg(test)]
mod tests;
mod upstreams;

pub use names::{Found, Names};
pub use server::{Server, Sockets, StartError, bind, start};
pub use upstreams::{RESOLV_CONF, Upstreams};
