use std::sync::Arc;

use crate::config::decode::{Cursor, Fields};
use crate::config::defaults;
use crate::model::{Class, Discipline, Floors, Lane, LaneLimit};

/// `lane` of a Service: how many requests its application gets at once, and who waits. `outbound_lane` is written like it.
pub(super) fn lane(fields: &mut Fields<'_, '_>) -> Option<Lane> {
    let limit = fields.optional("limit", limit);
    let discipline = fields.optional("discipline", discipline);
    let queue = fields.optional("queue", |cursor| {
        cursor.fields(|fields| {
            let max = fields.optional("max", |c| c.number(0..=defaults::LANE_QUEUE_MAX));
            let timeout = fields.optional("timeout", |c| c.nonzero_duration());
            Some((max, timeout))
        })
    });
    let floors = fields.optional("floors", |cursor| cursor.fields(floors));
    let tenant = fields.optional("tenant", |cursor| {
        cursor.fields(|fields| fields.required("header", header))
    });
    let class_from = fields.list("class_from", |c| c.network());
    let defaults = Lane::new(limit.unwrap_or(LaneLimit::Adaptive));
    let (max, timeout) = queue.unwrap_or_default();
    Some(Lane {
        discipline: discipline.unwrap_or(defaults.discipline),
        queue_max: max.unwrap_or(defaults.queue_max),
        queue_timeout: timeout.unwrap_or(defaults.queue_timeout),
        floors: floors.unwrap_or(defaults.floors),
        tenant,
        class_from,
        ..defaults
    })
}

fn limit(cursor: Cursor<'_>) -> Option<LaneLimit> {
    match cursor.text()? {
        "adaptive" => Some(LaneLimit::Adaptive),
        text if text.parse::<u64>().is_err() => {
            let hint = format!("write adaptive, or 1 to {}", defaults::LANE_SLOTS_MAX);
            cursor.error(format!("`{text}` is not a limit"), hint)
        }
        _ => cursor
            .number(1..=defaults::LANE_SLOTS_MAX)
            .map(LaneLimit::Fixed),
    }
}

fn discipline(cursor: Cursor<'_>) -> Option<Discipline> {
    const ALL: [Discipline; 4] = [
        Discipline::Fifo,
        Discipline::Priority,
        Discipline::Mlfq,
        Discipline::Auto,
    ];
    cursor.choice(&ALL.map(|discipline| (discipline.as_str(), discipline)))
}

/// Named by the classes that they are for.
fn floors(fields: &mut Fields<'_, '_>) -> Option<Floors> {
    let defaults = Floors::default();
    let batch = fields.optional(Class::Batch.as_str(), |c| c.whole_percent());
    let best_effort = fields.optional(Class::BestEffort.as_str(), |c| c.whole_percent());
    let lowest_level = fields.optional("lowest-level", |c| c.whole_percent());
    let floors = Floors {
        batch_percent: batch.unwrap_or(defaults.batch_percent),
        best_effort_percent: best_effort.unwrap_or(defaults.best_effort_percent),
        lowest_level_percent: lowest_level.unwrap_or(defaults.lowest_level_percent),
    };
    let classes = u16::from(floors.batch_percent) + u16::from(floors.best_effort_percent);
    if classes >= 100 || floors.lowest_level_percent >= 100 {
        let here = fields.cursor();
        return here.error(
            "these floors leave nothing for anybody else",
            "keep batch and best-effort together, and lowest-level, below 100%",
        );
    }
    Some(floors)
}

fn header(cursor: Cursor<'_>) -> Option<Arc<str>> {
    let name = cursor.header_name()?;
    Some(name.to_ascii_lowercase().into())
}
