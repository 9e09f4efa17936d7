//! Each operation: its arguments from the request, its answer from the registry.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_MATCH};
use http::{HeaderMap, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame as BodyFrame;
use serde_json::json;

use super::answer::{self, Body, Format};
use super::query::Query;
use super::routes::{Matched, Operation};
use super::server::stopped;
use super::{openapi, request};
use crate::api::{
    self, AUTHOR_HEADER, DocumentKey, Frame, INDEX_HEADER, Load, Registration, StateChange,
};
use crate::model::Name;
use crate::registry::documents::{Changing, DocumentQuery, HistoryQuery};
use crate::registry::view::Selector;
use crate::registry::watch::LongPoll;
use crate::registry::{Refusal, Registry};

const AUTHOR_LENGTH_MAX: usize = 200;
const SELECTED_MAX: usize = 10_000;
const WAIT_MAX: Duration = Duration::from_secs(600);

/// A request that was let in and read.
pub struct Call {
    pub matched: Matched,
    pub query: Query,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Who showed a token.
    pub caller: Option<String>,
    /// Becomes true when the registry stops.
    pub stopping: tokio::sync::watch::Receiver<bool>,
}

impl Call {
    fn segment(&self, index: usize) -> &str {
        self.matched.segments.get(index).map_or("", String::as_str)
    }

    fn format(&self) -> Format {
        Format::of(&self.headers)
    }

    fn document_key(&self) -> DocumentKey {
        let [kind, namespace, name] = [0, 1, 2].map(|index| self.segment(index).to_owned());
        DocumentKey {
            kind,
            namespace,
            name,
        }
    }

    fn json<T>(&self) -> Result<T, Refusal>
    where
        T: serde::de::DeserializeOwned + serde::Serialize + Clone,
    {
        self.decode(&self.body)
    }

    /// A part of the body.
    fn decode<T>(&self, json: &[u8]) -> Result<T, Refusal>
    where
        T: serde::de::DeserializeOwned + serde::Serialize + Clone,
    {
        request::json(json, request::is_newer(&self.headers), |value| value)
    }
}

pub async fn run(registry: &Arc<Registry>, call: Call) -> Result<Response<Body>, Refusal> {
    let format = call.format();
    Ok(match call.matched.route.operation {
        Operation::Health => answer::text("text/plain; charset=utf-8", "ok\n"),
        Operation::Metrics => answer::text(
            "text/plain; version=0.0.4; charset=utf-8",
            registry.metrics_text(),
        ),
        Operation::OpenApi => answer::json(format, &openapi::description()),
        Operation::Status => answer::json(format, &status(registry)),
        Operation::Register => answer::json(format, &register(registry, &call).await?),
        Operation::GetInstance => answer::json(format, &registry.instance(call.segment(0))?),
        Operation::Deregister => answer::json(format, &registry.deregister(call.segment(0)).await?),
        Operation::SetState => {
            let change: StateChange = call.json()?;
            answer::json(
                format,
                &registry.set_state(call.segment(0), change.state).await?,
            )
        }
        Operation::Heartbeat => answer::json(
            format,
            &registry.heartbeat(call.segment(0), load(&call)?).await?,
        ),
        Operation::ListServices => {
            answer::json(format, &registry.services(call.query.text("namespace")))
        }
        Operation::GetService => service(registry, &call).await?,
        Operation::ListSidecars => {
            let sidecars = api::Sidecars {
                revision: registry.revision(),
                sidecars: registry.sidecar_statuses(),
            };
            answer::json(format, &sidecars)
        }
        Operation::Frame => {
            let frame: Frame = call.json()?;
            answer::json(format, &registry.frame(call.segment(0), frame).await?)
        }
        Operation::ListEvents => {
            let since = call.query.number("since")?.unwrap_or(0);
            answer::json(format, &registry.events(since))
        }
        Operation::Watch => watch(registry, &call)?,
        Operation::Acknowledged => answer::json(format, &acknowledged(registry, &call).await?),
        Operation::Apply => {
            let text = std::str::from_utf8(&call.body)
                .map_err(|_| Refusal::invalid("the documents are not UTF-8"))?;
            answer::json(format, &registry.apply(text, &changing(&call)?).await?)
        }
        Operation::ListDocuments => documents(registry, &call).await?,
        Operation::GetDocument => document(registry, &call).await?,
        Operation::DeleteDocument => answer::json(
            format,
            &registry
                .delete(&call.document_key(), &changing(&call)?)
                .await?,
        ),
        Operation::Conditions => conditions(registry, &call),
        Operation::History => {
            answer::json(format, &registry.history(&history_query(&call)?).await?)
        }
        Operation::Diff => diff(registry, &call).await?,
        Operation::Rollback => {
            let to = required(&call, "to")?;
            answer::json(format, &registry.rollback(to, &changing(&call)?).await?)
        }
        Operation::SubmitTask => answer::json(format, &registry.submit_task(call.json()?).await?),
        Operation::SubmitTasks => {
            let lines = call.body.split(|byte| *byte == b'\n');
            let lines = lines.filter(|line| !line.trim_ascii().is_empty());
            let tasks = lines.map(|line| call.decode(line)).collect();
            answer::text("application/x-ndjson", registry.submit_tasks(tasks).await)
        }
        Operation::ListTasks => answer::json(format, &registry.tasks(&tasks(&call)?).await?),
        Operation::GetTask => answer::json(format, &task(registry, &call).await?),
        Operation::CancelTask => {
            answer::json(format, &registry.cancel_task(call.segment(0)).await?)
        }
        Operation::ListLanes => {
            let lanes = registry.task_lanes(None);
            answer::json(format, &api::TaskLanes { lanes })
        }
        Operation::GetLane => answer::json(format, &lane(registry, &call)?),
        Operation::SetLane => {
            let change: api::TaskLaneChange = call.json()?;
            let service = Name::new(call.segment(0), call.segment(1));
            registry.pause_tasks(&service, change.paused).await?;
            answer::json(format, &lane(registry, &call)?)
        }
        Operation::RetryTask => answer::json(format, &registry.retry_task(call.segment(0)).await?),
    })
}

fn status(registry: &Registry) -> serde_json::Value {
    let services = registry.services(None).services;
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "wire_version": api::WIRE_VERSION,
        "store": registry.store_id(),
        "revision": registry.revision(),
        "documents_revision": registry.documents_revision(),
        "services": services.len(),
        "instances": services.iter().map(|service| service.instances).sum::<usize>(),
        "watches": registry.sidecar_statuses().len(),
    })
}

