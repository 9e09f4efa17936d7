//! The pages: which paths there are, what each accepts and what it answers.

use http::header::ACCEPT;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::respond::{self, Answer};
use super::{State, clusters, lanes};
use crate::explain::Asked;

struct Page {
    path: &'static str,
    allow: &'static str,
    /// One line for people.
    about: &'static str,
    answer: fn(&State, &Request) -> Answer,
}

pub(super) struct Request {
    pub parts: Parts,
    pub body: String,
}

const READ: &str = "GET, HEAD";
const CHANGE: &str = "POST";
const READ_AND_CHANGE: &str = "GET, HEAD, POST";

const PAGES: [Page; 17] = [
    Page {
        path: "/",
        allow: READ,
        about: "this list",
        answer: |_, _| help(StatusCode::OK, ""),
    },
    Page {
        path: "/help",
        allow: READ,
        about: "this list",
        answer: |_, _| help(StatusCode::OK, ""),
    },
    Page {
        path: "/ready",
        allow: READ,
        about: "200 when traffic can be served, else 503 and every reason why not",
        answer: |state, _| readiness((state.ready)(), "ready"),
    },
    Page {
        path: "/started",
        allow: READ,
        about: "the same without the application, which may be waiting for this",
        answer: |state, _| readiness((state.started)(), "started"),
    },
    Page {
        path: "/live",
        allow: READ,
        about: "200 while the process answers at all",
        answer: |_, _| respond::text(StatusCode::OK, "live"),
    },
    Page {
        path: "/metrics",
        allow: READ,
        about: "Prometheus text; OpenMetrics when Accept asks for it",
        answer: metrics,
    },
    Page {
        path: "/config",
        allow: READ,
        about: "the snapshot in force as JSON, secrets redacted",
        answer: |state, _| respond::json(&(state.config)()),
    },
    Page {
        path: "/config/problems",
        allow: READ,
        about: "what is wrong with the documents as they are now, as JSON",
        answer: |state, _| respond::json(&(state.problems)()),
    },
    Page {
        path: "/clusters",
        allow: READ,
        about: "endpoints with state, load and why; ?service=TEXT narrows, ?format=json or Accept: application/json",
        answer: show_clusters,
    },
    Page {
        path: "/events",
        allow: READ,
        about: "what was detected and done, as JSON, the oldest first; ?since=ID gives what came later",
        answer: show_events,
    },
    Page {
        path: "/explain",
        allow: READ,
        about: "why a request goes where it goes; ?request=GET%20http://host/path, &header=name:%20value, &from=NAMESPACE, &gateway=NAME",
        answer: show_explained,
    },
    Page {
        path: "/lanes",
        allow: READ,
        about: "the queues before the application, who waits and what was refused; ?format=json or Accept: application/json",
        answer: show_lanes,
    },
    Page {
        path: "/log",
        allow: READ_AND_CHANGE,
        about: "the log filter; POST a new one as the body or ?level=info,pillion::proxy=debug",
        answer: log,
    },
    Page {
        path: "/leave",
        allow: CHANGE,
        about: "POST: deregister so that peers stop sending, and serve on; what ends the process is /drain or a signal",
        answer: leave,
    },
    Page {
        path: "/drain",
        allow: CHANGE,
        about: "POST: take no new connections, finish what runs, then exit",
        answer: drain,
    },
    Page {
        path: "/quit",
        allow: CHANGE,
        about: "POST: the same, for a job whose main process has ended",
        answer: drain,
    },
    Page {
        path: "/version",
        allow: READ,
        about: "the version of this binary",
        answer: |_, _| respond::text(StatusCode::OK, env!("CARGO_PKG_VERSION")),
    },
];

/// The answer of the page that the request names. It may take as long as its closures do.
pub(super) fn answer(state: &State, request: &Request) -> Answer {
    let path = request.parts.uri.path();
    let Some(page) = PAGES.iter().find(|page| page.path == path) else {
        return help(
            StatusCode::NOT_FOUND,
            &format!("no page {path}; there are:\n\n"),
        );
    };
    if !page
        .allow
        .split(", ")
        .any(|method| method == request.parts.method.as_str())
    {
        return respond::method_not_allowed(page.allow);
    }
    (page.answer)(state, request)
}

