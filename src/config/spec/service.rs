use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::{circuit, gray, hashing, health, lane, path};
use crate::config::decode::{Cursor, Fields};
use crate::config::defaults;
use crate::config::problem::Spot;
use crate::config::yaml::Value;
use crate::interface::Interface;
use crate::model::{
    Address, Balance, ClusterKey, Endpoint, EndpointState, HashKey, LeastRequest, Name, Outlier,
    Pem, Policy, Port, Protocol, Service, SlowStart, Subset, UpstreamTls,
};

/// Our `Service`.
#[derive(Debug)]
pub struct ServiceSpec {
    /// As the model has it, but for relative paths; shared with the snapshot where nothing is to be added.
    pub service: Arc<Service>,
    /// Where each of its subsets is written.
    pub subset_spots: Vec<Spot>,
    /// Where the service is written that takes over.
    pub failover_spot: Option<Spot>,
    /// Where each file of its interface is named.
    pub api_spots: Vec<Spot>,
}

pub(super) fn read(fields: &mut Fields<'_, '_>, name: Name) -> ServiceSpec {
    let ports = fields.optional("ports", ports);
    let endpoints = fields.optional("endpoints", endpoints);
    let subsets = fields.optional("subsets", subsets).unwrap_or_default();
    let (subsets, subset_spots) = subsets.into_iter().unzip();
    let failover = fields.optional("failover", |c| failover(c, &name));
    let (failover, failover_spot) = failover.unzip();
    let api = fields.optional("api", api).unwrap_or_default();
    let (api, api_spots) = api.into_iter().unzip();
    let service = Service {
        name,
        ports: ports.unwrap_or_default(),
        endpoints: endpoints.unwrap_or_default(),
        subsets,
        balance: fields.optional("balance", balance).unwrap_or_default(),
        health: fields.optional("health", health::health).map(Arc::new),
        outlier: fields
            .optional("outlier", |c| c.fields(outlier))
            .unwrap_or_default(),
        circuit: fields
            .optional("circuit", |c| c.fields(circuit::circuit))
            .unwrap_or_default(),
        lane: fields.optional("lane", |c| c.fields(lane::lane)),
        outbound_lane: fields.optional("outbound_lane", |c| c.fields(lane::lane)),
        gray: fields
            .optional("gray", |c| c.fields(gray::gray))
            .map(Arc::new),
        failover,
        path: fields
            .optional("path", |c| c.fields(path::normalization))
            .unwrap_or_default(),
        tls: fields.optional("tls", |c| c.fields(tls)),
        api,
    };
    if is_tcp(&service) {
        warn_of_lane_in_vain(fields, &service);
        warn_of_keys_in_vain(fields, &service.balance);
    }
    ServiceSpec {
        service: Arc::new(service),
        subset_spots,
        failover_spot,
        api_spots,
    }
}

/// A file, or several.
fn api(cursor: Cursor<'_>) -> Option<Vec<(PathBuf, Spot)>> {
    let file = |cursor: Cursor<'_>| {
        let file = cursor.path()?;
        if Interface::is_one(&file) {
            return Some((file, cursor.spot()));
        }
        cursor.error(
            format!("`{}` is no interface", file.display()),
            Interface::FILES,
        )
    };
    match &cursor.node.value {
        Value::Sequence(_) => cursor.list(file),
        _ => file(cursor).map(|one| vec![one]),
    }
}

/// Every port is.
fn is_tcp(service: &Service) -> bool {
    let is_tcp = |port: &Port| port.protocol == Some(Protocol::Tcp);
    !service.ports.is_empty() && service.ports.iter().all(is_tcp)
}

fn warn_of_keys_in_vain(fields: &Fields<'_, '_>, balance: &Balance) {
    let hashing = balance.hashing();
    if hashing.is_some_and(|hashing| !hashing.keys.contains(&HashKey::SourceAddress)) {
        fields.cursor().warning(
            "connections have none of the keys in `hash_on`, and every port of this service is tcp",
            "say `hash_on: source_address`, or declare what its ports speak",
        );
    }
}

fn warn_of_lane_in_vain(fields: &Fields<'_, '_>, service: &Service) {
    let lanes = [
        ("lane", &service.lane),
        ("outbound_lane", &service.outbound_lane),
    ];
    for (name, _) in lanes.iter().filter(|(_, lane)| lane.is_some()) {
        fields.cursor().warning(
            format!("`{name}` is for requests, and every port of this service is tcp"),
            "leave it out, or declare what its ports speak",
        );
    }
}

