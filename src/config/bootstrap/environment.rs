//! Variables `PILLION_A__B` over the keys `a.b` of a file.

use std::borrow::Cow;

use crate::config::problem::{Finding, Page, Problem};
use crate::config::yaml::{self, Entry, Mark, Node, Value};

const PREFIX: &str = "PILLION_";

/// Variables that say something to the command line, not to a bootstrap file.
const RESERVED: [&str; 5] = [
    "PILLION_CONFIG",
    "PILLION_REGISTRY",
    "PILLION_REGISTRY_CA",
    "PILLION_REGISTRY_TOKEN",
    "PILLION_REGISTRY_TOKEN_FILE",
];

/// Our variables of a process's environment, sorted.
#[derive(Default, Debug)]
pub struct Environment {
    variables: Vec<Variable>,
}

#[derive(Debug)]
struct Variable {
    name: String,
    /// The key it overrides, such as `access_log.path`.
    key: String,
    value: String,
}

impl Environment {
    pub fn of(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let ours = variables.into_iter().filter_map(|(name, value)| {
            let key = name
                .strip_prefix(PREFIX)?
                .to_ascii_lowercase()
                .replace("__", ".");
            let passed = RESERVED.contains(&&*name) || is_service_link(&key, &value);
            (!passed).then_some(Variable { name, key, value })
        });
        let mut variables: Vec<Variable> = ours.collect();
        variables.sort_by(|a, b| a.key.cmp(&b.key));
        Self { variables }
    }

    /// The variable that a key's value comes from.
    pub fn variable_of(&self, path: &str) -> Option<&str> {
        let covers = |variable: &&Variable| {
            let rest = path.strip_prefix(&*variable.key);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.variables
            .iter()
            .find(covers)
            .map(|variable| &*variable.name)
    }

    /// Puts every variable's value into the tree; those that are no YAML are problems.
    pub fn override_in<'t>(&'t self, root: &mut Node<'t>) -> Vec<Problem> {
        let mut problems = Vec::new();
        for variable in &self.variables {
            let (value, findings) = value(&variable.value);
            problems.extend(
                findings
                    .iter()
                    .map(|finding| problem(&variable.name, finding)),
            );
            if let Some(value) = value {
                insert(root, &variable.key, value);
            }
        }
        problems
    }
}

/// Kubernetes tells each pod of every Service by variables; of one named `pillion` they look like ours.
fn is_service_link(key: &str, value: &str) -> bool {
    let address = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    let ends = ["service_host", "service_port", "_addr", "_proto"];
    address
        || ends.iter().any(|end| key.ends_with(end))
        || key.contains("service_port_")
        || (key.contains("port_") && key.ends_with("_port"))
}

/// A list, mapping or quoted text is YAML; anything else is the text itself, as variables know no quoting.
fn value(text: &str) -> (Option<Node<'_>>, Vec<Finding>) {
    if text.starts_with(['[', '{', '"', '\'']) {
        return yaml::parse(text);
    }
    let value = match text {
        "" => Value::Null,
        _ => Value::Scalar {
            text: Cow::Borrowed(text),
            plain: true,
        },
    };
    (
        Some(Node {
            value,
            mark: Mark::default(),
            end: Mark::default(),
        }),
        Vec::new(),
    )
}

fn insert<'t>(node: &mut Node<'t>, key: &'t str, value: Node<'t>) {
    let (first, rest) = match key.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (key, None),
    };
    if !matches!(node.value, Value::Mapping(_)) {
        node.value = Value::Mapping(Vec::new());
    }
    let Value::Mapping(entries) = &mut node.value else {
        return;
    };
    let position = entries.iter().position(|entry| entry.key == first);
    let position = position.unwrap_or_else(|| {
        entries.push(Entry {
            key: Cow::Borrowed(first),
            key_mark: Mark::default(),
            key_end: Mark::default(),
            value: Node {
                value: Value::Null,
                mark: Mark::default(),
                end: Mark::default(),
            },
        });
        entries.len() - 1
    });
    let place = &mut entries[position].value;
    match rest {
        Some(rest) => insert(place, rest, value),
        None => *place = value,
    }
}

/// A finding in a variable's value; its place there says nothing.
pub fn problem(variable: &str, finding: &Finding) -> Problem {
    Problem {
        line: 0,
        column: 0,
        ..Page::new(format!("environment {variable}"), 1, "").problem(finding)
    }
}
