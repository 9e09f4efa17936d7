//! Counts and times of the process, as Prometheus text.
//!
//! What a request touches is plain atomics behind handles that are resolved when a snapshot is compiled: no label is
//! looked up and no lock is taken per request. Labels come from configuration, never from clients. Everything else is
//! read at scrape time by collectors that modules register with the [`Registry`].

mod histogram;
mod process;
mod registry;
mod requests;
mod scrape;
mod services;

pub use histogram::{DURATION_BOUNDS, Histogram};
pub use process::register as register_process;
pub use registry::{Counter, Format, Gauge, Registry};
pub use requests::{ListenerRequests, RequestSeries, Requests};
pub use scrape::Scrape;
pub use services::{Count, ServiceSeries, Services};
