//! `health` of a `Service`: how its endpoints are asked whether they can serve.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::config::decode::{Cursor, Fields};
use crate::config::defaults;
use crate::config::yaml::Value;
use crate::model::{HealthCheck, HealthProbe};

/// `health: tcp`, `health: grpc`, or a mapping with one of `http`, `grpc` and `tcp`.
pub(super) fn health(cursor: Cursor<'_>) -> Option<HealthCheck> {
    if let Value::Mapping(_) = cursor.node.value {
        return cursor.fields(detailed);
    }
    let probe = match cursor.choice(&[("tcp", false), ("grpc", true)])? {
        false => HealthProbe::Tcp,
        true => whole_server(),
    };
    Some(probed_by(probe))
}

fn detailed(fields: &mut Fields<'_, '_>) -> Option<HealthCheck> {
    let probes = [
        fields.optional("http", |c| c.fields(http)),
        fields.optional("grpc", |c| c.fields(grpc)),
        fields.optional("tcp", |c| c.fields(|_| Some(HealthProbe::Tcp))),
    ];
    let written = ["http", "grpc", "tcp"].map(|key| fields.has(key));
    let threshold = |c: Cursor<'_>| c.number(1..=defaults::HEALTH_THRESHOLD_MAX);
    let interval = fields.optional("interval", |c| c.nonzero_duration());
    let timeout = fields.optional("timeout", |c| c.nonzero_duration());
    let healthy = fields.optional("healthy_threshold", threshold);
    let unhealthy = fields.optional("unhealthy_threshold", threshold);
    let example = "such as `http: {path: /healthz}`, `grpc: {}` or `tcp: {}`";
    match written.iter().filter(|written| **written).count() {
        0 => return fields.cursor().error("does not say what to ask", example),
        1 => {}
        _ => {
            let hint = "keep one of `http`, `grpc` and `tcp`";
            return fields.cursor().error("more than one kind of probe", hint);
        }
    }
    let health = probed_by(probes.into_iter().flatten().next()?);
    Some(HealthCheck {
        interval: interval.unwrap_or(health.interval),
        timeout: timeout.unwrap_or(health.timeout),
        healthy_threshold: healthy.unwrap_or(health.healthy_threshold),
        unhealthy_threshold: unhealthy.unwrap_or(health.unhealthy_threshold),
        ..health
    })
}

fn http(fields: &mut Fields<'_, '_>) -> Option<HealthProbe> {
    let path = fields.required("path", |c| c.absolute_path());
    let host = fields.optional("host", host);
    let statuses = fields.optional("statuses", |c| c.list(statuses));
    Some(HealthProbe::Http {
        path: path?,
        host,
        statuses: statuses.unwrap_or_else(|| vec![defaults::HEALTH_STATUSES]),
    })
}

fn grpc(fields: &mut Fields<'_, '_>) -> Option<HealthProbe> {
    let service = fields.optional("service", |c| c.owned_text());
    Some(service.map_or_else(whole_server, |service| HealthProbe::Grpc { service }))
}

fn whole_server() -> HealthProbe {
    HealthProbe::Grpc {
        service: Arc::default(),
    }
}

/// What a Host field and an `:authority` may hold.
fn host(cursor: Cursor<'_>) -> Option<Arc<str>> {
    let text = cursor.filled_text()?;
    let host = text.parse::<http::uri::Authority>();
    match host {
        Ok(host) if !host.as_str().contains('@') => Some(text.into()),
        _ => cursor.error(
            format!("`{text}` is not a host"),
            "such as shop.example.com",
        ),
    }
}

/// `200`, or `200-299`.
fn statuses(cursor: Cursor<'_>) -> Option<RangeInclusive<u16>> {
    let text = cursor.text()?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| {
        let code = text.trim().parse::<u16>().ok()?;
        (100..600).contains(&code).then_some(code)
    };
    match (status(first), status(last)) {
        (Some(first), Some(last)) if first <= last => Some(first..=last),
        _ => cursor.error(
            format!("`{text}` is no status and no range of them"),
            "such as 200 or 200-399",
        ),
    }
}

fn probed_by(probe: HealthProbe) -> HealthCheck {
    HealthCheck {
        probe,
        interval: defaults::HEALTH_INTERVAL,
        timeout: defaults::HEALTH_TIMEOUT,
        healthy_threshold: defaults::HEALTHY_THRESHOLD,
        unhealthy_threshold: defaults::UNHEALTHY_THRESHOLD,
    }
}
