//! The path of a request, in the order it meets the files.

pub mod data_plane;
pub mod sockets;
pub mod worker;

pub mod entry;
pub mod lane;
pub mod listener;
pub mod session;

pub mod detect;
mod server_name;
pub mod tcp;

pub mod http1;
pub mod http2;

pub mod http;

pub mod by_address;
pub mod filter;
pub mod hedging;
pub mod route;

pub mod cluster;
pub mod destination;
pub mod passthrough;
pub mod upstream;

pub mod events;
pub mod failure;
pub mod instance_load;
pub mod settings;
