//! The process's own log: text or JSON on standard error, its level changed while it runs.
//!
//! Events carry facts as fields; whoever writes one leaves out secrets, since nothing here could know them.

use std::fmt;
use std::io::IsTerminal;

use tracing::Dispatch;
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Registry, fmt as layer, reload};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    #[default]
    Text,
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(
        "log level {level:?}: {error}; use error, warn, info, debug or trace, or directives such as info,pillion::proxy=debug"
    )]
    Level {
        level: String,
        #[source]
        error: ParseError,
    },
    #[error("the log is set up already: {0}")]
    Installed(#[from] TryInitError),
    #[error("the log is gone: {0}")]
    Gone(#[from] reload::Error),
}

/// A handle to the level. Cloning gives another handle to the same.
#[derive(Clone)]
pub struct Level {
    filter: reload::Handle<EnvFilter, Registry>,
}

/// Makes this the log of the process; `level` is a level, or directives by module.
pub fn install(level: &str, format: Format) -> Result<Level, LogError> {
    let (log, level) = build(level, format)?;
    log.try_init()?;
    Ok(level)
}

fn build(level: &str, format: Format) -> Result<(Dispatch, Level), LogError> {
    let (filter, handle) = reload::Layer::new(parse(level)?);
    let stderr = layer::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    let log = match format {
        Format::Text => {
            let color = std::io::stderr().is_terminal();
            Dispatch::new(registry.with(stderr.with_ansi(color)))
        }
        Format::Json => {
            let json = stderr.json().flatten_event(true).with_current_span(false);
            Dispatch::new(registry.with(json))
        }
    };
    Ok((log, Level { filter: handle }))
}

fn parse(level: &str) -> Result<EnvFilter, LogError> {
    let builder = EnvFilter::builder();
    builder.parse(level).map_err(|error| LogError::Level {
        level: level.to_owned(),
        error,
    })
}

impl Level {
    /// From now on this level; a level that does not parse changes nothing.
    pub fn set(&self, level: &str) -> Result<(), LogError> {
        Ok(self.filter.reload(parse(level)?)?)
    }

    pub fn current(&self) -> Result<String, LogError> {
        Ok(self.filter.with_current(EnvFilter::to_string)?)
    }
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Level").field(&self.current().ok()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_changes_while_it_runs_and_a_bad_one_changes_nothing() {
        let (log, level) = build("warn", Format::Json).expect("valid");
        let _here = tracing::dispatcher::set_default(&log);
        assert_eq!(level.current().expect("there"), "warn");
        assert!(!tracing::enabled!(tracing::Level::DEBUG));
        level.set("pillion=debug").expect("valid");
        assert!(tracing::enabled!(tracing::Level::DEBUG));
        let error = level.set("pillion=loud").expect_err("no such level");
        assert!(error.to_string().contains("use error, warn"), "{error}");
        assert_eq!(level.current().expect("there"), "pillion=debug");
    }
}
