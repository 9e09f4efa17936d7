use std::time::Duration;

use crate::config::decode::{Cursor, Fields};
use crate::config::defaults;
use crate::model::{Circuit, CircuitBreaker};

/// `circuit` of a Service: how much of it one proxy uses at once, and when not at all.
pub(super) fn circuit(fields: &mut Fields<'_, '_>) -> Option<Circuit> {
    let defaults = Circuit::default();
    let limit = |cursor: Cursor<'_>| cursor.number::<u32>(1..=u64::from(u32::MAX));
    let queue = |cursor: Cursor<'_>| cursor.number::<u32>(0..=u64::from(u32::MAX));
    let connections = fields.optional("connections_max", limit);
    let endpoint_connections = fields.optional("endpoint_connections_max", limit);
    let requests = fields.optional("requests_max", limit);
    let endpoint_requests = fields.optional("endpoint_requests_max", limit);
    let pending = fields.optional("pending_max", queue);
    let endpoint_pending = fields.optional("endpoint_pending_max", queue);
    let retries_max = fields.optional("retries_max", queue);
    let retries = fields.optional("retries", |cursor| {
        cursor.fields(|fields| {
            let percent = fields.optional("budget_percent", |c| c.whole_percent());
            let least = fields.optional("min_per_second", queue);
            Some((percent.map(u32::from), least))
        })
    });
    let (percent, least) = retries.unwrap_or_default();
    let requests = requests.unwrap_or(defaults.requests_max);
    let pending = pending.unwrap_or(defaults.pending_max);
    Some(Circuit {
        breaker: fields.optional("breaker", |c| c.fields(breaker)),
        connections_max: connections.unwrap_or(defaults.connections_max),
        endpoint_connections_max: endpoint_connections.unwrap_or(defaults.endpoint_connections_max),
        requests_max: requests,
        endpoint_requests_max: endpoint_requests.unwrap_or(requests),
        pending_max: pending,
        endpoint_pending_max: endpoint_pending.unwrap_or(pending),
        retries_max: retries_max.unwrap_or(defaults.retries_max),
        retry_budget_percent: percent.unwrap_or(defaults.retry_budget_percent),
        retry_budget_min_per_second: least.unwrap_or(defaults.retry_budget_min_per_second),
    })
}

fn breaker(fields: &mut Fields<'_, '_>) -> Option<CircuitBreaker> {
    let defaults = CircuitBreaker::default();
    let consecutive = fields.optional("consecutive_failures", |c| {
        c.number(0..=defaults::CIRCUIT_FAILURES_MAX)
    });
    let failures = fields.optional("failure_percent", |c| c.whole_percent());
    let slow = fields.optional("slow_percent", |c| c.whole_percent());
    let slow_after = fields.optional("slow_after", |c| c.nonzero_duration());
    let requests = fields.optional("requests_min", |c| c.number(1..=u64::from(u32::MAX)));
    let window = fields.optional("window", window);
    let open = fields.optional("open", |c| c.nonzero_duration());
    let open_max = fields.optional("open_max", |c| c.nonzero_duration());
    let probes = fields.optional("half_open_requests", |c| {
        c.number(1..=defaults::CIRCUIT_PROBES_MAX)
    });
    if slow.is_some_and(|percent| percent < 100) && slow_after.is_none() {
        let hint = "say from when on a request is slow, such as slow_after: 1s";
        return fields
            .cursor()
            .error("`slow_percent` needs `slow_after`", hint);
    }
    let slow_if_asked = slow_after.map(|_| defaults::CIRCUIT_SLOW_PERCENT);
    let open = open.unwrap_or(defaults.open);
    let breaker = CircuitBreaker {
        consecutive_failures: consecutive.unwrap_or(defaults.consecutive_failures),
        failure_percent: failures.unwrap_or(defaults.failure_percent),
        slow_percent: slow.or(slow_if_asked).unwrap_or(defaults.slow_percent),
        slow_after,
        requests_min: requests.unwrap_or(defaults.requests_min),
        window: window.unwrap_or(defaults.window),
        open,
        open_max: open_max.unwrap_or(defaults.open_max.max(open)),
        half_open_requests: probes.unwrap_or(defaults.half_open_requests),
    };
    if breaker.open_max < breaker.open {
        return fields.cursor().error(
            "`open_max` is shorter than `open`",
            "make it at least as long",
        );
    }
    warn_of_breaker_in_vain(fields, &breaker);
    Some(breaker)
}

fn window(cursor: Cursor<'_>) -> Option<Duration> {
    let range = defaults::CIRCUIT_WINDOW;
    let window = cursor.duration()?;
    if !range.contains(&window) {
        let (least, most) = (range.start(), range.end());
        let hint = format!("write {}s to {}s", least.as_secs(), most.as_secs());
        return cursor.error(format!("{window:?} is out of range"), hint);
    }
    Some(window)
}

fn warn_of_breaker_in_vain(fields: &Fields<'_, '_>, breaker: &CircuitBreaker) {
    let shares = [breaker.failure_percent, breaker.slow_percent];
    if breaker.consecutive_failures == 0 && shares.iter().all(|percent| *percent >= 100) {
        fields.cursor().warning(
            "nothing opens this circuit",
            "set consecutive_failures, failure_percent, or slow_after; or leave `breaker` out",
        );
    }
}
