//! The only module that knows all planes: build, run, reload.

pub mod registry;
