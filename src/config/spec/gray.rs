//! `gray` of a Service: how requests name a traffic lane, and instances too.

use std::sync::Arc;

use crate::config::decode::{Cursor, Fields};
use crate::config::defaults;
use crate::model::Gray;

pub(super) fn gray(fields: &mut Fields<'_, '_>) -> Option<Gray> {
    let header = fields.optional("header", |c| c.header_name());
    let baggage = fields.optional("baggage", baggage_key);
    let label = fields.optional("label", |c| c.filled_text().map(Arc::from));
    if !fields.has("header") && !fields.has("baggage") {
        let hint = "header: x-lane, or baggage: lane, or both";
        return fields
            .cursor()
            .error("nothing says how a request names its lane", hint);
    }
    Some(Gray {
        header,
        baggage,
        label: label.unwrap_or_else(|| defaults::GRAY_LABEL.into()),
    })
}

/// A token (W3C Baggage, section 3.3.1), which is what header names are too.
fn baggage_key(cursor: Cursor<'_>) -> Option<Arc<str>> {
    let text = cursor.filled_text()?;
    match http::HeaderName::from_bytes(text.as_bytes()) {
        Ok(_) => Some(text.into()),
        Err(_) => cursor.error(
            format!("`{text}` is not a key for baggage"),
            "letters, digits, `-` and `_`, such as lane",
        ),
    }
}
