//! What the admin pages show of the data plane.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::admin::{CheckView, CircuitView, ClusterView, EndpointView, LaneView};
use crate::api::Rejection;
use crate::config::{Problem, status};
use crate::explain::{self, Asked, Explained, Known};
use crate::lane::Reason;
use crate::model::{
    BackendTarget, CircuitBreaker, Class, ClusterKey, Filter, Gray, HedgeAfter, Lane, LaneLimit,
    Mirror, PathMatch, PathNormalization, Route, Service, SessionCarrier, Snapshot, ValueMatch,
};
use crate::proxy::cluster::circuit::{self, CircuitReport};
use crate::proxy::cluster::health::{Health, State};
use crate::proxy::cluster::plan::Standing;
use crate::proxy::cluster::report::{EndpointReport, Report};
use crate::proxy::cluster::{Clusters, Outcome, Overflow};
use crate::proxy::lane::{LaneReport, Lanes};
use crate::telemetry::metrics::{Registry, Scrape};

/// The page `/clusters`.
pub fn clusters(clusters: &Clusters) -> Vec<ClusterView> {
    let now = Instant::now();
    let view = |cluster: std::sync::Arc<crate::proxy::cluster::Cluster>| {
        let report = cluster.report(now);
        let service = cluster.service();
        let gray = service.gray_of(cluster.key.subset.as_deref());
        ClusterView {
            name: cluster.key.to_string(),
            policy: service.balance.policy.as_str().to_owned(),
            circuit: report.circuit.as_ref().map(circuit_view),
            endpoints: report
                .endpoints
                .iter()
                .map(|one| endpoint(one, gray))
                .collect(),
        }
    };
    clusters.iter().map(view).collect()
}

fn circuit_view(report: &CircuitReport) -> CircuitView {
    CircuitView {
        state: report.standing.as_str().to_owned(),
        why: report.refusal.as_ref().map(ToString::to_string),
        refused: report.refused,
    }
}

fn endpoint(report: &EndpointReport, gray: Option<&Gray>) -> EndpointView {
    let endpoint = &report.endpoint;
    let totals = endpoint.totals();
    EndpointView {
        address: endpoint.address.to_string(),
        state: match report.standing {
            Standing::Healthy => "passing",
            Standing::Ejected => "ejected",
            Standing::Unproven => "unproven",
            Standing::Critical => "critical",
            Standing::Unreachable => "unreachable",
            Standing::Failing => "failing",
            Standing::Out => "out",
        }
        .to_owned(),
        why: report.why.to_string(),
        weight: endpoint.model.weight,
        priority: endpoint.model.priority,
        zone: endpoint.model.zone.as_deref().map(str::to_owned),
        lane: gray.and_then(|gray| endpoint.lane(gray)).map(str::to_owned),
        in_flight: report.in_flight.into(),
        connections: report.connections.into(),
        latency_ms: report.latency.map(|latency| latency.as_secs_f64() * 1e3),
        load: report.reported.map(|reported| reported.load),
        load_weight: report.reported.and_then(|reported| reported.weight),
        load_age_ms: report
            .reported
            .map(|reported| reported.age.as_millis() as u64),
        requests: totals.iter().sum(),
        failures: totals[Outcome::FAILURES].iter().sum(),
        check: endpoint.health.as_ref().map(|health| CheckView {
            state: health.state().as_str().to_owned(),
            checks: health.checks(),
            failures: health.failures(),
            obstacle: health.obstacle().as_deref().map(str::to_owned),
        }),
        instance: endpoint.model.instance.as_deref().map(str::to_owned),
    }
}

/// The page `/explain`.
pub fn explained(
    asked: &Asked,
    snapshot: &Snapshot,
    namespace: &str,
    clusters: &Clusters,
) -> Result<Explained, String> {
    let views = self::clusters(clusters);
    let endpoints = |key: &ClusterKey| {
        let name = key.to_string();
        match views.iter().find(|view| view.name == name) {
            Some(view) => view.endpoints.iter().map(explained_endpoint).collect(),
            // Nobody has asked for it yet.
            None => explain::documented(snapshot, key),
        }
    };
    let known = Known {
        endpoints: &endpoints,
        interfaces: true,
    };
    let explained = asked.explain(snapshot, namespace, known);
    explained.map_err(|error| error.to_string())
}

