//! Judging documents without loading them, for the registry and `check`.

use super::list;
use super::loader::Loader;
use super::problem::{Page, Problem};
use super::source::Source;
use super::spec::Document;

/// One document of a text: who it is, and its own text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DocumentId {
    /// As in `kind`, but `Service.v1` for Kubernetes' own.
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
    /// The line of the whole text, from 1, on which `text` begins.
    pub first_line: u32,
    pub text: String,
}

/// The documents of a multi-document text, or what stands against telling them apart.
///
/// Only what says who a document is must be right; [`validate`] judges the rest. `origin` is what problems call the text.
pub fn document_identities(origin: &str, text: &str) -> Result<Vec<DocumentId>, Vec<Problem>> {
    let mut identities = Vec::new();
    let mut problems = Vec::new();
    for part in list::parts(text) {
        let document = Document::read(&part.text);
        match document.head {
            Some(head) => identities.push(DocumentId {
                kind: head.identity.kind.as_str(),
                namespace: head.identity.name.namespace.to_string(),
                name: head.identity.name.name.to_string(),
                first_line: part.first_line + blank_lines(&part.text),
                text: outdented(&part.text),
            }),
            None => {
                let page = Page::new(origin, part.first_line, part.text);
                problems.extend(
                    document
                        .findings
                        .iter()
                        .map(|finding| page.problem(finding)),
                );
            }
        }
    }
    if problems.is_empty() {
        return Ok(identities);
    }
    Problem::arrange(&mut problems);
    Err(problems)
}

/// Without the columns that an item of a list stands in, and the empty lines around it.
fn outdented(text: &str) -> String {
    let text = text.trim_matches(['\n', '\r']);
    let indent = text.len() - text.trim_start_matches(' ').len();
    let lines = text.lines().map(|line| {
        let own = line.len() - line.trim_start_matches(' ').len();
        &line[own.min(indent)..]
    });
    match indent {
        0 => text.to_owned() + "\n",
        _ => lines.flat_map(|line| [line, "\n"]).collect(),
    }
}

/// How many empty lines stand before anything else.
fn blank_lines(text: &str) -> u32 {
    let blank = text.len() - text.trim_start_matches(['\n', '\r']).len();
    text[..blank].bytes().filter(|byte| *byte == b'\n').count() as u32
}

/// Every problem, warning and note of these sources taken together; [`Loader::problems`] is for doing it again and again.
pub fn validate(sources: &[Source]) -> Vec<Problem> {
    Loader::new().problems(sources)
}

/// As [`Loader::problems_of_change`], once.
pub fn validate_change(current: &[Source], changed: &[Source]) -> Vec<Problem> {
    Loader::new().problems_of_change(current, changed)
}
