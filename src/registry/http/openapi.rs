//! The description of the API (OpenAPI 3.1), made from the routes and the schemas below.

use serde_json::{Map, Value, json};

use super::routes::{Content, ROUTES, Route};

pub fn description() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Pillion registry",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Instances, mesh documents by revision, and watches. Requests are read strictly: an unknown query parameter or field is a 400 that names it (a sender with a newer x-pillion-wire-version may say more). Readers ignore what they do not know.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    })
}

fn operation(route: &Route) -> Value {
    let path_parameters = route
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = path_parameters
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    parameters.extend(route.query.iter().map(|(name, meaning)| {
        json!({"name": name, "in": "query", "description": meaning, "schema": {"type": "string"}})
    }));
    let mut operation = json!({
        "operationId": format!("{:?}", route.operation),
        "summary": route.summary,
        "parameters": parameters,
        "responses": {
            "200": {"description": "Done.", "content": content(route.answer)},
            "default": {
                "description": "Refused; the error says why and what to do.",
                "content": {
                    "application/json": {"schema": reference("Error")},
                    "text/plain": {"schema": {"type": "string"}},
                },
            },
        },
    });
    if route.body != Content::Nothing {
        operation["requestBody"] = json!({"content": content(route.body)});
    }
    operation
}

fn content(content: Content) -> Value {
    match content {
        Content::Nothing => json!({}),
        Content::Json(schema) => json!({"application/json": {"schema": reference(schema)}}),
        Content::Yaml => {
            json!({"application/yaml": {"schema": {"type": "string", "description": "Mesh documents, divided by ---."}}})
        }
        Content::Text => json!({"text/plain": {"schema": {"type": "string"}}}),
        Content::Lines(schema) => json!({"application/x-ndjson": {"schema": reference(schema)}}),
    }
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn object(required: &[&str], properties: Value) -> Value {
    json!({"type": "object", "required": required, "properties": properties})
}

fn list(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn number(description: &str) -> Value {
    json!({"type": "integer", "minimum": 0, "description": description})
}

fn choice(values: &[&str]) -> Value {
    json!({"type": "string", "enum": values})
}

fn schemas() -> Value {
    let mut schemas = Map::new();
    for part in [
        instance_schemas(),
        document_schemas(),
        sidecar_schemas(),
        watch_schemas(),
        task_schemas(),
    ] {
        if let Value::Object(part) = part {
            schemas.extend(part);
        }
    }
    Value::Object(schemas)
}

fn instance_schemas() -> Value {
    let revision = number("The revision of the store that holds the change.");
    let labels = json!({"type": "object", "additionalProperties": {"type": "string"}, "description": "What subsets select by."});
    let registration = json!({
        "namespace": text("`default` unless given."),
        "service": text("a-z 0-9 - . _"),
        "ports": list(reference("InstancePort")),
        "labels": labels,
        "zone": text("Where it is; endpoints of the caller's zone come first."),
        "priority": number("0 is used first."),
        "weight": number("A share against the others, 0 to 1,000,000; 1 unless given."),
        "sidecar": text("The sidecar that sends its frames; without one it sends heartbeats."),
        "state": reference("InstanceState"),
        "critical_after_seconds": number("Silent for this long it is critical; 15 unless given."),
        "removed_after_seconds": number("Silent for this long it is removed; 30 unless given."),
    });
    let mut instance = registration.clone();
    instance["id"] = text("Unique in the mesh.");
    instance["reported"] = reference("InstanceState");
    instance["load"] = reference("Load");
    let count = |state: &str| number(&format!("Instances that are {state}."));
    json!({
        "InstanceState": choice(&["passing", "warning", "critical", "draining"]),
        "InstancePort": object(&["address"], json!({
            "address": text("host:port as others reach it."),
            "port": number("The service port it serves; absent serves every port."),
            "protocol": choice(&["http", "http2", "grpc", "tcp"]),
        })),
        "Registration": object(&["service", "ports"], registration),
        "Instance": object(&["id", "namespace", "service", "ports", "state"], instance),
        "Registered": object(&["id", "revision"], json!({"id": text("The instance."), "revision": revision})),
        "StateChange": object(&["state"], json!({"state": reference("InstanceState")})),
        "Load": object(&[], json!({
            "cpu": {"type": "number"}, "memory": {"type": "number"}, "network": {"type": "number"},
            "application": {"type": "number"}, "lane": {"type": "number"}, "in_flight": {"type": "integer"},
            "factor": {"type": "number"},
        })),
        "Services": object(&["revision", "services"], json!({
            "revision": number("The newest revision."),
            "services": list(object(&["namespace", "name", "instances"], json!({
                "namespace": text("Its namespace."), "name": text("Its name."), "instances": number("All of them."),
                "passing": count("passing"), "warning": count("warning"),
                "critical": count("critical"), "draining": count("draining"),
            }))),
        })),
        "ServiceInstances": object(&["namespace", "name", "index", "instances"], json!({
            "namespace": text("Its namespace."), "name": text("Its name."),
            "index": number("Pass it back to wait for the next change; also in the header x-pillion-index."),
            "instances": list(reference("Instance")),
        })),
        "Status": object(&["version", "revision"], json!({
            "version": text("Of the program."), "wire_version": number("Of this API."), "store": text("Names the data."),
            "revision": number("The newest."), "documents_revision": number("Of the last change of documents."),
            "services": number("How many."), "instances": number("How many."), "watches": number("Sidecars that watch."),
        })),
        "OpenApi": {"type": "object"},
    })
}

fn document_schemas() -> Value {
    let key = json!({
        "kind": text("Such as HTTPRoute; Service.v1 is Kubernetes' own."),
        "namespace": text("Its namespace."),
        "name": text("Its name."),
    });
    let mut document = key.clone();
    document["revision"] = number("Of its last change.");
    document["created"] = number("The revision in which it appeared.");
    document["time"] = text("Of its last change, RFC 3339.");
    document["author"] = text("Of its last change.");
    document["text"] = text("The YAML, secrets blanked out.");
    let mut change = key.clone();
    change["action"] = choice(&["created", "updated", "deleted", "unchanged"]);
    json!({
        "DocumentKey": object(&["kind", "namespace", "name"], key),
        "Document": object(&["kind", "namespace", "name", "revision", "text"], document),
        "Documents": object(&["revision", "documents"], json!({
            "revision": number("Of the last change of any."), "documents": list(reference("Document")),
        })),
        "Conditions": object(&["revision", "documents"], json!({
            "revision": number("Of the documents they are of."),
            "documents": list(object(&["kind", "metadata", "status"], json!({
                "kind": text("Such as Gateway or HTTPRoute."),
                "metadata": {"type": "object"}, "status": {"type": "object"},
            }))),
        })),
        "Change": object(&["action", "kind", "namespace", "name"], change),
        "Applied": object(&["revision", "changes"], json!({
            "revision": number("The new one; unchanged when nothing changed or in a dry run."),
            "dry_run": {"type": "boolean"}, "changes": list(reference("Change")), "warnings": list(reference("Problem")),
        })),
        "History": object(&["revisions"], json!({"revisions": list(object(&["revision", "time", "author", "changes"], json!({
            "revision": number("Which."), "time": text("When."), "author": text("Who."), "reason": text("Why."),
            "changes": list(reference("Change")),
        })))})),
        "Diff": object(&["from", "to", "diff"], json!({
            "from": number("The older."), "to": number("The newer."), "diff": text("Unified."),
        })),
        "Problem": object(&["severity", "message"], json!({
            "severity": choice(&["error", "warning", "note"]), "file": text("Which text."), "line": number("From 1."),
            "column": number("From 1."), "path": text("The key's path."), "message": text("What is wrong."),
            "hint": text("What to do."), "snippet": {"type": "object"},
        })),
        "Error": object(&["error"], json!({"error": object(&["code", "message"], json!({
            "code": text("A constant word."), "message": text("What happened."), "hint": text("What to do."),
            "problems": list(reference("Problem")),
        }))})),
    })
}

fn sidecar_schemas() -> Value {
    let rejection =
        json!({"revision": number("What was refused."), "problems": list(reference("Problem"))});
    let mut sidecar_rejection = rejection.clone();
    sidecar_rejection["sidecar"] = text("Who.");
    json!({
        "Rejection": object(&["revision"], rejection),
        "Frame": object(&[], json!({
            "applied_revision": number("The newest in effect."), "rejected": reference("Rejection"),
            "instances": list(object(&["id"], json!({
                "id": text("Which."), "state": reference("InstanceState"), "load": reference("Load"),
            }))),
            "events": list(reference("Event")),
        })),
        "Event": object(&["id", "time", "service", "cause", "evidence", "action"], json!({
            "id": number("Counted by whoever lists it."), "time": text("RFC 3339."), "sidecar": text("Who has seen it."),
            "service": text("namespace/name, with /subset where it is one."), "endpoint": text("Its address."),
            "instance": text("Its id."), "cause": text("One word."), "evidence": text("What was seen."),
            "action": text("What was done."), "duration_ms": number("How long it lasts, or has lasted."),
        })),
        "Events": object(&["last", "events"], json!({
            "last": number("The newest id; pass it as `since`."), "events": list(reference("Event")),
        })),
        "FrameAnswer": object(&["revision"], json!({
            "revision": number("The newest."), "unknown": list(text("An instance to register again.")),
        })),
        "Sidecars": object(&["revision", "sidecars"], json!({
            "revision": number("The newest."),
            "sidecars": list(object(&["sidecar", "sent_revision", "applied_revision"], json!({
                "sidecar": text("Who."), "sent_revision": number("What its watch was given."),
                "applied_revision": number("What it has in effect."), "rejected": reference("Rejection"),
            }))),
        })),
        "Acknowledged": object(&["revision", "complete", "acknowledged", "missing", "rejected"], json!({
            "revision": number("Which."), "complete": {"type": "boolean"}, "acknowledged": number("How many have it."),
            "missing": list(text("A sidecar.")), "rejected": list(object(&["sidecar", "revision"], sidecar_rejection)),
        })),
    })
}

fn watch_schemas() -> Value {
    let service_set = object(
        &["namespace", "name", "instances"],
        json!({"namespace": text("Its namespace."), "name": text("Its name."), "instances": list(reference("Instance"))}),
    );
    let instances_change = object(
        &["namespace", "service"],
        json!({
            "namespace": text("Its namespace."), "service": text("Its name."),
            "upserts": list(reference("Instance")), "removals": list(text("An instance id.")),
        }),
    );
    json!({
        "ServiceSet": service_set,
        "InstancesChange": instances_change,
        "WatchFrame": object(&["type"], json!({
            "type": choice(&["hello", "reset", "snapshot", "synced", "changes", "heartbeat"]),
            "version": number("hello: of this API."), "store": text("hello: names the data."),
            "revision": number("hello, synced, changes, heartbeat."), "reason": text("reset: why."),
            "documents": list(reference("Document")), "documents_deleted": list(reference("DocumentKey")),
            "services": list(reference("ServiceSet")), "instances": list(reference("InstancesChange")),
        })),
    })
}

fn task_schemas() -> Value {
    let time = |what: &str| json!({"type": "string", "format": "date-time", "description": what});
    let retry = object(
        &[],
        json!({
            "attempts": number("All attempts, the first included, 1 to 1000; 20 unless given."),
            "backoff": text("The wait after the first failure, which doubles with each; 1s unless given."),
            "backoff_max": text("10m unless given."),
        }),
    );
    let new = json!({
        "namespace": text("`default` unless given."),
        "service": text("Whose instance is to do it."),
        "path": text("`/tasks` unless given."),
        "method": text("`POST` unless given."),
        "headers": {"type": "object", "additionalProperties": {"type": "string"}},
        "body": {"description": "JSON; a text is sent as it is."},
        "body_b64": text("In place of `body`: any bytes, in Base64."),
        "class": choice(&["critical", "default", "batch", "best-effort"]),
        "tenant": text("Whose it is; tenants of a class have their turns."),
        "key": text("Of two tasks of a service with the same key, the first is the one."),
        "delay": text("The wait before the first attempt, such as 30s."),
        "at": time("When the first attempt may be made, in place of `delay`."),
        "deadline": time("No attempt is begun after it."),
        "timeout": text("Of one attempt, 1ms to 24h; 60s unless given."),
        "retry": reference("TaskRetry"),
    });
    let mut task = new.clone();
    task["id"] = text("Sorts by when it was accepted.");
    task["state"] = choice(&[
        "scheduled",
        "ready",
        "running",
        "done",
        "dead",
        "cancelled",
        "expired",
    ]);
    task["attempts"] = number("Attempts that counted.");
    task["created"] = time("When it was accepted.");
    task["due"] = time("When the next attempt is due, or was.");
    task["finished"] = time("When it was over.");
    task["instance"] = text("The instance that has it, or had it last.");
    task["status"] = number("Of the last answer.");
    task["error"] = text("What went wrong last.");
    task["answer"] = text("The beginning of the last answer.");
    json!({
        "TaskRetry": retry,
        "NewTask": object(&["service"], new),
        "Task": object(&["id", "service", "state"], task),
        "SubmittedTask": object(&["id"], json!({
            "id": text("Its id."), "existed": {"type": "boolean", "description": "A task of this key was there before."},
        })),
        "TaskLaneChange": object(&["paused"], json!({"paused": {"type": "boolean"}})),
        "TaskLane": object(&["namespace", "service"], json!({
            "namespace": text("Of the service."), "service": text("Its name."), "paused": {"type": "boolean"},
            "discipline": choice(&["fifo", "priority", "mlfq", "auto"]),
            "limit": number("Tasks that its fit instances take at once."),
            "ready": number("Tasks that wait for their turn."), "running": number("Tasks under way."),
        })),
        "TaskLanes": object(&["lanes"], json!({"lanes": list(reference("TaskLane"))})),
        "BatchLine": {"oneOf": [reference("SubmittedTask"), reference("Error")]},
        "Tasks": object(&["tasks"], json!({
            "tasks": list(reference("Task")), "next": text("Pass it as `after` for the next ones."),
        })),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    found.insert(reference.clone());
                }
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_route_is_described_and_every_schema_it_names_exists() {
        let description = description();
        for route in ROUTES {
            let operation =
                &description["paths"][route.path][route.method.as_str().to_ascii_lowercase()];
            assert_eq!(
                operation["summary"], route.summary,
                "{} {}",
                route.method, route.path
            );
            let described = operation["parameters"].as_array().unwrap();
            for (name, _) in route.query {
                assert!(
                    described.iter().any(|parameter| parameter["name"] == *name),
                    "{} {name}",
                    route.path
                );
            }
        }
        let mut named = BTreeSet::new();
        references(&description, &mut named);
        for reference in named {
            let pointer = reference.trim_start_matches('#');
            assert!(
                description.pointer(pointer).is_some(),
                "{reference} is not described"
            );
        }
    }

    #[test]
    fn no_route_is_described_twice() {
        let routes: BTreeSet<String> = ROUTES
            .iter()
            .map(|route| format!("{} {}", route.method, route.path))
            .collect();
        assert_eq!(routes.len(), ROUTES.len());
    }
}
