//! Scenarios through the whole product: real processes, YAML in, HTTP out.

mod application;
mod canary;
mod drain;
mod failover;
mod handover;
mod harness;
mod health;
mod hedging;
mod lanes;
mod registry;
mod reload;
