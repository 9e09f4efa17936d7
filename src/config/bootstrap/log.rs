use crate::config::decode::{Cursor, Fields};
use crate::config::defaults;
use crate::telemetry::log::Format;

/// What the process says about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSettings {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,pillion::proxy=debug`.
    pub level: String,
    pub format: Format,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            level: defaults::LOG_LEVEL.to_owned(),
            format: Format::Text,
        }
    }
}

pub(super) fn log(fields: &mut Fields<'_, '_>) -> Option<LogSettings> {
    let defaults = LogSettings::default();
    Some(LogSettings {
        level: fields.optional("level", level).unwrap_or(defaults.level),
        format: fields.optional("format", format).unwrap_or(defaults.format),
    })
}

fn level(cursor: Cursor<'_>) -> Option<String> {
    let text = cursor.filled_text()?;
    let directives = text.contains(['=', ',']);
    if directives {
        return match tracing_subscriber::EnvFilter::builder().parse(text) {
            Ok(_) => Some(text.to_owned()),
            Err(_) => cursor.error("not a log level", "such as info,pillion::proxy=debug"),
        };
    }
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    cursor
        .choice(&LEVELS.map(|level| (level, level)))
        .map(str::to_owned)
}

fn format(cursor: Cursor<'_>) -> Option<Format> {
    cursor.choice(&[("text", Format::Text), ("json", Format::Json)])
}
