//! Scenarios through the whole product: real processes, YAML in, HTTP out.

mod application;
mod canary;
mod circuit;
mod cors;
mod direct_response;
mod drain;
mod explain;
mod failover;
mod faults;
mod gateway_api;
mod goaway;
mod handover;
mod harness;
mod hashing;
mod health;
mod hedging;
mod lanes;
mod load;
mod mirror;
mod redirect;
mod registry;
mod reload;
mod retry_storm;
mod rewrite;
mod route_limits;
mod trouble;
