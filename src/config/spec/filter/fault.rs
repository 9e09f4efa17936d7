use std::time::Duration;

use crate::base::rng::Chance;
use crate::config::decode::{Cursor, Fields};
use crate::config::defaults;
use crate::model::{Fault, FaultInjection, What};

pub(super) fn fault_injection(fields: &mut Fields<'_, '_>) -> Option<FaultInjection> {
    let delay = fields.optional("delay", |cursor| {
        cursor.fields(|fields| fault(fields, "duration", delay))
    });
    let abort = fields.optional("abort", |cursor| {
        cursor.fields(|fields| fault(fields, "statusCode", |c| c.number(400..=599)))
    });
    if !["delay", "abort"].iter().any(|key| fields.has(key)) {
        let here = fields.cursor();
        here.warning("nothing is injected", "say `delay` or `abort`");
    }
    Some(FaultInjection { delay, abort })
}

/// `{key: …, percent: 10}`, or `{header: x-fault, percent: 10}`.
fn fault<T>(
    fields: &mut Fields<'_, '_>,
    key: &'static str,
    read: impl Fn(Cursor<'_>) -> Option<T>,
) -> Option<Fault<T>> {
    let percent = fields.optional("percent", |c| c.percent());
    let fixed = fields.optional(key, read);
    let header = fields.optional("header", |c| c.header_name());
    let what = match (fields.has(key), fields.has("header")) {
        (true, true) => {
            let message = format!("`{key}` and `header` exclude each other");
            return fields.cursor().error(message, "say one of them");
        }
        (false, false) => {
            let message = format!("says neither `{key}` nor `header`");
            let hint = "with `header`, the request says it itself in that field";
            return fields.cursor().error(message, hint);
        }
        (true, false) => What::Fixed(fixed?),
        (false, true) => What::Said(header?),
    };
    Some(Fault {
        what,
        chance: percent.map_or(Chance::ALWAYS, |percent| Chance::of(percent / 100.0)),
    })
}

fn delay(cursor: Cursor<'_>) -> Option<Duration> {
    const MAX: Duration = defaults::FAULT_DELAY_MAX;
    let delay = cursor.nonzero_duration()?;
    match delay > MAX {
        true => cursor.error(format!("{MAX:?} are the most"), ""),
        false => Some(delay),
    }
}
