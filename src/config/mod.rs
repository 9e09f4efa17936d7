//! YAML as written, to the model: all problems at once, each with its place.
//!
//! `yaml` reads text into a tree with places, `decode` reads trees into typed values and collects what is wrong, `spec` holds mesh
//! documents as written, `compile` judges them together and builds the [`Snapshot`](crate::model::Snapshot). [`Loader`] does all
//! of it and remembers, so that a change costs about what changed. `bootstrap` reads what one process is.

pub mod bootstrap;
mod compile;
mod decode;
pub mod defaults;
mod list;
mod loader;
pub mod problem;
pub mod source;
mod spec;
pub mod status;
mod validate;
pub mod watch;
pub mod yaml;

pub use bootstrap::{RegistryBootstrap, SidecarBootstrap};
pub use loader::{Loaded, Loader};
pub use problem::{Problem, Severity, Snippet};
pub use source::{Origin, Source};
pub use validate::{DocumentId, document_identities, validate, validate_change};
pub use watch::Watch;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod gateway_api_tests;
