//! Reading a YAML tree into typed values without stopping at the first problem.
//!
//! A [`Cursor`] stands at a node and knows the way to it; [`Fields`] reads a mapping key by key and reports, at the end, every
//! key nobody asked for. A reader gives None where it has reported a problem, so its caller may use any default: a
//! document with an error is never applied.

mod fields;
mod mesh;
mod scalar;
mod suggest;

use std::cell::RefCell;
use std::fmt;

use super::problem::{FINDINGS_MAX, Finding, Spot};
use super::yaml::{Mark, Node, Value};

pub use fields::Fields;
pub use mesh::is_dns_name;
pub use suggest::{Suggester, closest};

/// A node, the way to it, and where to report what is wrong with it.
#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    pub node: &'a Node<'a>,
    path: Path<'a>,
    findings: &'a RefCell<Vec<Finding>>,
}

/// The way from a document's root, kept as links on the stack and written out only for a problem.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Key(Path::Root, key) => f.write_str(key),
            Path::Key(parent, key) => write!(f, "{parent}.{key}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Reads the root with `read`; findings of its own are added to `findings`.
pub fn decode<T>(
    root: &Node<'_>,
    findings: &mut Vec<Finding>,
    read: impl FnOnce(Cursor<'_>) -> Option<T>,
) -> Option<T> {
    let collected = RefCell::new(std::mem::take(findings));
    let cursor = Cursor {
        node: root,
        path: Path::Root,
        findings: &collected,
    };
    let value = read(cursor);
    *findings = collected.into_inner();
    value
}

impl<'a> Cursor<'a> {
    pub fn spot(self) -> Spot {
        Spot {
            mark: self.node.mark,
            end: self.node.end,
            path: self.path.to_string(),
        }
    }

    /// Reports an error here, and gives the None that readers answer with.
    pub fn error<T>(self, message: impl Into<String>, hint: impl Into<String>) -> Option<T> {
        self.report(|| Finding::error(self.spot(), message, hint));
        None
    }

    pub fn warning(self, message: impl Into<String>, hint: impl Into<String>) {
        self.report(|| Finding::warning(self.spot(), message, hint));
    }

    /// `finding` is called only where there is room for one more.
    fn report(self, finding: impl FnOnce() -> Finding) {
        if self.findings.borrow().len() < FINDINGS_MAX {
            let finding = finding();
            self.findings.borrow_mut().push(finding);
        }
    }

    /// A mapping; keys that `read` did not ask for are reported.
    pub fn fields<T>(self, read: impl FnOnce(&mut Fields<'a, '_>) -> Option<T>) -> Option<T> {
        let Value::Mapping(entries) = &self.node.value else {
            let what = self.node.what();
            return self.error(
                format!("expected a mapping, found {what}"),
                "write `key: value` lines",
            );
        };
        let mut fields = Fields::new(&self, entries);
        let value = read(&mut fields);
        fields.finish();
        value
    }

    /// A list; items that are wrong are left out.
    pub fn list<T>(self, mut read: impl FnMut(Cursor<'_>) -> Option<T>) -> Option<Vec<T>> {
        let Value::Sequence(items) = &self.node.value else {
            let what = self.node.what();
            return self.error(
                format!("expected a list, found {what}"),
                "write `- item` lines or `[a, b]`",
            );
        };
        let items = items.iter().enumerate().filter_map(|(index, node)| {
            read(Cursor {
                node,
                path: Path::Index(&self.path, index),
                findings: self.findings,
            })
        });
        Some(items.collect())
    }

    /// A mapping whose keys are names that users choose, such as labels; `read` gets each key and its value.
    pub fn entries<T>(self, mut read: impl FnMut(&str, Cursor<'_>) -> Option<T>) -> Option<Vec<T>> {
        let Value::Mapping(entries) = &self.node.value else {
            let what = self.node.what();
            return self.error(
                format!("expected a mapping, found {what}"),
                "write `name: value` lines",
            );
        };
        let values = entries.iter().filter_map(|entry| {
            let path = Path::Key(&self.path, &entry.key);
            read(
                &entry.key,
                Cursor {
                    node: &entry.value,
                    path,
                    findings: self.findings,
                },
            )
        });
        Some(values.collect())
    }

    fn spot_of_key(self, key: &str, mark: Mark, end: Mark) -> Spot {
        Spot {
            mark,
            end,
            path: Path::Key(&self.path, key).to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
