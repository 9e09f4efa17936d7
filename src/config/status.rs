//! Status conditions for people, and as Kubernetes writes them, so that what reads those reads these.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::model::{Condition, ListenerStatus, ParentStatus, Status};

/// Who speaks for a route's parents.
pub const CONTROLLER: &str = "pillion.dev/mesh";

/// `[{kind, metadata: {namespace, name}, status: {…}}]`
pub fn to_json(statuses: &[Status]) -> Value {
    statuses.iter().map(document).collect()
}

fn document(status: &Status) -> Value {
    let mut said = serde_json::Map::new();
    if !status.conditions.is_empty() {
        said.insert("conditions".to_owned(), conditions(&status.conditions));
    }
    if status.kind == "Gateway" {
        let listeners = status.listeners.iter().map(listener).collect();
        said.insert("listeners".to_owned(), listeners);
    }
    if status.conditions.is_empty() {
        // Policies call theirs so (GEP-713).
        let (parents, reference) = match status.kind {
            "BackendTLSPolicy" => ("ancestors", "ancestorRef"),
            _ => ("parents", "parentRef"),
        };
        let all = status.parents.iter().map(|one| parent(one, reference));
        said.insert(parents.to_owned(), all.collect());
    }
    json!({
        "kind": status.kind,
        "metadata": {"namespace": &*status.name.namespace, "name": &*status.name.name},
        "status": said,
    })
}

fn listener(listener: &ListenerStatus) -> Value {
    let kinds = listener.kinds.iter().map(|kind| json!({"kind": kind}));
    json!({
        "name": &*listener.name,
        "supportedKinds": kinds.collect::<Vec<_>>(),
        "attachedRoutes": listener.attached_routes,
        "conditions": conditions(&listener.conditions),
    })
}

fn parent(parent: &ParentStatus, reference: &str) -> Value {
    json!({
        reference: {
            "kind": parent.kind,
            "namespace": &*parent.name.namespace,
            "name": &*parent.name.name,
            "sectionName": parent.section.as_deref(),
            "port": parent.port,
        },
        "controllerName": CONTROLLER,
        "conditions": conditions(&parent.conditions),
    })
}

fn conditions(conditions: &[Condition]) -> Value {
    let one = |condition: &Condition| {
        json!({
            "type": condition.condition,
            "status": if condition.holds { "True" } else { "False" },
            "reason": condition.reason,
            "message": condition.message,
        })
    };
    conditions.iter().map(one).collect()
}

/// A line for each document, listener and parent, with the conditions that hold, and why others do not.
pub fn to_text(statuses: &[Status]) -> String {
    let mut text = String::new();
    for status in statuses {
        let (kind, name) = (status.kind, &status.name);
        // Writing to a String does not fail.
        let _ = writeln!(text, "{kind} {name}{}", said(&status.conditions));
        for listener in &status.listeners {
            let ListenerStatus {
                name,
                attached_routes: routes,
                conditions,
                ..
            } = listener;
            let plural = if *routes == 1 { "" } else { "s" };
            let said = said(conditions);
            let _ = writeln!(text, "  listener {name}, {routes} route{plural}{said}");
        }
        for parent in &status.parents {
            let _ = writeln!(text, "  {}{}", called(parent), said(&parent.conditions));
        }
    }
    text
}

/// `Gateway default/edge, listener web, port 80`
fn called(parent: &ParentStatus) -> String {
    let mut called = match parent.kind {
        "Mesh" => "every sidecar".to_owned(),
        kind => format!("{kind} {}", parent.name),
    };
    if let Some(section) = &parent.section {
        let part = if parent.kind == "Service" {
            "port"
        } else {
            "listener"
        };
        let _ = write!(called, ", {part} {section}");
    }
    if let Some(port) = parent.port {
        let _ = write!(called, ", port {port}");
    }
    called
}

/// Nobody misses that there is no conflict, so of `Conflicted` only a true one is told.
fn said(conditions: &[Condition]) -> String {
    let told = conditions
        .iter()
        .filter(|one| one.holds || one.condition != "Conflicted");
    let one = |condition: &Condition| match (condition.holds, condition.message.is_empty()) {
        (true, true) => condition.condition.to_owned(),
        (holds, _) => format!(
            "{}{} ({}: {})",
            if holds { "" } else { "not " },
            condition.condition,
            condition.reason,
            condition.message
        ),
    };
    let told: Vec<String> = told.map(one).collect();
    match told.is_empty() {
        true => String::new(),
        false => format!(": {}", told.join(", ")),
    }
}
