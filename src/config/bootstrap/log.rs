use crate::config::decode::{Cursor, Fields};
use crate::config::defaults;

/// What the process says about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSettings {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,pillion::proxy=debug`.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            level: defaults::LOG_LEVEL.to_owned(),
            format: LogFormat::Text,
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
        return match tracing_subscriber::EnvFilter::try_new(text) {
            Ok(_) => Some(text.to_owned()),
            Err(_) => cursor.error("not a log level", "such as info,pillion::proxy=debug"),
        };
    }
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    cursor
        .choice(&LEVELS.map(|level| (level, level)))
        .map(str::to_owned)
}

fn format(cursor: Cursor<'_>) -> Option<LogFormat> {
    cursor.choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)])
}
