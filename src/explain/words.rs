//! What a rule, its settings and its conditions are, in words.

use super::facts::Candidate;
use crate::interface::Interface;
use crate::model::{
    self, ClusterKey, HeaderMatch, HedgeAfter, PathMatch, QueryMatch, RouteMatch, Service,
    SessionCarrier, ValueMatch,
};
use crate::proxy::http::head::RequestHead;
use crate::proxy::route::{Considered, Fate, Mismatch, Persistence};

/// Operations that are named where none serves a request.
const OPERATIONS_MAX: usize = 3;

pub fn candidate(considered: &Considered<'_, ClusterKey>, head: &RequestHead) -> Candidate {
    let Considered {
        rule,
        conditions,
        fate,
    } = considered;
    Candidate {
        kind: rule.route.kind.as_str(),
        rule: rule.label.to_string(),
        matches: conditions_text(conditions),
        taken: matches!(fate, Fate::Taken),
        why: match fate {
            Fate::Taken => String::new(),
            Fate::Later => "one that comes before it is taken".to_owned(),
            Fate::OtherPath => "its path is another".to_owned(),
            Fate::Mismatch(mismatch) => mismatch_text(mismatch, head),
        },
    }
}

fn mismatch_text(mismatch: &Mismatch<'_>, head: &RequestHead) -> String {
    let has = |name: &str, found: Option<String>| match found {
        Some(value) => format!("{name} is `{value}`"),
        None => format!("there is no {name}"),
    };
    match mismatch {
        Mismatch::Method(_) => format!("the method is {}", head.method.as_str()),
        Mismatch::Header(HeaderMatch { name, .. }) => has(
            &format!("header {name}"),
            head.fields.find(name.as_bytes()).map(text),
        ),
        Mismatch::Query(QueryMatch { name, .. }) => {
            let query = head.query().map(text).unwrap_or_default();
            has(&format!("query {name} that fits"), None) + &format!(" in `?{query}`")
        }
    }
}

fn conditions_text(conditions: &RouteMatch) -> String {
    let path = match &conditions.path {
        PathMatch::Exact(path) => format!("path {path}"),
        PathMatch::Prefix(prefix) if prefix.is_empty() => "every path".to_owned(),
        PathMatch::Prefix(prefix) => format!("path {prefix}/…"),
        PathMatch::Regex(regex) => format!("path ~ {}", bare(regex)),
        PathMatch::Method(method) => format!("gRPC method {method}"),
    };
    let method = conditions.method.iter().map(|method| method.to_string());
    let headers = conditions
        .headers
        .iter()
        .map(|header| format!("header {} {}", header.name, wanted(&header.value)));
    let queries = conditions
        .queries
        .iter()
        .map(|query| format!("query {} {}", query.name, wanted(&query.value)));
    let all = std::iter::once(path)
        .chain(method)
        .chain(headers)
        .chain(queries);
    all.collect::<Vec<_>>().join(", ")
}

fn wanted(value: &ValueMatch) -> String {
    match value {
        ValueMatch::Exact(value) => format!("= {value}"),
        ValueMatch::Regex(regex) => format!("~ {}", bare(regex)),
    }
}

/// As it was written, without the anchors of a whole match.
fn bare(regex: &regex::bytes::Regex) -> &str {
    let text = regex.as_str();
    let inner = text
        .strip_prefix(r"\A(?:")
        .and_then(|rest| rest.strip_suffix(r")\z"));
    inner.unwrap_or(text)
}

/// What a backend is asked for: `GET /path`, and the host it is called by.
pub fn asked(head: &RequestHead) -> String {
    let (target, host) = (text(head.path_and_query()), text(head.authority()));
    format!("{} {target} as {host}", head.method.as_str())
}

/// Which operation of a service's interface serves a request.
pub fn operation(service: &Service, head: &RequestHead) -> String {
    let (interface, unusable) = Interface::read(&service.api);
    if let Some(unusable) = unusable.first() {
        return unusable.to_string();
    }
    let (method, path) = (head.method.as_str(), head.path());
    match interface.serving(&method, path) {
        Some(serving) => match &serving.name {
            Some(name) => format!("{serving}, {name}"),
            None => serving.to_string(),
        },
        None => format!(
            "no operation serves this; there are {}",
            interface.nearest(&text(path), OPERATIONS_MAX)
        ),
    }
}

pub fn retry(retry: &model::Retry) -> String {
    let codes: Vec<String> = retry.codes.iter().map(u16::to_string).collect();
    let codes = match codes.is_empty() {
        true => String::new(),
        false => format!(" and for {}", codes.join(", ")),
    };
    let plural = if retry.attempts_max == 1 { "y" } else { "ies" };
    format!(
        "{} retr{plural}, after {:?} and longer, where no connection is made{codes}",
        retry.attempts_max, retry.backoff
    )
}

pub fn session(persistence: &Persistence) -> String {
    let kind = match persistence.model.carrier {
        SessionCarrier::Cookie { .. } => "cookie",
        SessionCarrier::Header => "header",
    };
    format!(
        "{kind} {} keeps a client at its endpoint, before the shares below",
        persistence.name
    )
}

pub fn hedge(hedge: &model::Hedge) -> String {
    let after = match hedge.after {
        HedgeAfter::P95 => "once 95 % of answers would have come".to_owned(),
        HedgeAfter::Fixed(after) => format!("after {after:?}"),
    };
    format!(
        "a second endpoint is asked {after}, for {} % at most",
        hedge.extra_percent
    )
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
