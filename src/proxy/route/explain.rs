//! Why a request meets the rule it meets: every candidate in the order of precedence, and what stood against it.
//!
//! It is told in the order of [`Table::find`] and by the same conditions, but goes on where that has found; a request never pays
//! for it.

use std::collections::HashSet;

use super::host::with_canonical;
use super::matcher::{self, Candidate, Mismatch};
use super::{CompiledRule, RequestView, Table};
use crate::model::RouteMatch;

/// One match of a rule whose route is for the request's host.
#[derive(Debug)]
pub struct Considered<'a, T> {
    pub rule: &'a CompiledRule<T>,
    pub conditions: &'a RouteMatch,
    pub fate: Fate<'a>,
}

#[derive(Clone, Copy, Debug)]
pub enum Fate<'a> {
    Taken,
    /// It would do, but one that comes before it was taken.
    Later,
    /// Its path is another.
    OtherPath,
    Mismatch(Mismatch<'a>),
}

impl<T> Table<T> {
    /// Every candidate of the request's host, first those whose path matches, in the order of precedence. At most one is taken,
    /// which is the rule that [`Table::find`] finds.
    pub fn explain(&self, request: &impl RequestView) -> Vec<Considered<'_, T>> {
        with_canonical(request.host(), |host| self.explain_by_host(host, request))
    }

    fn explain_by_host(&self, host: &[u8], request: &impl RequestView) -> Vec<Considered<'_, T>> {
        let mut seen = HashSet::new();
        let mut by_path = Vec::new();
        let mut others = Vec::new();
        for paths in self.hosts.matches(host) {
            let mut fitting = Vec::new();
            // Nothing is accepted, so all are tried, in their order.
            paths.find(request.path(), |candidate| {
                fitting.push(*candidate);
                false
            });
            by_path.extend(fitting.into_iter().filter(|one| seen.insert(one.place())));
            others.extend(paths.all());
        }
        others.sort_unstable_by_key(Candidate::place);
        others.retain(|one| seen.insert(one.place()));
        let mut taken = false;
        let mut considered = Vec::with_capacity(by_path.len() + others.len());
        for candidate in by_path {
            let (rule, conditions) = self.of(candidate);
            let fate = match matcher::mismatch(conditions, request) {
                Some(mismatch) => Fate::Mismatch(mismatch),
                None if taken => Fate::Later,
                None => Fate::Taken,
            };
            taken |= matches!(fate, Fate::Taken);
            considered.push(Considered {
                rule,
                conditions,
                fate,
            });
        }
        considered.extend(others.into_iter().map(|candidate| {
            let (rule, conditions) = self.of(candidate);
            Considered {
                rule,
                conditions,
                fate: Fate::OtherPath,
            }
        }));
        considered
    }

    fn of(&self, candidate: Candidate) -> (&CompiledRule<T>, &RouteMatch) {
        let rule = &self.rules[candidate.rule as usize];
        (rule, &rule.rule().matches[candidate.index as usize])
    }
}
