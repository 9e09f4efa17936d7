use super::path::path_modifier;
use crate::config::decode::Fields;
use crate::model::{RouteMatch, UrlRewrite};

pub(super) fn rewrite(fields: &mut Fields<'_, '_>, matches: &[RouteMatch]) -> Option<UrlRewrite> {
    let hostname = fields.optional("hostname", |c| c.precise_hostname());
    let path = fields.optional("path", |cursor| {
        cursor.fields(|fields| path_modifier(fields, matches))
    });
    if !["hostname", "path"].iter().any(|key| fields.has(key)) {
        fields
            .cursor()
            .warning("this rewrite changes nothing", "say hostname or path");
    }
    Some(UrlRewrite { hostname, path })
}
