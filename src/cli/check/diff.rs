//! `pillion check --diff OLD NEW --requests FILE`: which recorded requests would fare otherwise.
//!
//! Lines of the access log are asked of both sets of documents (see [`explain`]). A line has no header fields, so rules that look at
//! them are judged as for a request without any; that is told.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::config::{Loader, Problem, source};
use crate::explain::{
    self, Asked, At, Backend, Explained, Known, Outcome, Question, QuestionError, Standpoint,
};
use crate::model::{Name, Snapshot};

/// Different kinds of change that are told; the others only count.
const KINDS_MAX: usize = 50;

/// What of a line says what was asked for.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    listener: String,
    #[serde(default)]
    method: String,
    #[serde(default)]
    authority: String,
    #[serde(default)]
    path: String,
}

/// What came of the comparison.
#[derive(Default)]
pub struct Differences {
    requests: usize,
    /// Lines that are no request through a gateway or out of a sidecar.
    left_out: usize,
    changed: usize,
    kinds: BTreeMap<(String, String), Kind>,
}

/// Requests that change in the same way.
struct Kind {
    count: usize,
    example: String,
}

#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    #[error("{0}")]
    Problems(String),
    #[error("{}: {error}", path.display())]
    Requests { path: PathBuf, error: io::Error },
}

/// Asks every request of a file of both sets of documents. `namespace` is that of the applications behind sidecars.
pub fn compare(
    old: &Path,
    new: &Path,
    requests: &Path,
    namespace: &str,
) -> Result<Differences, DiffError> {
    let (old, new) = (snapshot(old)?, snapshot(new)?);
    let failed = |error| DiffError::Requests {
        path: requests.to_owned(),
        error,
    };
    let file = std::fs::File::open(requests).map_err(failed)?;
    let mut differences = Differences::default();
    for line in BufReader::new(file).lines() {
        let line = line.map_err(failed)?;
        if line.trim().is_empty() {
            continue;
        }
        let question = serde_json::from_str(&line)
            .ok()
            .and_then(|line| standing(line, namespace));
        match question {
            Some((asked, from)) => differences.add(&old, &new, &asked, &from),
            None => differences.left_out += 1,
        }
    }
    Ok(differences)
}

fn snapshot(path: &Path) -> Result<Snapshot, DiffError> {
    let loaded = source::read(path).and_then(|mut sources| {
        sources.retain(|source| crate::config::bootstrap::recognise(&source.text).is_none());
        Loader::new().load(&sources)
    });
    let render = |problems: Vec<Problem>| {
        DiffError::Problems(crate::config::problem::render(&problems, false))
    };
    loaded.map(|loaded| loaded.snapshot).map_err(render)
}

/// The question that a line is, and where it was asked.
fn standing(line: Line, namespace: &str) -> Option<(Asked, Standpoint)> {
    if line.method.is_empty() || line.authority.is_empty() || !line.path.starts_with('/') {
        return None;
    }
    let from = match line.listener.split('/').collect::<Vec<_>>()[..] {
        ["outbound"] => Standpoint::Namespace(namespace.to_owned()),
        [namespace, gateway, _] => Standpoint::Outside {
            gateway: Some(Name::new(namespace, gateway)),
        },
        _ => return None,
    };
    let asked = Asked {
        request: format!("{} http://{}{}", line.method, line.authority, line.path),
        ..Asked::default()
    };
    Some((asked, from))
}

impl Differences {
    pub fn any(&self) -> bool {
        self.changed > 0
    }

    fn add(&mut self, old: &Snapshot, new: &Snapshot, asked: &Asked, from: &Standpoint) {
        let (Ok(before), Ok(after)) = (fare(old, asked, from), fare(new, asked, from)) else {
            self.left_out += 1;
            return;
        };
        self.requests += 1;
        if before == after {
            return;
        }
        self.changed += 1;
        let kind = self.kinds.entry((before, after)).or_insert_with(|| Kind {
            count: 0,
            example: asked.request.clone(),
        });
        kind.count += 1;
    }

    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let mut kinds: Vec<_> = self.kinds.iter().collect();
        kinds.sort_by_key(|(_, kind)| std::cmp::Reverse(kind.count));
        for ((before, after), Kind { count, example }) in kinds.iter().take(KINDS_MAX) {
            let plural = if *count == 1 { "" } else { "s" };
            writeln!(out, "{count} request{plural}, such as {example}")?;
            for line in before.lines().filter(|line| !has_line(after, line)) {
                writeln!(out, "  - {line}")?;
            }
            for line in after.lines().filter(|line| !has_line(before, line)) {
                writeln!(out, "  + {line}")?;
            }
        }
        if kinds.len() > KINDS_MAX {
            writeln!(out, "and {} more kinds of change", kinds.len() - KINDS_MAX)?;
        }
        let (changed, requests) = (self.changed, self.requests);
        writeln!(out, "{changed} of {requests} requests would fare otherwise")?;
        if self.left_out > 0 {
            let left_out = self.left_out;
            writeln!(
                out,
                "{left_out} lines left out: no requests that are routed"
            )?;
        }
        writeln!(
            out,
            "header fields are not in the log, and were taken as absent"
        )
    }
}

