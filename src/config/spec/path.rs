use crate::config::decode::{Cursor, Fields};
use crate::model::{PathAction, PathNormalization};

/// `path` of a listener or a Service: what becomes of the parts of a path that servers read differently.
pub(super) fn normalization(fields: &mut Fields<'_, '_>) -> Option<PathNormalization> {
    let encoded_slash = fields.optional("encoded_slash", action);
    let backslash = fields.optional("backslash", action);
    let merge_slashes = fields.optional("merge_slashes", |c| c.boolean());
    Some(PathNormalization {
        encoded_slash: encoded_slash.unwrap_or_default(),
        backslash: backslash.unwrap_or_default(),
        merge_slashes: merge_slashes.unwrap_or_default(),
    })
}

fn action(cursor: Cursor<'_>) -> Option<PathAction> {
    cursor.choice(&PathAction::ALL.map(|action| (action.as_str(), action)))
}
