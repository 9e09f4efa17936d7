//! Why a request goes where it goes: listener, hostname, every candidate rule and why it lost, filters with their effect, and the
//! endpoints, of documents or as a running proxy sees them.
//!
//! It asks the parts that serve requests (`proxy::route`, `proxy::filter`), never a reading of its own, and takes nothing from anybody:
//! no token of a rate limit, no count. Chance is told as shares.

mod effects;
mod facts;
mod question;
mod text;
mod words;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::model::{
    self, BackendTarget, Bind, ClusterKey, Name, PathNormalization, Service, Snapshot,
};
use crate::proxy::failure::Failure;
use crate::proxy::filter::Arrival;
use crate::proxy::http::gray;
use crate::proxy::http::head::{RequestHead, Scheme};
use crate::proxy::route::{
    CompiledRule, Fate, Found, HeadView, Listeners, MeshRoutes, Table, normalize, without_port,
};
use crate::telemetry::metrics::Requests;

pub use facts::{At, Backend, Candidate, Effect, Endpoint, Explained, Mirror, Outcome, Rule};
use words::{asked, candidate, hedge, operation, retry, session, text};

pub use question::{Asked, Question, QuestionError, Standpoint};

/// Candidates with another path that are listed; of a host with thousands of routes the others only count.
const OTHER_PATHS_MAX: usize = 20;

/// What whoever explains knows beside the documents.
#[derive(Clone, Copy)]
pub struct Known<'k> {
    /// The endpoints of a cluster.
    pub endpoints: &'k dyn Fn(&ClusterKey) -> Vec<Endpoint>,
    /// Whether to read the files in which services declare their operations.
    pub interfaces: bool,
}

/// What becomes of a request under these documents.
pub fn explain(snapshot: &Snapshot, question: &Question, known: Known<'_>) -> Explained {
    let explainer = Explainer {
        snapshot,
        question,
        known,
    };
    match &question.from {
        Standpoint::Outside { gateway } => explainer.at_gateway(gateway.as_ref()),
        Standpoint::Namespace(namespace) => explainer.at_sidecar(namespace),
    }
}

/// The endpoints that documents name themselves.
pub fn documented(snapshot: &Snapshot, key: &ClusterKey) -> Vec<Endpoint> {
    let Some(service) = snapshot.services.get(&key.service) else {
        return Vec::new();
    };
    let subset = key.subset.as_ref();
    let subset = subset.and_then(|name| service.subsets.iter().find(|subset| subset.name == *name));
    let of_subset = |endpoint: &&model::Endpoint| {
        subset.is_none_or(|subset| {
            let mut labels = subset.labels.iter();
            labels.all(|(name, value)| endpoint.labels.get(name) == Some(value))
        })
    };
    let gray = service.gray_of(key.subset.as_deref());
    let lane = |endpoint: &model::Endpoint| {
        let lane = endpoint.labels.get(&gray?.label)?;
        Some(lane.to_string()).filter(|lane| !lane.is_empty())
    };
    let of_port =
        |endpoint: &&model::Endpoint| endpoint.port.is_none() || endpoint.port == key.port;
    let endpoints = service.endpoints.iter().filter(of_port).filter(of_subset);
    let told = endpoints.map(|endpoint| Endpoint {
        address: endpoint.address.to_string(),
        weight: endpoint.weight,
        priority: endpoint.priority,
        zone: endpoint.zone.as_deref().map(str::to_owned),
        lane: lane(endpoint),
        ..Endpoint::default()
    });
    told.collect()
}

struct Explainer<'e> {
    snapshot: &'e Snapshot,
    question: &'e Question,
    known: Known<'e>,
}