fn explained_endpoint(view: &EndpointView) -> explain::Endpoint {
    let latency = view.latency_ms.map(|latency| format!("{latency:.1} ms"));
    let load = view.load.map(|load| format!("load {load:.2}"));
    let score = [Some(format!("{} in flight", view.in_flight)), latency, load];
    explain::Endpoint {
        address: view.address.clone(),
        weight: view.weight,
        priority: view.priority,
        zone: view.zone.clone(),
        lane: view.lane.clone(),
        state: Some(view.state.clone()),
        why: view.why.clone(),
        score: score.into_iter().flatten().collect::<Vec<_>>().join(", "),
    }
}

/// The page `/lanes`.
pub fn lanes(lanes: &Lanes) -> Vec<LaneView> {
    let view = |lane: &LaneReport| LaneView {
        service: lane.service.clone(),
        limit: lane.limit,
        in_flight: lane.in_flight,
        queued: Class::ALL
            .map(|class| (class.as_str(), lane.queued[class as usize]))
            .into(),
        admits: lane.admits.map(Class::as_str),
        discipline: lane.discipline.as_str(),
        configured: lane.configured.as_str(),
        switches: lane.switches.iter().sum(),
        why: lane.why.clone(),
        admitted: lane.admitted(),
        refused: Reason::ALL
            .map(|reason| (reason.as_str(), lane.refused(reason)))
            .into(),
    };
    lanes.report().iter().map(view).collect()
}

/// The page `/config`: the effective snapshot. Certificates appear as paths; keys and tokens are not in a snapshot.
pub fn snapshot(snapshot: &Snapshot) -> Value {
    let mut services: Vec<_> = snapshot.services.values().collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    json!({
        "revision": snapshot.revision,
        "listeners": snapshot.binds.iter().flat_map(|bind| {
            bind.listeners.iter().map(|listener| json!({
                "address": bind.address.to_string(),
                "gateway": listener.gateway.to_string(),
                "name": &*listener.name,
                "hostname": listener.hostname.as_ref().map(ToString::to_string),
                "on_half_close": listener.on_half_close.as_str(),
                "path": normalization(&listener.path),
                "tls": listener.tls.as_ref().map(|tls| {
                    tls.certificates.iter().map(|pair| pair.chain.to_string()).collect::<Vec<_>>()
                }),
                "routes": listener.routes.iter().map(|route| route_view(route)).collect::<Vec<_>>(),
            })).collect::<Vec<_>>()
        }).collect::<Vec<_>>(),
        "mesh_routes": snapshot.mesh_routes.iter().map(|route| route_view(route)).collect::<Vec<_>>(),
        "services": services.into_iter().map(|service| service_view(service)).collect::<Vec<_>>(),
        "statuses": status::to_json(&snapshot.statuses),
    })
}

fn normalization(path: &PathNormalization) -> Value {
    json!({
        "encoded_slash": path.encoded_slash.as_str(),
        "backslash": path.backslash.as_str(),
        "merge_slashes": path.merge_slashes,
    })
}

fn mirror(mirror: &Mirror) -> Value {
    let share = mirror.chance.share();
    match &mirror.target {
        BackendTarget::Cluster(key) => json!({
            "service": key.service.to_string(), "subset": key.subset.as_deref(), "port": key.port, "share": share,
        }),
        BackendTarget::Invalid(reason) => json!({"invalid": &**reason, "share": share}),
    }
}

