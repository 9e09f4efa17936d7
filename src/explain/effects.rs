//! What filters make of a request: the real ones are applied to it; those that go by chance or by a count are told in words.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::facts::{Effect, Outcome};
use crate::model::{Fault, Filter, HeaderModifier, RateLimit, RateLimitKey, RouteMatch, What};
use crate::proxy::filter::{Arrival, Chain, Verdict, Visit};
use crate::proxy::http::head::{Fields, RequestHead};

/// The effects of filters one after another; `head` becomes what the next sees, or the backend.
pub fn effects(
    filters: &[Filter],
    matches: &[RouteMatch],
    arrival: Arrival,
    head: &mut RequestHead,
) -> (Vec<Effect>, Option<Outcome>) {
    let mut told = Vec::with_capacity(filters.len());
    let mut outcome = None;
    for filter in filters {
        let chain = Chain::compile(std::slice::from_ref(filter), matches);
        let effects =
            match filter {
                Filter::RequestHeaders(_) | Filter::UrlRewrite(_) => {
                    let before = head.clone();
                    chain.on_request(head);
                    differences(&before, head)
                }
                Filter::ResponseHeaders(modifier) => on_response(modifier),
                Filter::RequestRedirect(_) | Filter::DirectResponse(_) | Filter::Cors(_) => {
                    let (effects, answered) = answers(&chain, arrival, head);
                    outcome = outcome.or(answered);
                    effects
                }
                Filter::FaultInjection(fault) => {
                    let delay = fault.delay.as_ref().map(|delay| {
                        trouble(delay, "is held back", |time| format!(" for {time:?}"))
                    });
                    let abort = fault.abort.as_ref().map(|abort| {
                        trouble(abort, "is refused", |status| format!(" with {status}"))
                    });
                    delay.into_iter().chain(abort).collect()
                }
                Filter::RateLimit(limit) => vec![rate(limit)],
                Filter::RequestSizeLimit(max) => vec![format!("refuses bodies over {max} bytes")],
                Filter::Compression(compression) => {
                    let codings = compression.codings.iter().map(|coding| coding.as_str());
                    let codings: Vec<&str> = codings.collect();
                    vec![format!(
                        "answers are compressed with {}, as the client takes it",
                        codings.join(", ")
                    )]
                }
            };
        told.push(Effect {
            filter: filter.kind(),
            effects,
        });
    }
    (told, outcome)
}

fn answers(chain: &Chain, arrival: Arrival, head: &RequestHead) -> (Vec<String>, Option<Outcome>) {
    let rng = RefCell::new(fastrand::Rng::with_seed(0));
    let visit = Visit {
        arrival,
        source: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        now: 0,
        rng: &rng,
    };
    let met = chain.meet(head, &visit);
    let mut effects = Vec::new();
    if let Some(grant) = &met.grant {
        let mut fields = Fields::new();
        grant.tell(&mut fields);
        effects.extend(
            fields
                .iter()
                .map(|field| format!("answers say {}", line(field.name, field.value))),
        );
    }
    let Some(Verdict::Answer(answer)) = met.verdict else {
        return (effects, None);
    };
    let location = answer.head.fields.find(b"location").map(text);
    effects.push(match &location {
        Some(location) => format!("answers {} with location: {location}", answer.head.status),
        None => format!("answers {}", answer.head.status),
    });
    let outcome = Outcome::Answered {
        status: answer.head.status,
        location,
        filter: answer.filter.to_owned(),
    };
    (effects, Some(outcome))
}

/// What is asked for otherwise, and which fields come, go and change.
fn differences(before: &RequestHead, after: &RequestHead) -> Vec<String> {
    let mut told = Vec::new();
    for (what, before, after) in [
        ("path", before.path_and_query(), after.path_and_query()),
        ("host", before.authority(), after.authority()),
    ] {
        if before != after {
            told.push(format!("{what}: {} -> {}", text(before), text(after)));
        }
    }
    let (old, new) = (by_name(&before.fields), by_name(&after.fields));
    for (name, values) in &new {
        match old.get(name) {
            Some(before) if before == values => {}
            Some(before) => told.push(format!(
                "{name}: {} -> {}",
                before.join(", "),
                values.join(", ")
            )),
            None => told.push(format!("+ {name}: {}", values.join(", "))),
        }
    }
    let gone = old.iter().filter(|(name, _)| !new.contains_key(*name));
    told.extend(gone.map(|(name, values)| format!("- {name}: {}", values.join(", "))));
    if told.is_empty() {
        told.push("changes nothing here".to_owned());
    }
    told
}

/// `Host` is told apart.
fn by_name(fields: &Fields) -> BTreeMap<String, Vec<String>> {
    let mut named: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for field in fields.iter() {
        let name = text(field.name).to_ascii_lowercase();
        if name != "host" {
            named.entry(name).or_default().push(text(field.value));
        }
    }
    named
}

fn on_response(modifier: &HeaderModifier) -> Vec<String> {
    let set = modifier
        .set
        .iter()
        .map(|(name, value)| format!("answers: {name}: {value}"));
    let add = modifier
        .add
        .iter()
        .map(|(name, value)| format!("answers: + {name}: {value}"));
    let remove = modifier
        .remove
        .iter()
        .map(|name| format!("answers: - {name}"));
    set.chain(add).chain(remove).collect()
}

fn trouble<T>(fault: &Fault<T>, what: &str, told: impl FnOnce(&T) -> String) -> String {
    let share = 100.0 * fault.chance.share();
    match &fault.what {
        What::Fixed(value) => format!("{share} % {what}{}", told(value)),
        What::Said(header) => format!("{share} % {what} as its field {header} says"),
    }
}

fn rate(limit: &RateLimit) -> String {
    let whose = match &limit.key {
        RateLimitKey::All => "of all".to_owned(),
        RateLimitKey::Header(name) => format!("of each value of {name}"),
        RateLimitKey::Source => "of each client's address".to_owned(),
    };
    format!("takes a token from the bucket {whose}; without one, answers 429")
}

fn line(name: &[u8], value: &[u8]) -> String {
    format!("{}: {}", text(name), text(value))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