impl Explainer<'_> {
    fn at_gateway(&self, wanted: Option<&Name>) -> Explained {
        let head = &self.question.head;
        let host = without_port(head.authority());
        let requests = Requests::default();
        let compile =
            |bind: &Bind| Listeners::compile(&bind.listeners, &requests, ClusterKey::clone);
        let sockets = self.sockets(wanted).into_iter();
        let sockets: Vec<_> = sockets.map(|bind| (bind, compile(bind))).collect();
        let mut found = sockets
            .iter()
            .filter_map(|(bind, listeners)| Some((bind, listeners.find(host)?)));
        let Some((bind, listener)) = found.next() else {
            let why = match wanted {
                Some(gateway) => {
                    format!("Gateway {gateway} has no listener for this host and scheme")
                }
                None => "no Gateway has a listener for this host and scheme".to_owned(),
            };
            return self.refused(At::Nowhere { why }, &Failure::NoRoute { host: false });
        };
        let also = found.map(|(other, _)| other.address.to_string()).collect();

        let at = At::Gateway {
            gateway: listener.listener.gateway.to_string(),
            listener: listener.listener.name.to_string(),
            address: bind.address.to_string(),
            hostname: listener.listener.hostname.as_ref().map(ToString::to_string),
            also,
        };
        let path = match self.normal_path(listener.listener.path) {
            Ok(path) => path,
            Err(failure) => return self.refused(at, &failure),
        };
        let table = &listener.table;
        let rewrites = listener.listener.path.rewrites();
        self.by_rules(at, &path, rewrites, table, bind.address.port())
    }

    /// Those that speak what the request does, at its port if any is.
    fn sockets(&self, wanted: Option<&Name>) -> Vec<&Bind> {
        let tls = self.question.scheme == Scheme::Https;
        let of_wanted = |bind: &&Arc<Bind>| {
            let mut listeners = bind.listeners.iter();
            wanted.is_none_or(|wanted| listeners.any(|listener| listener.gateway == *wanted))
        };
        let fitting = self
            .snapshot
            .binds
            .iter()
            .filter(|bind| bind.tls == tls && !bind.opaque);
        let fitting: Vec<&Bind> = fitting.filter(of_wanted).map(|bind| &**bind).collect();
        let said = self.port();
        let at_port: Vec<&Bind> = fitting
            .iter()
            .copied()
            .filter(|bind| Some(bind.address.port()) == said)
            .collect();
        match at_port.is_empty() {
            true => fitting,
            false => at_port,
        }
    }

    fn at_sidecar(&self, namespace: &str) -> Explained {
        let head = &self.question.head;
        let host = without_port(head.authority()).to_ascii_lowercase();
        let host = String::from_utf8_lossy(host.strip_suffix(b".").unwrap_or(&host)).into_owned();
        let mut services = self.snapshot.services.values();
        let service = services.find(|service| {
            let mut hosts = service.name.hosts(namespace).into_iter();
            hosts.any(|known| *known == *host)
        });
        let at = |routes| At::Sidecar {
            namespace: namespace.to_owned(),
            service: service.map(|service| service.name.to_string()),
            routes,
        };
        let normalization = service.map_or_else(PathNormalization::default, |service| service.path);
        let path = match self.normal_path(normalization) {
            Ok(path) => path,
            Err(failure) => return self.refused(at(None), &failure),
        };
        let requests = Requests::default().listener("explain");
        let routes = &self.snapshot.mesh_routes;
        let routes = MeshRoutes::compile(routes, namespace, &requests, ClusterKey::clone);
        let view = HeadView::new(head, &path);
        let port = self.port().unwrap_or(80);
        let rewrites = normalization.rewrites();
        if !matches!(routes.by_host().find(&view), Found::NoHost) {
            let table = routes.by_host();
            return self.by_rules(at(Some("hostname")), &path, rewrites, table, port);
        }
        let Some(service) = service else {
            return self.told(at(None), &path, Outcome::Outside);
        };
        let service_port = port_of(service, self.port());
        match routes.of_service(&service.name, service_port.unwrap_or(80)) {
            Some(table) => self.by_rules(at(Some("parentRefs")), &path, rewrites, table, port),
            None => {
                let key = ClusterKey {
                    service: service.name.clone(),
                    subset: None,
                    port: service_port,
                };
                let mut told = self.told(at(None), &path, Outcome::Forwarded);
                told.backends = vec![self.cluster(&key, 1, 100.0, Vec::new(), head)];
                told
            }
        }
    }

    fn port(&self) -> Option<u16> {
        let authority = self.question.head.authority();
        let rest = authority.strip_prefix(without_port(authority))?;
        std::str::from_utf8(rest.strip_prefix(b":")?)
            .ok()?
            .parse()
            .ok()
    }

    fn normal_path(&self, wanted: PathNormalization) -> Result<Cow<'_, [u8]>, Failure> {
        normalize(self.question.head.path(), wanted).map_err(|refused| Failure::BadRequest {
            status: 400,
            reason: refused.reason(),
        })
    }

    fn told(&self, at: At, path: &[u8], outcome: Outcome) -> Explained {
        let head = &self.question.head;
        Explained {
            request: format!(
                "{} {}://{}{}",
                head.method.as_str(),
                self.question.scheme.as_str(),
                text(head.authority()),
                text(head.path_and_query())
            ),
            at,
            normal_path: (path != head.path()).then(|| text(path)),
            candidates: Vec::new(),
            more_candidates: 0,
            outcome,
            rule: None,
            backends: Vec::new(),
            mirrors: Vec::new(),
        }
    }

    fn refused(&self, at: At, failure: &Failure) -> Explained {
        let outcome = Outcome::Refused {
            status: failure.answer().status,
            why: failure.to_string(),
        };
        self.told(at, self.question.head.path(), outcome)
    }

    /// `rewrites`: the normal path is forwarded whatever the rules look at.
    fn by_rules(
        &self,
        at: At,
        path: &[u8],
        rewrites: bool,
        table: &Table<ClusterKey>,
        port: u16,
    ) -> Explained {
        let head = &self.question.head;
        let view = HeadView::new(head, path);
        let considered = table.explain(&view);
        let mut told = match table.find(&view) {
            Found::Rule { rule, by_path } => {
                let mut head = head.clone();
                if path != head.path() && (rewrites || by_path || rule.rewrites_path()) {
                    // A path that was made normal is one that can be set.
                    let _ = head.set_path(path);
                }
                self.by_rule(at, path, head, rule, port)
            }
            found => {
                let failure = Failure::NoRoute {
                    host: matches!(found, Found::NoRule),
                };
                let outcome = Outcome::Refused {
                    status: failure.answer().status,
                    why: failure.to_string(),
                };
                self.told(at, path, outcome)
            }
        };
        let by_path = considered
            .iter()
            .filter(|one| !matches!(one.fate, Fate::OtherPath))
            .count();
        told.more_candidates = considered.len().saturating_sub(by_path + OTHER_PATHS_MAX);
        let shown = considered.len() - told.more_candidates;
        let shown = considered.iter().take(shown);
        told.candidates = shown.map(|one| candidate(one, head)).collect();
        told
    }

    fn by_rule(
        &self,
        at: At,
        path: &[u8],
        mut head: RequestHead,
        found: &CompiledRule<ClusterKey>,
        port: u16,
    ) -> Explained {
        let rule = found.rule();
        let arrival = Arrival {
            scheme: self.question.scheme,
            port,
            host: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        let (filters, answered) =
            effects::effects(&rule.filters, &rule.matches, arrival, &mut head);
        let weights: u32 = rule.backends.iter().map(|backend| backend.weight).sum();
        let share = |weight: u32| match weights {
            0 => 0.0,
            _ => 100.0 * f64::from(weight) / f64::from(weights),
        };
        let backends = rule.backends.iter().map(|backend| {
            let mut head = head.clone();
            let (effects, _) =
                effects::effects(&backend.filters, &rule.matches, arrival, &mut head);
            let (weight, share) = (backend.weight, share(backend.weight));
            match &backend.target {
                BackendTarget::Cluster(key) => Backend {
                    mirrors: backend.mirrors.iter().map(mirror).collect(),
                    ..self.cluster(key, weight, share, effects, &head)
                },
                BackendTarget::Invalid(why) => invalid(why, weight, share),
            }
        });
        let outcome = match answered {
            Some(answered) => answered,
            None if weights == 0 => Outcome::Refused {
                status: Failure::NoBackend.answer().status,
                why: Failure::NoBackend.to_string(),
            },
            None => Outcome::Forwarded,
        };
        let mut told = self.told(at, path, outcome);
        told.backends = backends.collect();
        told.mirrors = rule.mirrors.iter().map(mirror).collect();
        told.rule = Some(Rule {
            rule: found.label.to_string(),
            filters,
            request_timeout_ms: rule.timeouts.request.map(|limit| limit.as_millis() as u64),
            backend_request_timeout_ms: rule
                .timeouts
                .backend_request
                .map(|limit| limit.as_millis() as u64),
            retry: rule.retry.as_ref().map(retry),
            hedge: rule.hedge.as_ref().map(hedge),
            session: found.persistence.as_deref().map(session),
        });
        told
    }

    fn cluster(
        &self,
        key: &ClusterKey,
        weight: u32,
        share_percent: f64,
        filters: Vec<Effect>,
        head: &RequestHead,
    ) -> Backend {
        let service = self.snapshot.services.get(&key.service);
        let tls = service.and_then(|service| service.tls_of(key.port));
        let declaring = service.filter(|service| self.known.interfaces && !service.api.is_empty());
        let mut endpoints = (self.known.endpoints)(key);
        let gray = service.and_then(|service| service.gray_of(key.subset.as_deref()));
        let lane = gray.map(|gray| in_lane(gray::lane(gray, &head.fields), &mut endpoints));
        Backend {
            cluster: Some(key.to_string()),
            invalid: None,
            weight,
            share_percent,
            filters,
            mirrors: Vec::new(),
            asked: asked(head),
            operation: declaring.map(|service| operation(service, head)),
            balance: service.map(|service| service.balance.policy.as_str().to_owned()),
            circuit: service.map(|service| {
                let circuit = &service.circuit;
                format!(
                    "at most {} requests at once, {} connections, {} waiting",
                    circuit.requests_max, circuit.connections_max, circuit.pending_max
                )
            }),
            tls: tls.map(|tls| {
                tls.sni
                    .as_deref()
                    .unwrap_or("by the endpoint's name")
                    .to_owned()
            }),
            failover: service
                .and_then(|service| service.failover.as_ref())
                .map(ClusterKey::to_string),
            lane,
            endpoints,
        }
    }
}

