use std::sync::Arc;

use crate::config::decode::{Cursor, Fields};
use crate::config::defaults;
use crate::model::DirectResponse;

pub(super) fn direct_response(fields: &mut Fields<'_, '_>) -> Option<DirectResponse> {
    let status = fields.required("statusCode", |c| c.number(200..=599));
    let body = fields.optional("body", |cursor| {
        cursor.fields(|fields| fields.required("string", body))
    });
    let content_type = fields.optional("contentType", |c| c.header_value());
    let status = status?;
    if matches!(status, 204 | 205 | 304) && body.is_some() {
        let message = format!("an answer with {status} has no body");
        return fields.cursor().error(message, "leave out `body`");
    }
    Some(DirectResponse {
        status,
        content_type: content_type.unwrap_or_else(|| defaults::DIRECT_RESPONSE_TYPE.into()),
        body: body.unwrap_or_else(|| "".into()),
    })
}

fn body(cursor: Cursor<'_>) -> Option<Arc<str>> {
    const MAX: usize = defaults::DIRECT_RESPONSE_BYTES_MAX;
    let text = cursor.text()?;
    if text.len() > MAX {
        let message = format!("this body has {} bytes, and {MAX} are the most", text.len());
        return cursor.error(message, "let a service answer");
    }
    Some(text.into())
}