fn has_line(text: &str, line: &str) -> bool {
    text.lines().any(|other| other == line)
}

/// What becomes of a request, as lines that are compared: what decides, and what changes on the way.
fn fare(snapshot: &Snapshot, asked: &Asked, from: &Standpoint) -> Result<String, QuestionError> {
    let known = Known {
        endpoints: &|key| explain::documented(snapshot, key),
        interfaces: false,
    };
    let ask = |request: &str| {
        let question = Question::parse(request, [], from.clone())?;
        Ok(explain::explain(snapshot, &question, known))
    };
    let told = ask(&asked.request)?;
    // The log does not say whether it was in TLS.
    if matches!(told.at, At::Nowhere { .. }) {
        let secure = ask(&asked.request.replacen("http://", "https://", 1))?;
        return Ok(lines(&secure));
    }
    Ok(lines(&told))
}

fn lines(told: &Explained) -> String {
    let mut lines = vec![told.outcome.to_string()];
    if let Some(rule) = &told.rule {
        let effects = rule.filters.iter().flat_map(|one| {
            let filter = one.filter;
            one.effects
                .iter()
                .map(move |effect| format!("{filter}: {effect}"))
        });
        lines.extend(effects);
        let limits = [rule.request_timeout_ms, rule.backend_request_timeout_ms];
        lines.extend(
            limits
                .into_iter()
                .flatten()
                .map(|limit| format!("timeout {limit} ms")),
        );
        lines.extend(rule.retry.clone());
    }
    if told.outcome == Outcome::Forwarded {
        lines.extend(
            told.backends
                .iter()
                .filter(|one| one.weight > 0)
                .map(backend),
        );
    }
    lines.join("\n")
}

fn backend(backend: &Backend) -> String {
    let to = match (&backend.cluster, &backend.invalid) {
        (Some(cluster), _) => format!("{cluster}, asked for {}", backend.asked),
        (None, why) => format!("500: {}", why.as_deref().unwrap_or_default()),
    };
    let effects: Vec<String> = backend
        .filters
        .iter()
        .flat_map(|one| one.effects.clone())
        .collect();
    match effects.is_empty() {
        true => format!("{:.1} % {to}", backend.share_percent),
        false => format!(
            "{:.1} % {to} ({})",
            backend.share_percent,
            effects.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh(folder: &Path, name: &str, backends: &str) -> PathBuf {
        let path = folder.join(name);
        let text = format!(
            "kind: Gateway\nname: edge\nlisteners: [{{name: web, port: 80, protocol: HTTP}}]\n---\n\
             kind: HTTPRoute\nname: shop\nhostnames: [shop.test]\nparentRefs: [{{name: edge}}]\nrules:\n  \
             - {{matches: [{{path: {{value: /cart}}}}], backendRefs: [{backends}]}}\n---\n\
             {{kind: Service, name: a}}\n---\n{{kind: Service, name: b}}\n"
        );
        std::fs::write(&path, text).expect("written");
        path
    }

    #[test]
    fn requests_that_fare_otherwise_are_grouped_by_how() {
        let folder = tempfile::tempdir().expect("a folder");
        let old = mesh(folder.path(), "old.yaml", "{name: a}");
        let new = mesh(
            folder.path(),
            "new.yaml",
            "{name: a, weight: 3}, {name: b, weight: 1}",
        );
        let line = |path: &str| {
            format!(
                r#"{{"listener":"default/edge/web","method":"GET","authority":"shop.test","path":"{path}","status":200}}"#
            )
        };
        let log = [
            line("/cart"),
            line("/cart/1?x"),
            line("/other"),
            "no JSON".to_owned(),
            String::new(),
        ];
        let requests = folder.path().join("access.log");
        std::fs::write(&requests, log.join("\n")).expect("written");
        let differences = compare(&old, &new, &requests, "default").expect("compared");
        assert!(differences.any());
        let mut text = Vec::new();
        differences.print(&mut text).expect("in memory");
        let text = String::from_utf8(text).expect("text");
        assert!(
            text.contains("2 of 3 requests would fare otherwise"),
            "{text}"
        );
        assert!(
            text.contains("  - 100.0 % default/a, asked for GET /cart as shop.test"),
            "{text}"
        );
        assert!(
            text.contains("  + 25.0 % default/b, asked for GET /cart as shop.test"),
            "{text}"
        );
        assert!(text.contains("1 lines left out"), "{text}");
        let same = compare(&old, &old, &requests, "default").expect("compared");
        assert!(!same.any());
    }
}
