//! Label selectors, as Kubernetes writes them.

use std::sync::Arc;

use super::document::Labels;
use crate::config::decode::{Cursor, Fields};

/// All of these must hold; without any, everything is selected.
#[derive(Debug)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

#[derive(Debug)]
struct Requirement {
    key: Arc<str>,
    operator: Operator,
    values: Vec<Arc<str>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Selector {
    pub fn selects(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|wanted| wanted.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let listed = || value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            Operator::In => listed(),
            Operator::NotIn => !listed(),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

pub(super) fn selector(fields: &mut Fields<'_, '_>) -> Option<Selector> {
    let labels = fields.optional("matchLabels", |c| c.labels());
    let equal = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| Requirement {
            key,
            operator: Operator::In,
            values: vec![value],
        });
    let mut requirements: Vec<Requirement> = equal.collect();
    requirements.extend(fields.list("matchExpressions", |cursor| cursor.fields(requirement)));
    Some(Selector { requirements })
}

fn requirement(fields: &mut Fields<'_, '_>) -> Option<Requirement> {
    let key = fields.required("key", |c| c.filled_text().map(Arc::from));
    let operator = fields.required("operator", operator);
    let values = fields.list("values", |c| c.owned_text());
    let (key, operator) = (key?, operator?);
    let wants_values = matches!(operator, Operator::In | Operator::NotIn);
    let here = fields.cursor();
    match (wants_values, values.is_empty()) {
        (true, true) => here.error("`In` and `NotIn` need `values`", "values: [one, two]"),
        (false, false) => here.error(
            "`Exists` and `DoesNotExist` have no `values`",
            "leave them out",
        ),
        _ => Some(Requirement {
            key,
            operator,
            values,
        }),
    }
}

fn operator(cursor: Cursor<'_>) -> Option<Operator> {
    cursor.choice(&[
        ("In", Operator::In),
        ("NotIn", Operator::NotIn),
        ("Exists", Operator::Exists),
        ("DoesNotExist", Operator::DoesNotExist),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(operator: Operator, values: &[&str], labels: &[(&str, &str)]) -> bool {
        let requirement = Requirement {
            key: "env".into(),
            operator,
            values: values.iter().map(|value| Arc::from(*value)).collect(),
        };
        let labels = labels
            .iter()
            .map(|(key, value)| (Arc::from(*key), Arc::from(*value)));
        requirement.holds(&labels.collect())
    }

    #[test]
    fn each_operator_means_what_kubernetes_says() {
        let (test, none) = ([("env", "test")], []);
        assert!(selects(Operator::In, &["prod", "test"], &test));
        assert!(!selects(Operator::In, &["prod"], &test));
        assert!(!selects(Operator::In, &["prod"], &none));
        assert!(!selects(Operator::NotIn, &["test"], &test));
        assert!(selects(Operator::NotIn, &["test"], &none));
        assert!(selects(Operator::Exists, &[], &test));
        assert!(!selects(Operator::Exists, &[], &none));
        assert!(selects(Operator::DoesNotExist, &[], &none));
    }
}
