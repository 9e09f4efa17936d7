use std::sync::Arc;
use std::time::Duration;

use crate::base::buckets::{Buckets, Rate};
use crate::config::decode::{Cursor, Fields};
use crate::config::yaml::Value;
use crate::model::{RateLimit, RateLimitKey};

pub(super) fn rate_limit(fields: &mut Fields<'_, '_>) -> Option<RateLimit> {
    let requests = fields.required("requests", |c| c.number(1..=1_000_000_000));
    let per = fields.optional("per", period);
    let burst = fields.optional("burst", |c| c.number(1..=1_000_000_000));
    let key = fields.optional("key", key);
    let requests: u32 = requests?;
    let per = per.unwrap_or(Duration::from_secs(1));
    let rate = Rate::new(requests, per, burst.unwrap_or(requests));
    Some(RateLimit {
        key: key.unwrap_or(RateLimitKey::All),
        buckets: Arc::new(Buckets::new(rate)),
    })
}

fn period(cursor: Cursor<'_>) -> Option<Duration> {
    const MAX: Duration = Duration::from_secs(24 * 3600);
    let period = cursor.nonzero_duration()?;
    match period > MAX {
        true => cursor.error("24h are the most", "say fewer `requests` in a shorter time"),
        false => Some(period),
    }
}

/// `source`, or `{header: x-user}`.
fn key(cursor: Cursor<'_>) -> Option<RateLimitKey> {
    match &cursor.node.value {
        Value::Mapping(_) => cursor.fields(|fields| {
            let header = fields.required("header", |c| c.header_name());
            header.map(RateLimitKey::Header)
        }),
        _ => match cursor.text()? {
            "source" => Some(RateLimitKey::Source),
            text => {
                let hint = "write source, or {header: NAME}; without `key` all requests are counted together";
                cursor.error(format!("`{text}` is not a key"), hint)
            }
        },
    }
}

pub(super) fn size_limit(fields: &mut Fields<'_, '_>) -> Option<u64> {
    fields.required("max", |c| c.size())
}
