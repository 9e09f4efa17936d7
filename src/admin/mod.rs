//! Read and steer a running process over HTTP, on the admin address (loopback, port 15000).
//!
//! It knows nothing of where its answers come from: `app` hands it a [`State`] of closures. Everything it says is
//! plain text for people with curl, or JSON for machines. It authenticates nobody; loopback and the host check in
//! `guard` are its fence, so nothing secret may come out of the closures.

mod client;
mod clusters;
mod guard;
mod lanes;
mod pages;
mod respond;
mod server;
mod state;

pub use client::{ProbeError, get, get_page, post, probe};
pub use clusters::{CheckView, CircuitView, ClusterView, EndpointView};
pub use lanes::LaneView;
pub use server::serve;
pub use state::State;