/// Leaves those that serve the lane that is named, and tells of it.
fn in_lane(named: Option<&str>, endpoints: &mut Vec<Endpoint>) -> String {
    let serves = |endpoint: &Endpoint| {
        endpoint
            .state
            .as_deref()
            .is_none_or(|state| state == "passing")
    };
    let mut of_lane = endpoints.iter().filter(|one| one.lane.as_deref() == named);
    let in_force = named.filter(|_| of_lane.any(serves));
    endpoints.retain(|one| one.lane.as_deref() == in_force);
    match (named, in_force) {
        (None, _) => "none".to_owned(),
        (Some(named), Some(_)) => named.to_owned(),
        (Some(named), None) => {
            format!("{named}, which nobody serves here: those without a lane do")
        }
    }
}

/// As a sidecar understands the port that a client names: a declared one, else the service's first.
fn port_of(service: &Service, said: Option<u16>) -> Option<u16> {
    let declared = |port: &u16| service.ports.iter().any(|known| known.port == *port);
    let first = service.ports.first().map(|port| port.port);
    said.filter(|port| first.is_none() || declared(port))
        .or(first)
}

fn invalid(why: &str, weight: u32, share_percent: f64) -> Backend {
    Backend {
        cluster: None,
        invalid: Some(why.to_owned()),
        weight,
        share_percent,
        filters: Vec::new(),
        mirrors: Vec::new(),
        asked: String::new(),
        operation: None,
        balance: None,
        circuit: None,
        tls: None,
        failover: None,
        lane: None,
        endpoints: Vec::new(),
    }
}

fn mirror(mirror: &model::Mirror) -> Mirror {
    let (cluster, invalid) = match &mirror.target {
        BackendTarget::Cluster(key) => (Some(key.to_string()), None),
        BackendTarget::Invalid(why) => (None, Some(why.to_string())),
    };
    Mirror {
        cluster,
        invalid,
        share_percent: 100.0 * mirror.chance.share(),
    }
}
