//! `ReferenceGrant`: what documents of other namespaces may refer to in this one.

use std::sync::Arc;

use crate::config::decode::{Cursor, Fields};

#[derive(Debug)]
pub struct GrantSpec {
    pub from: Vec<Grantee>,
    pub to: Vec<Granted>,
}

/// Documents of one kind and namespace.
#[derive(Debug)]
pub struct Grantee {
    pub kind: Arc<str>,
    pub namespace: Arc<str>,
}

/// All documents of a kind in the grant's own namespace, or the one of this name.
#[derive(Debug)]
pub struct Granted {
    pub kind: Arc<str>,
    pub name: Option<Arc<str>>,
}

pub(super) fn read(fields: &mut Fields<'_, '_>) -> GrantSpec {
    let from = fields.required("from", |cursor| filled(cursor, grantee));
    let to = fields.required("to", |cursor| filled(cursor, granted));
    GrantSpec {
        from: from.unwrap_or_default(),
        to: to.unwrap_or_default(),
    }
}

fn filled<T>(cursor: Cursor<'_>, read: fn(&mut Fields<'_, '_>) -> Option<T>) -> Option<Vec<T>> {
    let list = cursor.list(|cursor| cursor.fields(read))?;
    if list.is_empty() {
        cursor.warning("an empty list grants nothing", "");
    }
    Some(list)
}

fn grantee(fields: &mut Fields<'_, '_>) -> Option<Grantee> {
    group(fields);
    let kind = fields.required("kind", |c| c.filled_text().map(Arc::from));
    let namespace = fields.required("namespace", |c| c.namespace());
    Some(Grantee {
        kind: kind?,
        namespace: namespace?,
    })
}

fn granted(fields: &mut Fields<'_, '_>) -> Option<Granted> {
    group(fields);
    let kind = fields.required("kind", |c| c.filled_text().map(Arc::from));
    let name = fields.optional("name", |c| c.name());
    Some(Granted { kind: kind?, name })
}

/// Kinds are told apart by their name alone: no two groups have one that documents here refer to.
fn group(fields: &mut Fields<'_, '_>) {
    fields.optional("group", |c| c.owned_text());
}
