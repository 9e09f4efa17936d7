//! `Compression`, a filter of ours: answers go to clients compressed.

use std::sync::Arc;

use crate::config::decode::{Cursor, Fields};
use crate::config::defaults;
use crate::model::{Coding, Compression};

pub(super) fn compression(fields: &mut Fields<'_, '_>) -> Option<Compression> {
    let codings = fields.optional("algorithms", codings);
    let min_length = fields.optional("minLength", |c| c.size());
    let types = fields.optional("contentTypes", |c| filled(c, content_type, "[text/html]"));
    let defaults = || defaults::COMPRESSED_TYPES.map(Arc::from).to_vec();
    Some(Compression {
        codings: codings.unwrap_or_else(|| Coding::ALL.to_vec()),
        min_length: min_length.unwrap_or(defaults::COMPRESSED_LENGTH_MIN),
        content_types: types.unwrap_or_else(defaults),
    })
}

fn codings(cursor: Cursor<'_>) -> Option<Vec<Coding>> {
    let mut seen = Vec::new();
    filled(
        cursor,
        |cursor| {
            let coding = cursor.choice(&Coding::ALL.map(|coding| (coding.as_str(), coding)))?;
            if seen.contains(&coding) {
                return cursor.error("this one is listed already", "");
            }
            seen.push(coding);
            Some(coding)
        },
        "[br, zstd, gzip]",
    )
}

fn filled<T>(
    cursor: Cursor<'_>,
    read: impl FnMut(Cursor<'_>) -> Option<T>,
    example: &str,
) -> Option<Vec<T>> {
    let list = cursor.list(read)?;
    match list.is_empty() {
        true => cursor.error(
            "nothing is compressed that way",
            format!("such as {example}"),
        ),
        false => Some(list),
    }
}

fn content_type(cursor: Cursor<'_>) -> Option<Arc<str>> {
    let text = cursor.filled_text()?;
    let is_token = |part: &str| http::HeaderName::from_bytes(part.as_bytes()).is_ok();
    match text.split_once('/') {
        Some((kind, sub)) if is_token(kind) && (is_token(sub) || sub == "*") => {
            Some(text.to_ascii_lowercase().into())
        }
        _ => cursor.error(
            format!("`{text}` is not a media type"),
            "such as text/html or text/*, without parameters",
        ),
    }
}
