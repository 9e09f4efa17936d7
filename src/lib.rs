#![doc = include_str!("ARCHITECTURE.md")]
#![deny(rustdoc::broken_intra_doc_links)]

// What is measured in benches/ is tested here too, by the name it has there.
#[cfg(test)]
extern crate self as pillion;

pub mod base;

pub mod telemetry;

pub mod api;
pub mod model;

pub mod interface;

pub mod config;
pub mod identity;
pub mod intercept;
pub mod lane;
pub mod load;
pub mod store;

pub mod work;

pub mod discovery;
pub mod dns;
pub mod inject;
pub mod proxy;
pub mod registry;

pub mod explain;

pub mod admin;

pub mod app;

pub mod cli;
