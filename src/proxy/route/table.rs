use std::sync::Arc;

use super::host::{HostMap, with_canonical};
use super::matcher::{self, Candidate};
use super::path::PathIndex;
use super::{CompiledRule, RequestView};
use crate::model;
use crate::telemetry::metrics::ListenerRequests;

/// All rules of one listener, found by the Gateway API's precedence.
#[derive(Debug)]
pub struct Table<T> {
    /// Oldest route first, then by name, then in the order written: the ties' precedence.
    pub(super) rules: Vec<CompiledRule<T>>,
    pub(super) hosts: HostMap<PathIndex>,
}

/// What became of the search; the last two are 404 both, and told apart in the log.
#[derive(Debug)]
pub enum Found<'a, T> {
    Rule {
        rule: &'a CompiledRule<T>,
        /// Rules for this host look at the path, this one or others before it.
        by_path: bool,
    },
    /// No route is for this host.
    NoHost,
    /// Routes are for this host, and none of their rules matches.
    NoRule,
}

impl<T> Table<T> {
    /// `resolve` is asked once for each backend of each rule.
    pub fn compile(
        routes: &[Arc<model::Route>],
        requests: &ListenerRequests,
        mut resolve: impl FnMut(&model::ClusterKey) -> T,
    ) -> Self {
        let mut table = Self {
            rules: Vec::new(),
            hosts: HostMap::default(),
        };
        for route in by_age(routes) {
            for index in 0..route.rules.len() {
                table.index(route, index);
                let rule = CompiledRule::new(route, index, requests, &mut resolve);
                table.rules.push(rule);
            }
        }
        table.hosts.values_mut().for_each(PathIndex::sort);
        table
    }

    fn index(&mut self, route: &model::Route, index: usize) {
        let rule = self.rules.len() as u32;
        for (place, conditions) in route.rules[index].matches.iter().enumerate() {
            let candidate = Candidate::new(rule, place as u32, conditions);
            for host in patterns(route) {
                let paths = self.hosts.entry(host, PathIndex::default);
                paths.insert(&conditions.path, candidate);
            }
        }
    }

    pub fn find(&self, request: &impl RequestView) -> Found<'_, T> {
        with_canonical(request.host(), |host| self.find_by_host(host, request))
    }

    fn find_by_host(&self, host: &[u8], request: &impl RequestView) -> Found<'_, T> {
        let mut found = Found::NoHost;
        let mut by_path = false;
        for paths in self.hosts.matches(host) {
            by_path |= paths.tells_apart();
            let accepts = |candidate: &Candidate| self.accepts(*candidate, request);
            if let Some(candidate) = paths.find(request.path(), accepts) {
                let rule = &self.rules[candidate.rule as usize];
                return Found::Rule { rule, by_path };
            }
            found = Found::NoRule;
        }
        found
    }

    fn accepts(&self, candidate: Candidate, request: &impl RequestView) -> bool {
        candidate.is_unconditional() || {
            let rule = self.rules[candidate.rule as usize].rule();
            matcher::accepts(&rule.matches[candidate.index as usize], request)
        }
    }

    pub fn rules(&self) -> &[CompiledRule<T>] {
        &self.rules
    }
}

/// The patterns of a route; None, which matches every host, where it has none.
pub(super) fn patterns(route: &model::Route) -> impl Iterator<Item = Option<&model::HostPattern>> {
    let any = route.hostnames.is_empty().then_some(None);
    route.hostnames.iter().map(Some).chain(any)
}

/// Oldest first, then alphabetical by `namespace/name`.
pub(super) fn by_age(routes: &[Arc<model::Route>]) -> Vec<&Arc<model::Route>> {
    let mut sorted: Vec<_> = routes.iter().collect();
    sorted.sort_by_cached_key(|route| (route.created, route.name.to_string()));
    sorted
}