async fn register(registry: &Registry, call: &Call) -> Result<api::Registered, Refusal> {
    let known = |registration: Registration| Registration {
        unknown: Default::default(),
        ..registration
    };
    let registration = request::json(&call.body, request::is_newer(&call.headers), known)?;
    registry.register(call.segment(0), registration).await
}

fn load(call: &Call) -> Result<Option<Load>, Refusal> {
    if call.body.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    call.json().map(Some)
}

async fn service(registry: &Registry, call: &Call) -> Result<Response<Body>, Refusal> {
    let wait = call.query.duration("wait")?;
    let poll = match call.query.number("index")? {
        Some(index) => Some(LongPoll {
            index,
            wait: wait.unwrap_or(LongPoll::WAIT),
        }),
        None if wait.is_some() => {
            return Err(Refusal::invalid("wait without index")
                .hint("take the index from an answer without wait"));
        }
        None => None,
    };
    let mut stopping = call.stopping.clone();
    let name = Name::new(call.segment(0), call.segment(1));
    let found = tokio::select! {
        found = registry.service(&name, poll) => found?,
        () = stopped(&mut stopping) => return Err(stops()),
    };
    let response = answer::json(call.format(), &found);
    Ok(answer::with_header(
        response,
        HeaderName::from_static(INDEX_HEADER),
        found.index,
    ))
}