fn route_view(route: &Route) -> Value {
    json!({
        "kind": route.kind.as_str(),
        "name": route.name.to_string(),
        "hostnames": route.hostnames.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "rules": route.rules.iter().map(|rule| json!({
            "name": rule.name.as_deref(),
            "matches": rule.matches.iter().map(|conditions| json!({
                "path": path(&conditions.path),
                "method": conditions.method.as_deref(),
                "headers": conditions.headers.iter()
                    .map(|header| json!({"name": &*header.name, "value": value(&header.value)})).collect::<Vec<_>>(),
                "query": conditions.queries.iter()
                    .map(|query| json!({"name": &*query.name, "value": value(&query.value)})).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "backends": rule.backends.iter().map(|backend| match &backend.target {
                BackendTarget::Cluster(key) => json!({
                    "service": key.service.to_string(), "subset": key.subset.as_deref(), "port": key.port,
                    "weight": backend.weight, "filters": backend.filters.iter().map(Filter::kind).collect::<Vec<_>>(),
                    "mirrors": backend.mirrors.iter().map(mirror).collect::<Vec<_>>(),
                }),
                BackendTarget::Invalid(reason) => json!({"invalid": &**reason, "weight": backend.weight}),
            }).collect::<Vec<_>>(),
            "filters": rule.filters.iter().map(Filter::kind).collect::<Vec<_>>(),
            "mirrors": rule.mirrors.iter().map(mirror).collect::<Vec<_>>(),
            "timeouts": {
                "request_ms": rule.timeouts.request.map(|limit| limit.as_millis() as u64),
                "backend_request_ms": rule.timeouts.backend_request.map(|limit| limit.as_millis() as u64),
            },
            "retry": rule.retry.as_ref().map(|retry| json!({"attempts": retry.attempts_max, "codes": retry.codes})),
            "session": rule.session.as_ref().map(|session| json!({
                "type": match session.carrier {
                    SessionCarrier::Cookie { .. } => "Cookie",
                    SessionCarrier::Header => "Header",
                },
                "name": session.name.as_deref(),
                "absolute_timeout_ms": session.absolute_timeout.map(|limit| limit.as_millis() as u64),
                "idle_timeout_ms": session.idle_timeout.map(|limit| limit.as_millis() as u64),
            })),
            "hedge": rule.hedge.map(|hedge| json!({
                "after_ms": match hedge.after {
                    HedgeAfter::P95 => json!("p95"),
                    HedgeAfter::Fixed(after) => json!(after.as_millis() as u64),
                },
                "extra_percent": hedge.extra_percent,
            })),
        })).collect::<Vec<_>>(),
    })
}

fn path(path: &PathMatch) -> Value {
    match path {
        PathMatch::Exact(path) => json!({"exact": &**path}),
        PathMatch::Prefix(prefix) => {
            json!({"prefix": if prefix.is_empty() { "/" } else { prefix }})
        }
        PathMatch::Regex(regex) => json!({"regex": regex.as_str()}),
        PathMatch::Method(method) => json!({"method": &**method}),
    }
}

fn value(value: &ValueMatch) -> Value {
    match value {
        ValueMatch::Exact(value) => json!({"exact": &**value}),
        ValueMatch::Regex(regex) => json!({"regex": regex.as_str()}),
    }
}

fn service_view(service: &Service) -> Value {
    json!({
        "name": service.name.to_string(),
        "ports": service.ports.iter()
            .map(|port| json!({"port": port.port, "protocol": port.protocol.map(|protocol| protocol.as_str())}))
            .collect::<Vec<_>>(),
        "endpoints": service.endpoints.iter().map(|endpoint| json!({
            "address": endpoint.address.to_string(), "weight": endpoint.weight, "zone": endpoint.zone.as_deref(),
            "priority": endpoint.priority,
        })).collect::<Vec<_>>(),
        "subsets": service.subsets.iter()
            .map(|subset| json!({"name": &*subset.name, "labels": subset.labels.iter()
                .map(|(key, value)| (key.to_string(), Value::from(&**value))).collect::<serde_json::Map<_, _>>()}))
            .collect::<Vec<_>>(),
        "balance": service.balance.policy.as_str(),
        "slow_start_ms": service.balance.slow_start.window.as_millis() as u64,
        "health": service.health.as_ref().map(|check| json!({
            "probe": check.probe.as_str(),
            "interval_ms": check.interval.as_millis() as u64,
            "timeout_ms": check.timeout.as_millis() as u64,
            "healthy_threshold": check.healthy_threshold,
            "unhealthy_threshold": check.unhealthy_threshold,
        })),
        "path": normalization(&service.path),
        "outlier": {
            "consecutive_5xx": service.outlier.consecutive_5xx,
            "consecutive_gateway": service.outlier.consecutive_gateway,
            "consecutive_local": service.outlier.consecutive_local,
            "interval_ms": service.outlier.interval.as_millis() as u64,
            "failure_percent": service.outlier.failure_percent,
            "success_rate": service.outlier.success_rate,
            "slow_factor": service.outlier.slow_factor,
            "base_ejection_ms": service.outlier.base_ejection.as_millis() as u64,
            "ejection_max_ms": service.outlier.ejection_max.as_millis() as u64,
            "max_ejection_percent": service.outlier.max_ejection_percent,
        },
        "failover": service.failover.as_ref().map(|key| key.service.to_string()),
        "circuit": {
            "connections_max": service.circuit.connections_max,
            "endpoint_connections_max": service.circuit.endpoint_connections_max,
            "requests_max": service.circuit.requests_max,
            "endpoint_requests_max": service.circuit.endpoint_requests_max,
            "pending_max": service.circuit.pending_max,
            "endpoint_pending_max": service.circuit.endpoint_pending_max,
            "retries_max": service.circuit.retries_max,
            "breaker": service.circuit.breaker.as_ref().map(breaker_view),
        },
        "lane": service.lane.as_ref().map(lane_view),
        "gray": service.gray.as_ref().map(|gray| json!({
            "header": gray.header.as_deref(), "baggage": gray.baggage.as_deref(), "label": &*gray.label,
        })),
        "outbound_lane": service.outbound_lane.as_ref().map(lane_view),
        "tls": service.tls.as_ref().map(|tls| json!({
            "sni": tls.sni.as_deref(), "ca": tls.ca.as_ref().map(|ca| ca.to_string()),
        })),
    })
}

fn breaker_view(breaker: &CircuitBreaker) -> Value {
    json!({
        "consecutive_failures": breaker.consecutive_failures,
        "failure_percent": breaker.failure_percent,
        "slow_percent": breaker.slow_percent,
        "slow_after_ms": breaker.slow_after.map(|limit| limit.as_millis() as u64),
        "requests_min": breaker.requests_min,
        "window_ms": breaker.window.as_millis() as u64,
        "open_ms": breaker.open.as_millis() as u64,
        "open_max_ms": breaker.open_max.as_millis() as u64,
        "half_open_requests": breaker.half_open_requests,
    })
}

fn lane_view(lane: &Lane) -> Value {
    json!({
        "limit": match lane.limit {
            LaneLimit::Fixed(limit) => Value::from(limit),
            LaneLimit::Adaptive => Value::from("adaptive"),
        },
        "discipline": lane.discipline.as_str(),
        "queue_max": lane.queue_max,
        "queue_timeout_ms": lane.queue_timeout.as_millis() as u64,
        "floors_percent": {
            "batch": lane.floors.batch_percent,
            "best-effort": lane.floors.best_effort_percent,
            "lowest-level": lane.floors.lowest_level_percent,
        },
        "tenant_header": lane.tenant.as_deref(),
        "class_from": lane.class_from.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// The page `/config/problems`: what was found, and whether it kept documents from taking effect.
pub fn problems(problems: &[Problem], refused: bool, rejected: Option<&Rejection>) -> Value {
    json!({
        "refused": refused || rejected.is_some(),
        "problems": problems,
        "registry": rejected,
    })
}

/// Gauges of every cluster, and of the endpoints of those that this proxy has had to do with, read when the metrics are. In a
/// mesh of thousands of services, all endpoints would be tens of megabytes that say nothing.
pub fn register_metrics(metrics: &Registry, clusters: Arc<Clusters>) {
    metrics.collect(move |scrape| {
        let now = Instant::now();
        for (cause, count) in clusters.events().totals() {
            scrape.counter(
                "pillion_events_total",
                "Detections and failovers, by what caused them.",
                &[("cause", cause.as_str())],
                count,
            );
        }
        for cluster in clusters.iter() {
            let service = match &cluster.key.subset {
                Some(subset) => format!("{}/{subset}", cluster.key.service),
                None => cluster.key.service.to_string(),
            };
            let port = cluster.key.port.map(|port| port.to_string());
            let port = port.unwrap_or_default();
            let report = cluster.report(now);
            cluster_metrics(scrape, &service, &port, &report.endpoints);
            if let Some(circuit) = &report.circuit {
                circuit_metrics(scrape, &service, &port, circuit);
            }
            if !report.endpoints.iter().any(is_of_interest) {
                continue;
            }
            limit_metrics(scrape, &service, &port, &report);
            for endpoint in &report.endpoints {
                endpoint_metrics(scrape, &service, &port, endpoint);
            }
        }
    });
}

/// It has been used, or something is the matter with it.
fn is_of_interest(endpoint: &EndpointReport) -> bool {
    endpoint.latency.is_some()
        || endpoint.in_flight > 0
        || endpoint.connections > 0
        || !matches!(endpoint.standing, Standing::Healthy)
}

fn cluster_metrics(scrape: &mut Scrape, service: &str, port: &str, endpoints: &[EndpointReport]) {
    let labels = [("service", service), ("port", port)];
    let in_flight: f64 = endpoints.iter().map(|one| f64::from(one.in_flight)).sum();
    scrape.gauge(
        "pillion_upstream_in_flight",
        "Requests that hold an endpoint.",
        &labels,
        in_flight,
    );
    let connections: f64 = endpoints.iter().map(|one| f64::from(one.connections)).sum();
    scrape.gauge(
        "pillion_upstream_pool_connections",
        "Open connections to endpoints.",
        &labels,
        connections,
    );
    let healthy = endpoints
        .iter()
        .filter(|one| matches!(one.standing, Standing::Healthy));
    scrape.gauge(
        "pillion_upstream_endpoints_healthy",
        "Endpoints that get requests in the ordinary way.",
        &labels,
        healthy.count() as f64,
    );
}

fn limit_metrics(scrape: &mut Scrape, service: &str, port: &str, report: &Report) {
    let labels = [("service", service), ("port", port)];
    scrape.gauge(
        "pillion_upstream_pending",
        "Requests that wait for a connection.",
        &labels,
        f64::from(report.pending),
    );
    scrape.gauge(
        "pillion_upstream_retries_in_flight",
        "Retries that wait for their turn or for the head of their answer.",
        &labels,
        f64::from(report.retrying),
    );
    for (limit, count) in std::iter::zip(Overflow::ALL, report.overflows) {
        scrape.counter(
            "pillion_circuit_overflow_total",
            "Requests, connections and retries refused at a limit of the service's `circuit`.",
            &[labels[0], labels[1], ("limit", limit.limit())],
            count,
        );
    }
}

fn circuit_metrics(scrape: &mut Scrape, service: &str, port: &str, circuit: &CircuitReport) {
    let labels = [("service", service), ("port", port)];
    let open = circuit.standing != circuit::Standing::Closed;
    scrape.gauge(
        "pillion_circuit_open",
        "1 while the service's circuit is open or half-open.",
        &labels,
        f64::from(u8::from(open)),
    );
    for (to, count) in std::iter::zip(circuit::Standing::ALL, circuit.transitions) {
        scrape.counter(
            "pillion_circuit_transitions_total",
            "Times the service's circuit opened, became half-open, or closed.",
            &[labels[0], labels[1], ("to", to.as_str())],
            count,
        );
    }
    scrape.counter(
        "pillion_circuit_refused_total",
        "Requests that the open circuit refused, or left to the service that takes over.",
        &labels,
        circuit.refused,
    );
}

fn endpoint_metrics(scrape: &mut Scrape, service: &str, port: &str, report: &EndpointReport) {
    let address = report.endpoint.address.to_string();
    let labels = [
        ("service", service),
        ("port", port),
        ("endpoint", &*address),
    ];
    let healthy = matches!(report.standing, Standing::Healthy);
    scrape.gauge(
        "pillion_endpoint_healthy",
        "1 while the endpoint gets requests in the ordinary way.",
        &labels,
        f64::from(u8::from(healthy)),
    );
    scrape.gauge(
        "pillion_endpoint_in_flight",
        "Requests that hold the endpoint.",
        &labels,
        f64::from(report.in_flight),
    );
    scrape.gauge(
        "pillion_endpoint_connections",
        "Open connections to the endpoint.",
        &labels,
        f64::from(report.connections),
    );
    let open = matches!(report.standing, Standing::Ejected);
    scrape.gauge(
        "pillion_endpoint_ejected",
        "1 while the endpoint's own breaker is open.",
        &labels,
        f64::from(u8::from(open)),
    );
    scrape.counter(
        "pillion_outlier_ejections_total",
        "Times the endpoint was ejected.",
        &labels,
        report.ejections,
    );
    if let Some(reported) = report.reported {
        scrape.gauge(
            "pillion_endpoint_load",
            "What the endpoint has last said of its load: 0 is idle, 1 is all that it can.",
            &labels,
            reported.load,
        );
    }
    if let Some(health) = &report.endpoint.health {
        check_metrics(scrape, &labels, health);
    }
}

fn check_metrics(scrape: &mut Scrape, labels: &[(&'static str, &str)], health: &Health) {
    scrape.gauge(
        "pillion_endpoint_health_passing",
        "1 while the endpoint passes its health check, or has not been judged since this proxy began.",
        labels,
        f64::from(u8::from(matches!(
            health.state(),
            State::Passing | State::Assumed
        ))),
    );
    scrape.counter(
        "pillion_endpoint_health_checks_total",
        "Health checks of the endpoint.",
        labels,
        health.checks(),
    );
    scrape.counter(
        "pillion_endpoint_health_check_failures_total",
        "Health checks that the endpoint failed.",
        labels,
        health.failures(),
    );
}
