//! What there is to ask for, in one table.

use http::Method;

use super::query::decode;
use crate::registry::Refusal;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    Health,
    Metrics,
    OpenApi,
    Status,
    Register,
    GetInstance,
    Deregister,
    SetState,
    Heartbeat,
    ListServices,
    GetService,
    ListSidecars,
    Frame,
    ListEvents,
    Watch,
    Acknowledged,
    Apply,
    ListDocuments,
    GetDocument,
    DeleteDocument,
    Conditions,
    History,
    Diff,
    Rollback,
    SubmitTask,
    SubmitTasks,
    ListTasks,
    GetTask,
    CancelTask,
    RetryTask,
    ListLanes,
    GetLane,
    SetLane,
}

/// What a request sends or gets: how it is called in the description.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    Nothing,
    Json(&'static str),
    Yaml,
    Text,
    /// Lines of JSON.
    Lines(&'static str),
}

/// One method of one path.
#[derive(Debug)]
pub struct Route {
    pub method: Method,
    /// `{name}` stands for one segment.
    pub path: &'static str,
    pub operation: Operation,
    pub summary: &'static str,
    /// Name and meaning of each parameter that is allowed.
    pub query: &'static [(&'static str, &'static str)],
    pub body: Content,
    pub answer: Content,
    /// It may take long on purpose.
    pub waits: bool,
}

const DRY_RUN: (&str, &str) = ("dry_run", "Only say what would change.");
const UNCHANGED_SINCE: (&str, &str) = (
    "revision",
    "Refuse (412) when a document of the request was changed after this revision; the header If-Match does the same.",
);
const KIND: (&str, &str) = ("kind", "Only this kind.");
const NAMESPACE: (&str, &str) = ("namespace", "Only this namespace.");
const AT: (&str, &str) = ("revision", "As it was at this revision.");

const fn route(
    method: Method,
    path: &'static str,
    operation: Operation,
    summary: &'static str,
    body: Content,
    answer: Content,
    query: &'static [(&'static str, &'static str)],
) -> Route {
    Route {
        method,
        path,
        operation,
        summary,
        query,
        body,
        answer,
        waits: false,
    }
}

const fn waiting(mut route: Route) -> Route {
    route.waits = true;
    route
}

use Content::{Json, Lines, Nothing, Text, Yaml};

pub static ROUTES: &[Route] = &[
    route(
        Method::GET,
        "/health",
        Operation::Health,
        "Whether the registry can answer; needs no token.",
        Nothing,
        Text,
        &[],
    ),
    route(
        Method::GET,
        "/ready",
        Operation::Health,
        "The same, where `pillion health` asks.",
        Nothing,
        Text,
        &[],
    ),
    route(
        Method::GET,
        "/metrics",
        Operation::Metrics,
        "The registry's numbers for Prometheus.",
        Nothing,
        Text,
        &[],
    ),
    route(
        Method::GET,
        "/v1/openapi.json",
        Operation::OpenApi,
        "This description.",
        Nothing,
        Json("OpenApi"),
        &[],
    ),
    route(
        Method::GET,
        "/v1/status",
        Operation::Status,
        "Version, revision and counts.",
        Nothing,
        Json("Status"),
        &[],
    ),
    route(
        Method::PUT,
        "/v1/instances/{id}",
        Operation::Register,
        "Register an instance, or replace or renew its registration.",
        Json("Registration"),
        Json("Registered"),
        &[],
    ),
    route(
        Method::GET,
        "/v1/instances/{id}",
        Operation::GetInstance,
        "An instance with its last load.",
        Nothing,
        Json("Instance"),
        &[],
    ),
    route(
        Method::DELETE,
        "/v1/instances/{id}",
        Operation::Deregister,
        "Remove an instance for good.",
        Nothing,
        Json("Registered"),
        &[],
    ),
    route(
        Method::PUT,
        "/v1/instances/{id}/state",
        Operation::SetState,
        "Set what an instance says of itself.",
        Json("StateChange"),
        Json("Registered"),
        &[],
    ),
    route(
        Method::POST,
        "/v1/instances/{id}/heartbeat",
        Operation::Heartbeat,
        "Still here; each 5 s from an instance without a sidecar. The body, a load, may be left out.",
        Json("Load"),
        Json("Registered"),
        &[],
    ),
    route(
        Method::GET,
        "/v1/services",
        Operation::ListServices,
        "Services with their instances counted by state.",
        Nothing,
        Json("Services"),
        &[NAMESPACE],
    ),
    waiting(route(
        Method::GET,
        "/v1/services/{namespace}/{name}",
        Operation::GetService,
        "The instances of a service; with `index`, once they have changed after it.",
        Nothing,
        Json("ServiceInstances"),
        &[
            (
                "index",
                "Answer when the service has changed after this; from an earlier answer.",
            ),
            (
                "wait",
                "How long to wait for a change: 5m unless given, 10m at most.",
            ),
        ],
    )),
    route(
        Method::GET,
        "/v1/sidecars",
        Operation::ListSidecars,
        "Who watches, and what each has in effect.",
        Nothing,
        Json("Sidecars"),
        &[],
    ),
    route(
        Method::POST,
        "/v1/sidecars/{sidecar}/frames",
        Operation::Frame,
        "A sidecar's word of each second: its instances' states and load, and what it has in effect.",
        Json("Frame"),
        Json("FrameAnswer"),
        &[],
    ),
    route(
        Method::GET,
        "/v1/events",
        Operation::ListEvents,
        "What sidecars have told this registry that they detected and did, the oldest first, 1000 at most.",
        Nothing,
        Json("Events"),
        &[("since", "Only what came after the event of this id.")],
    ),
    waiting(route(
        Method::GET,
        "/v1/watch",
        Operation::Watch,
        "Everything, then every change, one frame a line, until it is closed.",
        Nothing,
        Lines("WatchFrame"),
        &[
            (
                "sidecar",
                "Who watches; left out, the watch counts for no acknowledgement.",
            ),
            (
                "from",
                "The last revision in effect; 0 or left out gets everything.",
            ),
            (
                "store",
                "The store that `from` is a revision of, from `hello`.",
            ),
            (
                "services",
                "Whose instances, as namespace/name or name, divided by commas; * or left out is all.",
            ),
            (
                "namespace",
                "The namespace of services that are named without; `default` unless given.",
            ),
        ],
    )),
    waiting(route(
        Method::GET,
        "/v1/revisions/{revision}/acknowledged",
        Operation::Acknowledged,
        "Whether every watching sidecar has the revision in effect; with `wait`, once it is so or refused.",
        Nothing,
        Json("Acknowledged"),
        &[
            (
                "wait",
                "How long to wait, 10m at most; not at all unless given.",
            ),
            (
                "except",
                "A sidecar that does not count, such as the one that asks.",
            ),
        ],
    )),
    route(
        Method::POST,
        "/v1/documents",
        Operation::Apply,
        "Apply every document of a YAML text, or none.",
        Yaml,
        Json("Applied"),
        &[DRY_RUN, UNCHANGED_SINCE],
    ),
    route(
        Method::GET,
        "/v1/documents",
        Operation::ListDocuments,
        "The documents; as YAML with `accept: application/yaml`.",
        Nothing,
        Json("Documents"),
        &[KIND, NAMESPACE, AT],
    ),
    route(
        Method::GET,
        "/v1/documents/{kind}/{namespace}/{name}",
        Operation::GetDocument,
        "A document; as YAML with `accept: application/yaml`.",
        Nothing,
        Json("Document"),
        &[AT],
    ),
    route(
        Method::DELETE,
        "/v1/documents/{kind}/{namespace}/{name}",
        Operation::DeleteDocument,
        "Delete a document that nothing needs any more.",
        Nothing,
        Json("Applied"),
        &[DRY_RUN, UNCHANGED_SINCE],
    ),
    route(
        Method::GET,
        "/v1/conditions",
        Operation::Conditions,
        "The status conditions of Gateways, listeners, routes and policies, as Kubernetes writes them.",
        Nothing,
        Json("Conditions"),
        &[KIND, NAMESPACE],
    ),
    route(
        Method::GET,
        "/v1/history",
        Operation::History,
        "Who changed what and when, newest first.",
        Nothing,
        Json("History"),
        &[
            KIND,
            NAMESPACE,
            ("name", "Only this name."),
            ("limit", "At most this many."),
        ],
    ),
    route(
        Method::GET,
        "/v1/diff",
        Operation::Diff,
        "What changed between two revisions, unified; as text with `accept: text/plain`.",
        Nothing,
        Json("Diff"),
        &[
            ("from", "The older revision."),
            ("to", "The newer one; the newest unless given."),
        ],
    ),
    route(
        Method::POST,
        "/v1/rollback",
        Operation::Rollback,
        "Make the documents what they were at a revision; that is a new revision.",
        Nothing,
        Json("Applied"),
        &[
            ("to", "The revision to go back to."),
            DRY_RUN,
            UNCHANGED_SINCE,
        ],
    ),
    route(
        Method::POST,
        "/v1/tasks",
        Operation::SubmitTask,
        "Keep a request until an instance of its service has done it; it is durable when this is answered.",
        Json("NewTask"),
        Json("SubmittedTask"),
        &[],
    ),
    route(
        Method::POST,
        "/v1/tasks:batch",
        Operation::SubmitTasks,
        "Many tasks, one a line; one answer a line, in their order: an id, or the error of that one alone.",
        Lines("NewTask"),
        Lines("BatchLine"),
        &[],
    ),
    route(
        Method::GET,
        "/v1/tasks",
        Operation::ListTasks,
        "Tasks, the oldest first, 100 at most.",
        Nothing,
        Json("Tasks"),
        &[
            (
                "service",
                "Only of this service, as namespace/name or name.",
            ),
            (
                "state",
                "Only those that are scheduled, ready, running, done, dead, cancelled or expired.",
            ),
            (
                "after",
                "Only those after the task of this id: `next` of an earlier answer.",
            ),
        ],
    ),
    waiting(route(
        Method::GET,
        "/v1/tasks/{id}",
        Operation::GetTask,
        "A task; with `wait`, once it is over.",
        Nothing,
        Json("Task"),
        &[(
            "wait",
            "How long to wait, 10m at most; not at all unless given.",
        )],
    )),
    route(
        Method::POST,
        "/v1/tasks/{id}/cancel",
        Operation::CancelTask,
        "End a task; an attempt under way is broken off.",
        Nothing,
        Json("Task"),
        &[],
    ),
    route(
        Method::POST,
        "/v1/tasks/{id}/retry",
        Operation::RetryTask,
        "Try a task again that was given up, cancelled or too late, as if it were new.",
        Nothing,
        Json("Task"),
        &[],
    ),
    route(
        Method::GET,
        "/v1/lanes",
        Operation::ListLanes,
        "The lanes of services that have tasks which are due, or that are paused.",
        Nothing,
        Json("TaskLanes"),
        &[],
    ),
    route(
        Method::GET,
        "/v1/lanes/{namespace}/{name}",
        Operation::GetLane,
        "The lane of a service: its tasks that are due.",
        Nothing,
        Json("TaskLane"),
        &[],
    ),
    route(
        Method::PUT,
        "/v1/lanes/{namespace}/{name}",
        Operation::SetLane,
        "Stop handing out the tasks of a service, or go on; what runs goes on. It holds over restarts.",
        Json("TaskLaneChange"),
        Json("TaskLane"),
        &[],
    ),
];

/// A route and the values of its path's segments, in their order.
pub struct Matched {
    pub route: &'static Route,
    pub segments: Vec<String>,
}

/// The route of a request; a wrong method is told from a wrong path.
pub fn find(method: &Method, path: &str) -> Result<Matched, Refusal> {
    let on_path: Vec<&'static Route> = ROUTES
        .iter()
        .filter(|route| segments(route.path, path).is_some())
        .collect();
    if let Some(route) = on_path.iter().find(|route| route.method == *method) {
        let encoded = segments(route.path, path).unwrap_or_default();
        let segments = encoded
            .into_iter()
            .map(|segment| decode(&segment.replace('+', "%2B")))
            .collect::<Result<_, _>>()?;
        return Ok(Matched { route, segments });
    }
    let allowed: Vec<&str> = on_path.iter().map(|route| route.method.as_str()).collect();
    Err(match allowed.is_empty() {
        true => Refusal::new(
            http::StatusCode::NOT_FOUND,
            "no_such_path",
            format!("there is nothing at {path}"),
        )
        .hint("GET /v1/openapi.json describes what there is"),
        false => {
            let message = format!("{path} does not take {method}");
            Refusal::new(
                http::StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                message,
            )
            .hint(format!("it takes {}", allowed.join(", ")))
        }
    })
}

fn segments<'p>(template: &str, path: &'p str) -> Option<Vec<&'p str>> {
    let mut values = Vec::new();
    let mut given = path.split('/');
    for expected in template.split('/') {
        let segment = given.next()?;
        if expected.starts_with('{') {
            if segment.is_empty() {
                return None;
            }
            values.push(segment);
        } else if expected != segment {
            return None;
        }
    }
    given.next().is_none().then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_finds_its_route_and_its_segments() {
        let found = find(&Method::GET, "/v1/documents/HTTPRoute/default/a%2Fb").unwrap();
        assert_eq!(found.route.operation, Operation::GetDocument);
        assert_eq!(found.segments, ["HTTPRoute", "default", "a/b"]);
        assert_eq!(
            find(&Method::PUT, "/v1/instances/a+b").unwrap().segments,
            ["a+b"]
        );
    }

    #[test]
    fn a_wrong_method_is_told_from_a_wrong_path() {
        let refused = |method, path| find(&method, path).err().unwrap();
        assert_eq!(refused(Method::PATCH, "/v1/instances/a").status, 405);
        assert_eq!(refused(Method::GET, "/v1/instances/").status, 404);
        assert_eq!(refused(Method::GET, "/v2/status").status, 404);
    }

    #[test]
    fn no_two_routes_answer_the_same_request() {
        for (index, a) in ROUTES.iter().enumerate() {
            for b in &ROUTES[index + 1..] {
                assert!(
                    a.method != b.method || a.path != b.path,
                    "{} {}",
                    a.method,
                    a.path
                );
            }
        }
    }
}
