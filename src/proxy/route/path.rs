//! Candidates by path: exact, then regular expressions, then the longest prefix; a gRPC method comes before the prefix `/`.

use std::hash::Hash;

use foldhash::fast::RandomState;
use hashbrown::{Equivalent, HashMap};
use regex::bytes::Regex;
use smallvec::SmallVec;

use super::matcher::Candidate;
use crate::model::PathMatch;

/// The candidates of one host pattern.
#[derive(Debug, Default)]
pub struct PathIndex {
    exact: HashMap<Box<[u8]>, Vec<Candidate>, RandomState>,
    regexes: Vec<(Regex, Candidate)>,
    prefixes: PrefixTrie,
    /// By gRPC method, whatever the service.
    methods: HashMap<Box<[u8]>, Vec<Candidate>, RandomState>,
}

impl PathIndex {
    pub fn insert(&mut self, path: &PathMatch, candidate: Candidate) {
        match path {
            PathMatch::Exact(path) => self
                .exact
                .entry(path.as_bytes().into())
                .or_default()
                .push(candidate),
            PathMatch::Regex(regex) => self.regexes.push((regex.clone(), candidate)),
            PathMatch::Prefix(prefix) => self.prefixes.insert(prefix.as_bytes()).push(candidate),
            PathMatch::Method(method) => self
                .methods
                .entry(method.as_bytes().into())
                .or_default()
                .push(candidate),
        }
    }

    /// Puts candidates of the same rank by path into precedence order; to be called once all are inserted.
    pub fn sort(&mut self) {
        self.exact.values_mut().for_each(|all| all.sort_unstable());
        self.regexes.sort_by_key(|(_, candidate)| *candidate);
        self.prefixes.sort();
        self.methods
            .values_mut()
            .for_each(|all| all.sort_unstable());
    }

    /// Whether the path makes a difference.
    pub fn tells_apart(&self) -> bool {
        !(self.exact.is_empty()
            && self.regexes.is_empty()
            && self.prefixes.edges.is_empty()
            && self.methods.is_empty())
    }

    /// Every candidate, whatever the path.
    pub fn all(&self) -> impl Iterator<Item = Candidate> {
        let regexes = self.regexes.iter().map(|(_, candidate)| candidate);
        let exact = self.exact.values().chain(self.methods.values());
        let lists = exact.chain(&self.prefixes.nodes).flatten();
        lists.chain(regexes).copied()
    }

    fn of_method(&self, path: &[u8]) -> &[Candidate] {
        if self.methods.is_empty() {
            return &[];
        }
        let found = method(path).and_then(|method| self.methods.get(method));
        found.map_or(&[], Vec::as_slice)
    }

    /// The first candidate in precedence order whose path matches and that `accepts` takes.
    pub fn find(
        &self,
        path: &[u8],
        mut accepts: impl FnMut(&Candidate) -> bool,
    ) -> Option<Candidate> {
        let exact = self.exact.get(path).into_iter().flatten();
        if let Some(found) = exact.copied().find(&mut accepts) {
            return Some(found);
        }
        let mut regexes = self.regexes.iter();
        if let Some((_, found)) =
            regexes.find(|(regex, candidate)| regex.is_match(path) && accepts(candidate))
        {
            return Some(*found);
        }
        self.prefixes.find(path, self.of_method(path), accepts)
    }
}

/// The method of a gRPC call's path, `/service/method`.
fn method(path: &[u8]) -> Option<&[u8]> {
    let mut elements = elements(path);
    let (_service, method) = (elements.next()?, elements.next()?);
    elements.next().is_none().then_some(method)
}

/// Prefixes by whole `/`-separated elements. One map holds the edges of all nodes; node 0 is the catch-all.
#[derive(Debug)]
struct PrefixTrie {
    edges: HashMap<Edge, u32, RandomState>,
    nodes: Vec<Vec<Candidate>>,
}

#[derive(PartialEq, Eq, Hash, Debug)]
struct Edge {
    from: u32,
    element: Box<[u8]>,
}

/// An [`Edge`] to look up, with the same hash.
#[derive(Hash)]
struct EdgeKey<'a> {
    from: u32,
    element: &'a [u8],
}

impl Equivalent<Edge> for EdgeKey<'_> {
    fn equivalent(&self, edge: &Edge) -> bool {
        self.from == edge.from && *self.element == *edge.element
    }
}

impl Default for PrefixTrie {
    fn default() -> Self {
        Self {
            edges: HashMap::default(),
            nodes: vec![Vec::new()],
        }
    }
}

impl PrefixTrie {
    fn insert(&mut self, prefix: &[u8]) -> &mut Vec<Candidate> {
        let mut node = 0;
        for element in elements(prefix) {
            let next = self.nodes.len() as u32;
            let edge = Edge {
                from: node,
                element: element.into(),
            };
            node = *self.edges.entry(edge).or_insert(next);
            if node == next {
                self.nodes.push(Vec::new());
            }
        }
        &mut self.nodes[node as usize]
    }

    fn sort(&mut self) {
        self.nodes.iter_mut().for_each(|all| all.sort_unstable());
    }

    /// `late` are considered after every prefix but the catch-all.
    fn find(
        &self,
        path: &[u8],
        late: &[Candidate],
        mut accepts: impl FnMut(&Candidate) -> bool,
    ) -> Option<Candidate> {
        let mut on_the_way = SmallVec::<[&[Candidate]; 16]>::new();
        on_the_way.push(&self.nodes[0]);
        if !late.is_empty() {
            on_the_way.push(late);
        }
        let mut node = 0;
        for element in elements(path) {
            let key = EdgeKey {
                from: node,
                element,
            };
            let Some(next) = self.edges.get(&key) else {
                break;
            };
            node = *next;
            on_the_way.push(&self.nodes[node as usize]);
        }
        // Loops, because that is what stays inside its caller.
        for candidates in on_the_way.iter().rev() {
            for candidate in *candidates {
                if accepts(candidate) {
                    return Some(*candidate);
                }
            }
        }
        None
    }
}

/// The elements after each `/`; none of a path that does not begin with one (`*`, or a CONNECT's authority).
fn elements(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let rest = path.strip_prefix(b"/");
    rest.into_iter()
        .flat_map(|rest| rest.split(|byte| *byte == b'/'))
}
