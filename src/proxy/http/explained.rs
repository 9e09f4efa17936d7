//! `x-mesh-explain: TOKEN` on a request: its answer says where it went and why, in a field of this name, and so does its line in the
//! access log.
//!
//! Only the token of the proxy's administrator is heard. The field never goes on to anybody, heard or not, so that no application
//! and no log learns the token; and whoever says a wrong one is answered as if he had said nothing.

use std::fmt::Write;

use super::exchange::Exchange;
use super::head::{Fields, Known};
use super::respond::quoted;
use crate::proxy::route::{Fate, Mismatch, RequestView, Table};
use crate::proxy::session::Session;

const FIELD: &str = "x-mesh-explain";
/// Candidates that are told; they are those whose path matches.
const CANDIDATES_MAX: usize = 16;

/// What is found out for a request that is to be explained.
#[derive(Default)]
pub struct Explanation {
    taken: String,
    lost: String,
}

/// Takes the field off a request that has it, and hears it where the token is the proxy's.
#[cold]
pub fn ask(session: &Session, fields: &mut Fields, exchange: &mut Exchange) {
    let said = fields.get(Known::XMeshExplain).unwrap_or_default();
    let token = session.worker.settings.admin_token.as_ref();
    if token.is_some_and(|token| is_same(token.as_bytes(), said)) {
        exchange.explanation = Some(Box::default());
    }
    fields.remove(Known::XMeshExplain);
}

/// In a time that tells nothing but whether the lengths agree.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b));
    one.len() == other.len() && std::hint::black_box(differences) == 0
}

impl Explanation {
    /// Which rule of a table a request meets, and why others did not get it.
    #[cold]
    pub fn note<T>(&mut self, table: &Table<T>, request: &impl RequestView) {
        let considered = table.explain(request);
        let by_path = considered
            .iter()
            .filter(|one| !matches!(one.fate, Fate::OtherPath));
        for one in by_path.take(CANDIDATES_MAX) {
            let why = match one.fate {
                Fate::Taken => {
                    self.taken = one.rule.label.to_string();
                    continue;
                }
                Fate::Later | Fate::OtherPath => "later",
                Fate::Mismatch(Mismatch::Method(_)) => "method",
                Fate::Mismatch(Mismatch::Header(header)) => &header.name,
                Fate::Mismatch(Mismatch::Query(query)) => &query.name,
            };
            let comma = if self.lost.is_empty() { "" } else { ", " };
            // Writing to a String does not fail.
            let _ = write!(self.lost, "{comma}{}: {why}", one.rule.label);
        }
    }
}

/// Says it in an answer, and for the log.
#[cold]
pub fn tell(exchange: &mut Exchange, fields: &mut Fields) {
    let Some(explanation) = &exchange.explanation else {
        return;
    };
    let told = told(exchange, explanation);
    fields.push_known(Known::XMeshExplain, FIELD.as_bytes(), told.as_bytes());
    if !exchange.details.is_empty() {
        exchange.details.push_str("; ");
    }
    exchange.details.push_str(&told);
}

/// Members as in RFC 8941 dictionaries, divided by `; `.
fn told(exchange: &Exchange, explanation: &Explanation) -> String {
    let series = exchange.series.as_ref();
    let listener = series.map_or("", |series| series.listener());
    let mut told = format!("listener={}", quoted(listener));
    let mut member = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = write!(told, "; {name}={}", quoted(value));
        }
    };
    member("rule", &explanation.taken);
    member("lost", &explanation.lost);
    member("service", exchange.service.as_deref().unwrap_or_default());
    let endpoint = exchange.endpoint.map(|address| address.to_string());
    member("endpoint", endpoint.as_deref().unwrap_or_default());
    member("details", &exchange.details);
    let _ = write!(told, "; attempts={}", exchange.attempts);
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_token_is_the_same() {
        assert!(is_same(b"secret", b"secret"));
        for other in [&b"secreT"[..], b"secre", b"secrets", b""] {
            assert!(!is_same(b"secret", other));
        }
    }
}
