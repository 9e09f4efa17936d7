//! The only module that knows all planes: build, run, reload.
//!
//! A proxy process has its workers, which serve traffic, and one control thread, which is the runtime [`proxy::run`]
//! runs on: it reads documents, follows the registry, answers the admin pages and hears the signals.

mod application;
#[cfg(test)]
mod control_plane_tests;
pub mod demo;
mod documents;
mod doors;
mod handover;
mod load;
mod loops;
mod main_process;
pub mod proxy;
pub mod registry;
mod renewal;
mod terms;
mod view;
pub mod webhook;
