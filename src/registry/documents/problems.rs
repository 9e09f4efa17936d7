//! Judging the mesh as it would be after a change.

use std::sync::Arc;

use crate::api::{Problem, Severity, Snippet};
use crate::config::{self, Source};
use crate::registry::Registry;

/// What the rules say: warnings of what may be applied, or everything that stands against it.
pub type Verdict = Result<Vec<Problem>, Vec<Problem>>;

impl Registry {
    /// `sources` is the whole mesh. Only documents it has not read before are read.
    pub(super) fn judge(&self, sources: &[Source]) -> Verdict {
        let problems = self.documents.loader().problems(sources);
        // A sidecar takes what refers to nothing, as it may have to; whoever writes it is told.
        let verdict = match problems.iter().any(config::Problem::is_error) {
            false => Ok,
            true => Err,
        };
        verdict(wire(problems.into_iter().filter(is_remark)))
    }
}

impl Registry {
    /// What became of every document that has a status, of this kind and namespace.
    pub fn conditions(&self, kind: Option<&str>, namespace: Option<&str>) -> serde_json::Value {
        let (documents, revision) = {
            let view = self.view.state();
            (view.documents.clone(), view.documents_revision)
        };
        let sources: Vec<Source> = documents.values().map(|one| source(one)).collect();
        let (snapshot, _) = self.documents.loader().judge(&sources);
        let fits = |wanted: Option<&str>, is: &str| wanted.is_none_or(|wanted| wanted == is);
        let shown = snapshot
            .statuses
            .into_iter()
            .filter(|status| fits(kind, status.kind) && fits(namespace, &status.name.namespace));
        let shown: Vec<_> = shown.collect();
        serde_json::json!({"revision": revision, "documents": config::status::to_json(&shown)})
    }
}

/// That the new text of a document replaces the registry's is the point, not worth a note.
fn is_remark(problem: &config::Problem) -> bool {
    problem.severity != config::Severity::Note
}

pub fn wire(problems: impl IntoIterator<Item = config::Problem>) -> Vec<Problem> {
    problems.into_iter().map(problem).collect()
}

fn problem(problem: config::Problem) -> Problem {
    Problem {
        severity: match problem.severity {
            config::Severity::Error => Severity::Error,
            config::Severity::Warning => Severity::Warning,
            config::Severity::Note => Severity::Note,
        },
        file: Some(problem.file).filter(|file| !file.is_empty()),
        line: Some(problem.line).filter(|line| *line > 0),
        column: Some(problem.column).filter(|column| *column > 0),
        path: problem.path,
        message: problem.message,
        reason: problem.reason,
        hint: problem.hint,
        snippet: problem.snippet.map(|snippet| Snippet {
            text: snippet.text,
            from: snippet.from,
            length: snippet.length,
        }),
    }
}

/// A document of the registry as the rules read it.
pub fn source(document: &crate::api::Document) -> Source {
    let key = &document.key;
    let text: Arc<str> = document.text.as_str().into();
    Source::registry(
        &key.kind,
        &key.namespace,
        &key.name,
        document.revision,
        text,
    )
}