fn help(status: StatusCode, opening: &str) -> Answer {
    let lines: String = PAGES
        .iter()
        .filter(|page| page.path != "/help")
        .map(|page| format!("{:<17} {:<15} {}\n", page.path, page.allow, page.about))
        .collect();
    respond::text(status, format!("{opening}{lines}"))
}

fn readiness(is_so: Result<(), Vec<String>>, word: &str) -> Answer {
    match is_so {
        Ok(()) => respond::text(StatusCode::OK, word),
        Err(reasons) => respond::text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not {word}:\n{}", reasons.join("\n")),
        ),
    }
}

fn metrics(state: &State, request: &Request) -> Answer {
    let openmetrics = accepts(&request.parts.headers, "application/openmetrics-text");
    let content_type = match openmetrics {
        true => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        false => "text/plain; version=0.0.4; charset=utf-8",
    };
    respond::with_type(StatusCode::OK, content_type, (state.metrics)(openmetrics))
}

fn show_clusters(state: &State, request: &Request) -> Answer {
    let mut views = (state.clusters)();
    if let Some(service) = parameter(request, "service") {
        views.retain(|view| view.name.contains(&service));
    }
    show(request, &views[..], clusters::table)
}

fn show_lanes(state: &State, request: &Request) -> Answer {
    show(request, &(state.lanes)()[..], lanes::table)
}

/// As JSON where that is asked for, or else as a table.
fn show<T: Serialize + ?Sized>(request: &Request, views: &T, table: fn(&T) -> String) -> Answer {
    let as_json = match parameter(request, "format").as_deref() {
        Some("json") => true,
        Some("text") => false,
        Some(_) => return respond::text(StatusCode::BAD_REQUEST, "format is json or text"),
        None => accepts(&request.parts.headers, "application/json"),
    };
    match as_json {
        true => respond::json(&views),
        false => respond::text(StatusCode::OK, table(views)),
    }
}

fn show_explained(state: &State, request: &Request) -> Answer {
    let asked = Asked {
        request: parameter(request, "request").unwrap_or_default(),
        headers: parameters(request, "header").collect(),
        from: parameter(request, "from"),
        gateway: parameter(request, "gateway"),
    };
    match (state.explain)(&asked) {
        Ok(explained) => show(request, &explained, ToString::to_string),
        Err(problem) => respond::text(StatusCode::BAD_REQUEST, problem),
    }
}

fn show_events(state: &State, request: &Request) -> Answer {
    let since = parameter(request, "since").map(|since| since.parse());
    match since.unwrap_or(Ok(0)) {
        Ok(since) => respond::json(&(state.events)(since)),
        Err(_) => respond::text(StatusCode::BAD_REQUEST, "since is the id of an event"),
    }
}

fn log(state: &State, request: &Request) -> Answer {
    if request.parts.method != Method::POST {
        return respond::text(StatusCode::OK, (state.log_level)());
    }
    let level = parameter(request, "level").unwrap_or_else(|| request.body.trim().to_owned());
    if level.is_empty() {
        return respond::text(
            StatusCode::BAD_REQUEST,
            "send the filter as the body or as ?level=debug",
        );
    }
    match (state.set_log_level)(&level) {
        Ok(()) => respond::text(StatusCode::OK, (state.log_level)()),
        Err(problem) => respond::text(StatusCode::BAD_REQUEST, problem),
    }
}

fn leave(state: &State, _: &Request) -> Answer {
    (state.leave)();
    respond::text(StatusCode::ACCEPTED, "leaving")
}

fn drain(state: &State, _: &Request) -> Answer {
    (state.drain)();
    respond::text(StatusCode::ACCEPTED, "draining")
}

/// Whether the client lists this media type itself (`*/*`, as curl sends it, does not ask for anything).
fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|range| {
            range
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .eq_ignore_ascii_case(media_type)
        })
}

/// A parameter of the query, percent-decoded.
fn parameter(request: &Request, name: &str) -> Option<String> {
    parameters(request, name).next()
}

/// Every parameter of this name, percent-decoded.
fn parameters<'r>(request: &'r Request, name: &'r str) -> impl Iterator<Item = String> + 'r {
    let query = request.parts.uri.query().unwrap_or_default();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let named = pairs.filter(move |(key, _)| *key == name);
    named.map(|(_, value)| percent_decode_str(value).decode_utf8_lossy().into_owned())
}