fn stops() -> Refusal {
    Refusal::unavailable("the registry stops").hint("ask again; it may be back in a moment")
}

fn watch(registry: &Arc<Registry>, call: &Call) -> Result<Response<Body>, Refusal> {
    let query = &call.query;
    let selector = selector(query)?;
    let from = query.number("from")?.unwrap_or(0);
    let store = query.text("store").map(str::to_owned);
    let watch = registry.watch(query.text("sidecar"), selector, from, store)?;
    let lines = stream::unfold(
        (watch, call.stopping.clone()),
        |(mut watch, mut stopping)| async move {
            let lines = tokio::select! {
                lines = watch.next() => lines?,
                () = stopped(&mut stopping) => return None,
            };
            Some((
                Ok::<_, Infallible>(BodyFrame::data(lines)),
                (watch, stopping),
            ))
        },
    );
    let mut response = Response::new(StreamBody::new(lines).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-ndjson"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn selector(query: &Query) -> Result<Selector, Refusal> {
    let namespace = query.text("namespace").unwrap_or(Name::DEFAULT_NAMESPACE);
    let Some(services) = query.text("services").filter(|services| *services != "*") else {
        return Ok(Selector::All);
    };
    let name = |text: &str| match text.split_once('/') {
        Some((namespace, name)) => Name::new(namespace, name),
        None => Name::new(namespace, text),
    };
    let services: BTreeSet<Name> = services
        .split(',')
        .filter(|text| !text.is_empty())
        .map(name)
        .collect();
    match services.len() <= SELECTED_MAX {
        true => Ok(Selector::Services(services)),
        false => Err(Refusal::invalid(format!(
            "{} services are selected; at most {SELECTED_MAX}, or * for all",
            services.len()
        ))),
    }
}

async fn acknowledged(registry: &Registry, call: &Call) -> Result<api::Acknowledged, Refusal> {
    let revision = call
        .segment(0)
        .parse()
        .map_err(|_| Refusal::invalid(format!("{:?} is not a revision", call.segment(0))))?;
    if revision > registry.revision() {
        let newest = registry.revision();
        return Err(Refusal::invalid(format!(
            "revision {revision} is in the future; the newest is {newest}"
        )));
    }
    let wait = call
        .query
        .duration("wait")?
        .unwrap_or_default()
        .min(WAIT_MAX);
    let mut stopping = call.stopping.clone();
    tokio::select! {
        found = registry.acknowledged(revision, call.query.text("except"), wait) => Ok(found),
        () = stopped(&mut stopping) => Err(stops()),
    }
}

fn changing(call: &Call) -> Result<Changing, Refusal> {
    let author = match call.headers.get(AUTHOR_HEADER) {
        Some(value) => {
            let text = value
                .to_str()
                .ok()
                .map(str::trim)
                .filter(|text| !text.is_empty() && text.len() <= AUTHOR_LENGTH_MAX);
            let wrong = || {
                Refusal::invalid(format!(
                    "the header {AUTHOR_HEADER} is not 1 to {AUTHOR_LENGTH_MAX} visible characters"
                ))
            };
            text.ok_or_else(wrong)?.to_owned()
        }
        None => call
            .caller
            .clone()
            .unwrap_or_else(|| "anonymous".to_owned()),
    };
    let unchanged_since = match call.query.number("revision")? {
        Some(revision) => Some(revision),
        None => if_match(&call.headers)?,
    };
    Ok(Changing {
        author,
        unchanged_since,
        dry_run: call.query.flag("dry_run")?,
    })
}

fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let Some(value) = headers.get(IF_MATCH) else {
        return Ok(None);
    };
    let revision = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().trim_matches('"').parse().ok());
    revision
        .map(Some)
        .ok_or_else(|| Refusal::invalid("the header If-Match is not a revision such as \"42\""))
}

