use std::collections::HashSet;
use std::sync::Arc;

use crate::config::decode::{Cursor, Fields};
use crate::model::HeaderModifier;

pub(super) fn header_modifier(fields: &mut Fields<'_, '_>) -> Option<HeaderModifier> {
    let mut names = HashSet::new();
    let modifier = HeaderModifier {
        set: fields.list("set", |cursor| header(cursor, &mut names)),
        add: fields.list("add", |cursor| header(cursor, &mut names)),
        remove: fields.list("remove", |cursor| modified_name(cursor, &mut names)),
    };
    if modifier.set.is_empty() && modifier.add.is_empty() && modifier.remove.is_empty() {
        fields
            .cursor()
            .warning("this modifier changes nothing", "say set, add or remove");
    }
    Some(modifier)
}

fn header(cursor: Cursor<'_>, names: &mut HashSet<String>) -> Option<(Arc<str>, Arc<str>)> {
    cursor.fields(|fields| {
        let name = fields.required("name", |cursor| modified_name(cursor, names));
        let value = fields.required("value", |c| c.header_value());
        Some((name?, value?))
    })
}

/// The same name set, added and removed at once would have no order a reader could guess.
fn modified_name(cursor: Cursor<'_>, names: &mut HashSet<String>) -> Option<Arc<str>> {
    const OURS: [&str; 8] = [
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let name = cursor.header_name()?;
    let lower = name.to_ascii_lowercase();
    if OURS.contains(&&*lower) {
        let message = format!("`{name}` cannot be modified");
        return cursor.error(
            message,
            "the proxy itself decides how a message is framed and sent",
        );
    }
    if !names.insert(lower) {
        return cursor.error(
            format!("`{name}` is modified twice"),
            "set, add or remove it once",
        );
    }
    Some(name)
}