fn ports(cursor: Cursor<'_>) -> Option<Vec<Port>> {
    let mut seen = HashSet::new();
    cursor.list(|cursor| {
        let port = cursor.fields(|fields| {
            let port = fields.required("port", |c| c.port());
            let protocol = fields.optional("protocol", |c| c.protocol());
            let name = fields.optional("name", |c| c.name());
            Some(Port {
                port: port?,
                name,
                protocol,
                tls: None,
            })
        })?;
        if !seen.insert(port.port) {
            return cursor.error(format!("port {} is listed twice", port.port), "");
        }
        Some(port)
    })
}

fn endpoints(cursor: Cursor<'_>) -> Option<Vec<Endpoint>> {
    let mut seen: HashSet<Address> = HashSet::new();
    // Most endpoints of a service carry the same labels, or none.
    let mut labels = Arc::new(BTreeMap::new());
    cursor.list(|cursor| {
        let endpoint = cursor.fields(|fields| endpoint(fields, &mut labels))?;
        if !seen.insert(endpoint.address.clone()) {
            return cursor.error(format!("endpoint {} is listed twice", endpoint.address), "");
        }
        Some(endpoint)
    })
}

type Labels = BTreeMap<Arc<str>, Arc<str>>;

fn endpoint(fields: &mut Fields<'_, '_>, labels: &mut Arc<Labels>) -> Option<Endpoint> {
    let address = fields.required("address", |c| c.endpoint_address());
    let port = fields.optional("port", |c| c.port());
    let weight = fields.optional("weight", |c| c.number(0..=defaults::WEIGHT_MAX));
    let zone = fields.optional("zone", |c| c.owned_text());
    let priority = fields.optional("priority", |c| c.number(0..=u64::from(u8::MAX)));
    let own_labels = fields
        .optional("labels", |c| c.labels())
        .unwrap_or_default();
    if own_labels != **labels {
        *labels = Arc::new(own_labels);
    }
    Some(Endpoint {
        address: address?,
        port,
        weight: weight.unwrap_or(defaults::ENDPOINT_WEIGHT),
        zone,
        priority: priority.unwrap_or(0),
        labels: Arc::clone(labels),
        state: EndpointState::Passing,
        instance: None,
    })
}

fn subsets(cursor: Cursor<'_>) -> Option<Vec<(Subset, Spot)>> {
    cursor.entries(|name, cursor| {
        if !crate::config::decode::is_dns_name(name) {
            let hint = "it shares the names of services: use a-z, 0-9, `-` and `.`";
            return cursor.error(format!("`{name}` is not a name for a subset"), hint);
        }
        let labels = cursor.labels()?;
        if labels.is_empty() {
            return cursor.error("a subset needs labels", "such as {version: v1}");
        }
        Some((
            Subset {
                name: name.into(),
                labels,
            },
            cursor.spot(),
        ))
    })
}

/// `balance: least_request` or `balance: {policy: least_request}`.
fn balance(cursor: Cursor<'_>) -> Option<Balance> {
    let policy = match &cursor.node.value {
        Value::Mapping(_) => return cursor.fields(detailed_balance),
        _ => policy(cursor)?,
    };
    Some(Balance {
        policy,
        ..Balance::default()
    })
}

fn detailed_balance(fields: &mut Fields<'_, '_>) -> Option<Balance> {
    let defaults = Balance::default();
    let policy = match fields.optional("policy", policy) {
        // Which keys go with it cannot be told.
        None if fields.has("policy") => {
            fields.ignore_rest();
            return None;
        }
        policy => policy.unwrap_or_default(),
    };
    let weights = fields.optional("weights", |cursor| weights(cursor, policy));
    let window = fields.optional("slow_start", |c| c.duration());
    Some(Balance {
        policy: weights.unwrap_or(policy),
        slow_start: window.map_or(defaults.slow_start, |window| SlowStart { window }),
        least_request: least_request(fields, policy),
        hashing: hashing::hashing(fields, policy).map(Arc::new),
    })
}

fn least_request(fields: &mut Fields<'_, '_>, policy: Policy) -> LeastRequest {
    let defaults = LeastRequest::default();
    let only = [Policy::LeastRequest];
    let choices = fields.optional("choices", |c| {
        is_for(c, policy, &only)?.number(defaults::CHOICES)
    });
    let bias = fields.optional("bias", |c| {
        is_for(c, policy, &only)?.decimal(0.0..=defaults::BIAS_MAX)
    });
    LeastRequest {
        choices: choices.unwrap_or(defaults.choices),
        bias: bias.unwrap_or(defaults.bias),
    }
}

/// The cursor itself, where the policy is one of those that the key is for.
pub(super) fn is_for<'a>(
    cursor: Cursor<'a>,
    policy: Policy,
    policies: &[Policy],
) -> Option<Cursor<'a>> {
    if policies.contains(&policy) {
        return Some(cursor);
    }
    let names: Vec<String> = policies
        .iter()
        .map(|policy| format!("`policy: {}`", policy.as_str()))
        .collect();
    cursor.error(
        format!("`{}` does not use this", policy.as_str()),
        format!("it is for {}", names.join(" and ")),
    )
}

