mod invariants;
mod order;
mod overload;
mod simulation;

use super::*;

const MS: Nanos = 1_000_000;

fn settings(slots: u32, discipline: Discipline) -> model::Lane {
    model::Lane {
        discipline,
        ..model::Lane::new(LaneLimit::Fixed(slots))
    }
}

fn item<T>(class: Class, tenant: u64, payload: T) -> Item<T> {
    Item {
        class,
        tenant,
        deadline: None,
        payload,
    }
}
