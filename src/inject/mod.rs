//! Sidecars beside Kubernetes pods: what a pod gets, and how it gets into YAML files and AdmissionReviews.
//!
//! [`additions()`] is the one place that knows what a sidecar is in Kubernetes; [`inject_pod`] puts it into a pod, [`inject_text`] into
//! every pod of a file, and [`review()`] answers an admission webhook's question with it. All of it is values in, values out:
//! files, sockets and certificates are the business of `cli` and `app`.
//!
//! A pod asks by the label [`LABEL`] and may say more in annotations, see [`Wishes`].

mod additions;
mod document;
mod patch;
mod pod;
mod review;
mod settings;
mod wishes;
mod yaml;

#[cfg(test)]
mod tests;

pub use additions::{Additions, additions};
pub use document::{Injection, Workload, inject_text};
pub use pod::{Left, Outcome, inject_pod, is_injected};
pub use review::{ReviewError, review};
pub use settings::{Settings, Style, init_image_of};
pub use wishes::{WishError, Wishes};

/// The label by which a pod asks for a sidecar: `enabled` or `disabled`.
pub const LABEL: &str = "pillion.dev/inject";
/// What the names of our labels and annotations begin with.
pub const PREFIX: &str = "pillion.dev/";
