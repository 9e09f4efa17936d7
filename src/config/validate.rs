//! Judging documents without loading them, for the registry and `check`.

use super::loader::Loader;
use super::problem::{Problem, Severity};
use super::source::Source;
use super::spec::Document;
use super::yaml;

/// One document of a text: who it is, and its own text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DocumentId {
    /// As in `kind`, but `Service.v1` for Kubernetes' own.
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
    pub text: String,
}

/// The documents of a multi-document text, or what stands against telling them apart.
///
/// Only what says who a document is must be right; [`validate`] judges the rest. `origin` is what problems call the text.
pub fn document_identities(origin: &str, text: &str) -> Result<Vec<DocumentId>, Vec<Problem>> {
    let mut identities = Vec::new();
    let mut problems = Vec::new();
    for part in yaml::split(text) {
        let document = Document::read(part.text);
        match document.head {
            Some(head) => identities.push(DocumentId {
                kind: head.identity.kind.as_str(),
                namespace: head.identity.name.namespace.to_string(),
                name: head.identity.name.name.to_string(),
                text: part.text.trim_matches(['\n', '\r']).to_owned() + "\n",
            }),
            None => {
                let findings = document.findings.iter();
                problems
                    .extend(findings.map(|f| f.in_document(origin, part.first_line, part.text)));
            }
        }
    }
    if problems.is_empty() {
        return Ok(identities);
    }
    Problem::arrange(&mut problems);
    Err(problems)
}

/// Every problem, warning and note of these sources taken together.
pub fn validate(sources: &[Source]) -> Vec<Problem> {
    match Loader::new().load(sources) {
        Ok(loaded) => loaded.remarks,
        Err(problems) => problems,
    }
}

/// Every problem of `current` as it would be with `changed` in it, which takes the place of those of the same kind, namespace
/// and name; leave out of `current` what is to be deleted. `current` is the registry's ([`Source::registry`]), `changed` is not.
pub fn validate_change(current: &[Source], changed: &[Source]) -> Vec<Problem> {
    let mut problems = validate(&[current, changed].concat());
    // That a changed document replaces the current one is the very point.
    problems.retain(|problem| problem.severity != Severity::Note);
    problems
}
