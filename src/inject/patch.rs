//! What changes between two values, as a JSON patch (RFC 6902).

use serde::Serialize;
use serde_yaml::{Mapping, Value};

/// One step; applied in order they make the one value of the other.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Operation {
    Add { path: String, value: Value },
    Replace { path: String, value: Value },
    Remove { path: String },
}

/// Mappings are compared key by key, everything else, lists too, as a whole.
pub fn between(before: &Value, after: &Value) -> Vec<Operation> {
    let mut operations = Vec::new();
    compare(String::new(), before, after, &mut operations);
    operations
}

fn compare(path: String, before: &Value, after: &Value, operations: &mut Vec<Operation>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Value::Mapping(before), Value::Mapping(after)) => {
            compare_mappings(&path, before, after, operations);
        }
        (_, after) => operations.push(Operation::Replace {
            path,
            value: after.clone(),
        }),
    }
}

fn compare_mappings(
    path: &str,
    before: &Mapping,
    after: &Mapping,
    operations: &mut Vec<Operation>,
) {
    let removed = before.keys().filter(|key| !after.contains_key(*key));
    operations.extend(removed.map(|key| Operation::Remove {
        path: below(path, key),
    }));
    for (key, value) in after {
        match before.get(key) {
            Some(old) => compare(below(path, key), old, value, operations),
            None => operations.push(Operation::Add {
                path: below(path, key),
                value: value.clone(),
            }),
        }
    }
}

/// A JSON pointer (RFC 6901).
fn below(path: &str, key: &Value) -> String {
    let key = key.as_str().unwrap_or_default();
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_in_the_patch_and_keys_are_escaped() {
        let value = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
        let before = value(r#"{"a": {"x/y~z": 1, "gone": 1, "same": [1]}, "list": [1]}"#);
        let after = value(r#"{"a": {"x/y~z": 2, "same": [1], "new": {}}, "list": [1, 2]}"#);
        let patch = serde_json::to_value(between(&before, &after)).unwrap();
        assert_eq!(
            patch,
            serde_json::json!([
                {"op": "remove", "path": "/a/gone"},
                {"op": "replace", "path": "/a/x~1y~0z", "value": 2},
                {"op": "add", "path": "/a/new", "value": {}},
                {"op": "replace", "path": "/list", "value": [1, 2]},
            ])
        );
        assert!(between(&before, &before).is_empty());
    }
}