fn lane(registry: &Registry, call: &Call) -> Result<api::TaskLane, Refusal> {
    let service = Name::new(call.segment(0), call.segment(1));
    let lane = registry.task_lanes(Some(&service)).pop();
    lane.ok_or_else(|| Refusal::not_found(format!("service {service}")))
}

async fn task(registry: &Registry, call: &Call) -> Result<api::Task, Refusal> {
    let id = call.segment(0);
    let wait = call.query.duration("wait")?.map(|wait| wait.min(WAIT_MAX));
    let mut stopping = call.stopping.clone();
    tokio::select! {
        task = registry.task(id, wait) => task,
        () = stopped(&mut stopping) => registry.task(id, None).await,
    }
}

fn tasks(call: &Call) -> Result<crate::work::Query, Refusal> {
    let service = call.query.text("service").map(|service| {
        let (namespace, name) = service.split_once('/').unwrap_or(("default", service));
        Name::new(namespace, name)
    });
    let state = call.query.text("state").map(|text| {
        let known = api::TaskState::ALL.into_iter();
        let found = known.clone().find(|state| state.as_str() == text);
        let all: Vec<&str> = known.map(api::TaskState::as_str).collect();
        found.ok_or_else(|| {
            let message = format!("`{text}` is no state of a task");
            Refusal::invalid(message).hint(format!("one of {}", all.join(", ")))
        })
    });
    Ok(crate::work::Query {
        service,
        state: state.transpose()?,
        after: call.query.text("after").map(str::to_owned),
    })
}

fn conditions(registry: &Registry, call: &Call) -> Response<Body> {
    let (kind, namespace) = (call.query.text("kind"), call.query.text("namespace"));
    answer::json(call.format(), &registry.conditions(kind, namespace))
}

async fn documents(registry: &Registry, call: &Call) -> Result<Response<Body>, Refusal> {
    let text = |name| call.query.text(name).map(str::to_owned);
    let query = DocumentQuery {
        kind: text("kind"),
        namespace: text("namespace"),
        revision: call.query.number("revision")?,
    };
    let found = registry.documents(&query).await?;
    let response = match call.format().is_text() {
        true => {
            let texts: Vec<&str> = found
                .documents
                .iter()
                .map(|document| document.text.as_str())
                .collect();
            answer::text("application/yaml", texts.join("---\n"))
        }
        false => answer::json(call.format(), &found),
    };
    Ok(answer::with_header(response, ETAG, etag(found.revision)))
}

async fn document(registry: &Registry, call: &Call) -> Result<Response<Body>, Refusal> {
    let found = registry
        .document(&call.document_key(), call.query.number("revision")?)
        .await?;
    let revision = found.revision;
    let response = match call.format().is_text() {
        true => answer::text("application/yaml", found.text),
        false => answer::json(call.format(), &found),
    };
    Ok(answer::with_header(response, ETAG, etag(revision)))
}

fn etag(revision: u64) -> HeaderValue {
    // Digits in quotes are always a header value.
    HeaderValue::from_str(&format!("\"{revision}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
}

fn history_query(call: &Call) -> Result<HistoryQuery, Refusal> {
    let text = |name| call.query.text(name).map(str::to_owned);
    Ok(HistoryQuery {
        kind: text("kind"),
        namespace: text("namespace"),
        name: text("name"),
        limit: call.query.number("limit")?,
    })
}

async fn diff(registry: &Registry, call: &Call) -> Result<Response<Body>, Refusal> {
    let found = registry
        .diff(required(call, "from")?, call.query.number("to")?)
        .await?;
    Ok(match call.format().is_text() {
        true => answer::text("text/plain; charset=utf-8", found.diff),
        false => answer::json(call.format(), &found),
    })
}

fn required(call: &Call, name: &str) -> Result<u64, Refusal> {
    call.query.number(name)?.ok_or_else(|| {
        Refusal::invalid(format!("query parameter {name:?} is needed"))
            .hint("GET /v1/history lists the revisions there are")
    })
}
