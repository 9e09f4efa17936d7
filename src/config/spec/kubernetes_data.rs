//! Kubernetes' `ConfigMap` and `Secret`: where other documents find certificates and keys.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::decode::{Cursor, Fields};

#[derive(Debug)]
pub struct ConfigMapSpec {
    pub data: BTreeMap<Arc<str>, Arc<str>>,
}

pub struct SecretSpec {
    pub data: BTreeMap<Arc<str>, Arc<[u8]>>,
}

/// Never what the values are.
impl fmt::Debug for SecretSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.data.keys()).finish()
    }
}

pub(super) fn config_map(fields: &mut Fields<'_, '_>) -> ConfigMapSpec {
    fields.ignore(&["binaryData", "immutable"]);
    let data = fields.optional("data", |cursor| {
        cursor.entries(|key, value| Some((Arc::from(key), value.owned_text()?)))
    });
    ConfigMapSpec {
        data: data.into_iter().flatten().collect(),
    }
}

pub(super) fn secret(fields: &mut Fields<'_, '_>) -> SecretSpec {
    fields.ignore(&["type", "immutable"]);
    let data = fields.optional("data", |cursor| {
        cursor.entries(|key, value| Some((Arc::from(key), base64(value)?)))
    });
    let plain = fields.optional("stringData", |cursor| {
        cursor.entries(|key, value| Some((Arc::from(key), value.text()?.as_bytes().into())))
    });
    // As in Kubernetes, `stringData` takes the place of `data`.
    let both = data.into_iter().chain(plain).flatten();
    SecretSpec {
        data: both.collect(),
    }
}

fn base64(cursor: Cursor<'_>) -> Option<Arc<[u8]>> {
    let mut text = cursor.text()?.to_owned();
    text.retain(|character| !character.is_ascii_whitespace());
    match STANDARD.decode(&text) {
        Ok(bytes) => Some(bytes.into()),
        Err(_) => cursor.error("not Base64", "write it as it is under `stringData`"),
    }
}
