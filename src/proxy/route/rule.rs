//! A rule ready for requests: its backends resolved, its filters and metrics at hand.

use std::sync::Arc;

use super::split::Split;
use crate::base::hash::xxh64;
use crate::base::rng::Chance;
use crate::model;
use crate::proxy::filter::Chain;
use crate::proxy::hedging::Hedging;
use crate::telemetry::metrics::{ListenerRequests, RequestSeries};

/// `T` is what a cluster key resolves to.
#[derive(Debug)]
pub struct CompiledRule<T> {
    pub route: Arc<model::Route>,
    /// The rule's place in the route.
    pub index: usize,
    /// `namespace/route/rule`, where an unnamed rule goes by its place: the label in metrics and log.
    pub label: Arc<str>,
    pub filters: Chain,
    /// Counts the answers that no backend has a part in.
    pub requests: Arc<RequestSeries>,
    /// Whether requests of one client stay with one endpoint.
    pub persistence: Option<Arc<Persistence>>,
    backends: Vec<Slot<T>>,
    split: Split,
}

/// A backend that resolves, with its share and what applies to its requests only.
#[derive(Debug)]
pub struct Backend<T> {
    pub key: model::ClusterKey,
    pub target: T,
    pub filters: Chain,
    /// Who else gets its requests.
    pub mirrors: Box<[Mirror<T>]>,
    /// Boxed, because it is large and few rules have one.
    pub hedging: Option<Box<Hedging>>,
    pub requests: Arc<RequestSeries>,
}

/// How requests of one client stay with one endpoint, and under which name.
#[derive(Debug)]
pub struct Persistence {
    pub name: Arc<str>,
    pub model: model::SessionPersistence,
}

impl Persistence {
    /// A rule's own name is made of what it is called.
    fn new(model: &model::SessionPersistence, label: &str) -> Arc<Self> {
        let own = || format!("mesh-session-{:08x}", xxh64(label.as_bytes(), 0) as u32).into();
        Arc::new(Self {
            name: model.name.clone().unwrap_or_else(own),
            model: model.clone(),
        })
    }
}

/// Another service that gets copies of requests.
#[derive(Debug)]
pub struct Mirror<T> {
    pub target: T,
    /// Of each request.
    pub chance: Chance,
}

/// Those that do not resolve get nothing.
fn mirrors<'m, T>(
    mirrors: impl Iterator<Item = &'m model::Mirror>,
    resolve: &mut impl FnMut(&model::ClusterKey) -> T,
) -> Box<[Mirror<T>]> {
    let resolved = mirrors.filter_map(|mirror| match &mirror.target {
        model::BackendTarget::Cluster(key) => Some(Mirror {
            target: resolve(key),
            chance: mirror.chance,
        }),
        model::BackendTarget::Invalid(_) => None,
    });
    resolved.collect()
}

#[derive(Debug)]
enum Slot<T> {
    Cluster(Backend<T>),
    Invalid(Arc<str>),
}

/// Where one request of a rule goes.
#[derive(Debug)]
pub enum BackendChoice<'a, T> {
    Cluster(&'a Backend<T>),
    /// The share of a reference that does not resolve: 500, with the reason.
    Invalid(&'a Arc<str>),
    /// The rule has no backend with a weight: 500.
    None,
}

impl<T> CompiledRule<T> {
    pub(super) fn new(
        route: &Arc<model::Route>,
        index: usize,
        requests: &ListenerRequests,
        mut resolve: impl FnMut(&model::ClusterKey) -> T,
    ) -> Self {
        let rule = &route.rules[index];
        let label = label(route, index);
        let slot = |backend: &model::Backend| match &backend.target {
            model::BackendTarget::Invalid(reason) => Slot::Invalid(reason.clone()),
            model::BackendTarget::Cluster(key) => Slot::Cluster(Backend {
                key: key.clone(),
                target: resolve(key),
                filters: Chain::compile(&backend.filters, &rule.matches),
                mirrors: mirrors(rule.mirrors.iter().chain(&backend.mirrors), &mut resolve),
                hedging: rule
                    .hedge
                    .as_ref()
                    .map(|hedge| Box::new(Hedging::new(hedge))),
                requests: requests.series(&label, &key.service.to_string()),
            }),
        };
        Self {
            index,
            filters: Chain::compile(&rule.filters, &rule.matches),
            requests: requests.series(&label, ""),
            persistence: rule
                .session
                .as_ref()
                .map(|session| Persistence::new(session, &label)),
            backends: rule.backends.iter().map(slot).collect(),
            split: Split::new(rule.backends.iter().map(|backend| backend.weight)),
            route: route.clone(),
            label,
        }
    }

    pub fn rule(&self) -> &model::Rule {
        &self.route.rules[self.index]
    }

    pub fn timeouts(&self) -> &model::Timeouts {
        &self.rule().timeouts
    }

    pub fn retry(&self) -> Option<&model::Retry> {
        self.rule().retry.as_ref()
    }

    /// Whether its filters, or those of its backends, make another path of what was matched.
    pub fn rewrites_path(&self) -> bool {
        let rule = self.rule();
        let backends = rule.backends.iter().map(|backend| &backend.filters);
        let mut filters = std::iter::once(&rule.filters).chain(backends).flatten();
        filters.any(model::Filter::rewrites_path)
    }

    pub fn pick_backend(&self, rng: &mut fastrand::Rng) -> BackendChoice<'_, T> {
        match self.split.pick(rng).map(|place| &self.backends[place]) {
            Some(Slot::Cluster(backend)) => BackendChoice::Cluster(backend),
            Some(Slot::Invalid(reason)) => BackendChoice::Invalid(reason),
            None => BackendChoice::None,
        }
    }

    /// Every backend that resolves, in the order written.
    pub fn backends(&self) -> impl Iterator<Item = &Backend<T>> {
        self.backends.iter().filter_map(|slot| match slot {
            Slot::Cluster(backend) => Some(backend),
            Slot::Invalid(_) => None,
        })
    }
}

fn label(route: &model::Route, index: usize) -> Arc<str> {
    match &route.rules[index].name {
        Some(name) => format!("{}/{name}", route.name).into(),
        None => format!("{}/{index}", route.name).into(),
    }
}
