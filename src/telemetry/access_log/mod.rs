//! The access log: one JSON line a request, written by a thread of its own.
//!
//! A worker formats a line into its [`Writer`]'s buffer; the thread takes the buffers away each second, or when one has
//! grown to a batch, and writes them out. A disk that is too slow costs lines, which are counted, never time: a worker
//! waits for no file. Without an access log there is no [`Writer`], and nothing is formatted.

mod field;
mod json;
mod output;
mod record;
mod writer;

use std::io;
use std::path::PathBuf;

pub use field::{Field, UnknownField};
pub use record::Record;
pub use writer::{AccessLog, Writer};

use super::metrics::Registry;

#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    pub output: Output,
    /// What a line has, in this order.
    pub fields: Vec<Field>,
    /// The share of requests that are written, 0 to 1. What was refused or failed here (a flag, or a status from 500) is
    /// always written.
    pub sampling: f64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    Stdout,
    /// Appended to; opened again when it was renamed or removed.
    File(PathBuf),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            output: Output::Stdout,
            fields: Field::ALL.to_vec(),
            sampling: 1.0,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AccessLogError {
    #[error("access log {}: {error}; its folder must exist and be writable", path.display())]
    Open {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("access log thread: {0}")]
    Thread(#[source] io::Error),
}

/// Opens the output and starts the thread.
pub fn start(settings: Settings, metrics: &Registry) -> Result<AccessLog, AccessLogError> {
    writer::start(settings, metrics)
}