/// `weights: auto`, for `weighted_round_robin`.
fn weights(cursor: Cursor<'_>, policy: Policy) -> Option<Policy> {
    let chosen = cursor.choice(&[("auto", Policy::AutoWeightedRoundRobin)])?;
    if policy == Policy::WeightedRoundRobin {
        return Some(chosen);
    }
    let hint =
        "say `policy: weighted_round_robin`, or `policy: load_factor`, which has them anyway";
    cursor.error(
        format!("`{}` has no weights to work out", policy.as_str()),
        hint,
    )
}

fn policy(cursor: Cursor<'_>) -> Option<Policy> {
    cursor.choice(&[
        ("peak_ewma", Policy::PeakEwma),
        ("least_request", Policy::LeastRequest),
        ("least_connections", Policy::LeastConnections),
        ("round_robin", Policy::RoundRobin),
        ("weighted_round_robin", Policy::WeightedRoundRobin),
        ("random", Policy::Random),
        ("load_factor", Policy::LoadFactor),
        ("lowest_load", Policy::LowestLoad),
        ("maglev", Policy::Maglev),
        ("ring_hash", Policy::RingHash),
    ])
}

fn outlier(fields: &mut Fields<'_, '_>) -> Option<Outlier> {
    let defaults = Outlier::default();
    let consecutive = fields.optional("consecutive_5xx", |c| c.number(0..=1_000_000));
    let gateway = fields.optional("consecutive_gateway", |c| c.number(0..=1_000_000));
    let local = fields.optional("consecutive_local", |c| c.number(0..=1_000_000));
    let interval = fields.optional("interval", |c| c.nonzero_duration());
    let failures = fields.optional("failure_percent", |c| c.whole_percent());
    let success_rate = fields.optional("success_rate", |c| c.boolean());
    let slow_factor = fields.optional("slow_factor", |c| c.number(0..=1_000));
    let base = fields.optional("base_ejection", |c| c.nonzero_duration());
    let longest = fields.optional("ejection_max", |c| c.nonzero_duration());
    let share = fields.optional("max_ejection", |c| c.whole_percent());
    let consecutive = consecutive.unwrap_or(defaults.consecutive_5xx);
    let base_ejection = base.unwrap_or(defaults.base_ejection);
    let ejection_max = longest.unwrap_or(defaults.ejection_max.max(base_ejection));
    if ejection_max < base_ejection {
        let here = fields.cursor();
        return here.error(
            "`ejection_max` is shorter than `base_ejection`",
            "make it at least as long",
        );
    }
    Some(Outlier {
        consecutive_5xx: consecutive,
        consecutive_gateway: gateway.unwrap_or(consecutive),
        consecutive_local: local.unwrap_or(consecutive),
        interval: interval.unwrap_or(defaults.interval),
        failure_percent: failures.unwrap_or(defaults.failure_percent),
        success_rate: success_rate.unwrap_or(defaults.success_rate),
        slow_factor: slow_factor.unwrap_or(defaults.slow_factor),
        base_ejection,
        ejection_max,
        max_ejection_percent: share.unwrap_or(defaults.max_ejection_percent),
    })
}

/// `failover: other`, or a mapping where it is of another namespace or has several ports.
fn failover(cursor: Cursor<'_>, own: &Name) -> Option<(ClusterKey, Spot)> {
    let (name, namespace, port) = match &cursor.node.value {
        Value::Mapping(_) => cursor.fields(|fields| {
            let name = fields.required("name", |c| c.name());
            let namespace = fields.optional("namespace", |c| c.namespace());
            let port = fields.optional("port", |c| c.port());
            Some((name?, namespace, port))
        })?,
        _ => (cursor.name()?, None, None),
    };
    let service = Name {
        namespace: namespace.unwrap_or_else(|| Arc::clone(&own.namespace)),
        name,
    };
    if service == *own {
        return cursor.error("a service cannot take over from itself", "name another one");
    }
    let key = ClusterKey {
        service,
        subset: None,
        port,
    };
    Some((key, cursor.spot()))
}

fn tls(fields: &mut Fields<'_, '_>) -> Option<UpstreamTls> {
    fields.not_built(&[(
        "mode",
        "; `tls: {}` speaks TLS and trusts the system's roots",
    )]);
    Some(UpstreamTls {
        sni: fields.optional("sni", |c| c.owned_text()),
        ca: fields.optional("ca", |c| c.path()).map(Pem::File),
        certificate: fields.optional("certificate", |c| c.fields(super::gateway::certificate)),
        ..UpstreamTls::default()
    })
}
