//! The mesh documents of a process, from files and from the registry, compiled together.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::api::{self, DocumentKey};
use crate::config::{self, Loaded, Loader, Problem, Severity, Source};

/// Where documents come from, as they are now. Compiling leaves the last good snapshot to whoever holds it.
#[derive(Default)]
pub struct Documents {
    loader: Loader,
    path: Option<PathBuf>,
    files: Vec<Source>,
    registry: BTreeMap<(String, String, String), Source>,
}

impl Documents {
    pub fn new(path: Option<PathBuf>) -> Self {
        Self {
            path,
            ..Self::default()
        }
    }

    /// Reads the files again, and compiles everything.
    pub fn reload_files(&mut self) -> Result<Loaded, Vec<Problem>> {
        if let Some(path) = &self.path {
            let files = config::source::read(path)?;
            let before = std::mem::replace(&mut self.files, files);
            return self.compile().inspect_err(|_| self.files = before);
        }
        self.compile()
    }

    /// Takes the registry's changes over, and compiles everything; a refused change is forgotten again.
    pub fn change(
        &mut self,
        changed: &[std::sync::Arc<api::Document>],
        removed: &[DocumentKey],
    ) -> Result<Loaded, Vec<Problem>> {
        let before = self.registry.clone();
        for key in removed {
            self.registry.remove(&identity(key));
        }
        for document in changed {
            let DocumentKey {
                kind,
                namespace,
                name,
            } = &document.key;
            let source = Source::registry(
                kind,
                namespace,
                name,
                document.revision,
                document.text.as_str(),
            );
            self.registry.insert(identity(&document.key), source);
        }
        self.compile().inspect_err(|_| self.registry = before)
    }

    fn compile(&mut self) -> Result<Loaded, Vec<Problem>> {
        let sources: Vec<Source> = self
            .files
            .iter()
            .chain(self.registry.values())
            .cloned()
            .collect();
        self.loader.load(&sources)
    }
}

fn identity(key: &DocumentKey) -> (String, String, String) {
    (key.kind.clone(), key.namespace.clone(), key.name.clone())
}

/// A problem as the registry's API carries it.
pub fn wire_problem(problem: &Problem) -> api::Problem {
    api::Problem {
        severity: match problem.severity {
            Severity::Error => api::Severity::Error,
            Severity::Warning => api::Severity::Warning,
            Severity::Note => api::Severity::Note,
        },
        file: Some(problem.file.clone()),
        line: (problem.line > 0).then_some(problem.line),
        column: (problem.line > 0).then_some(problem.column),
        path: problem.path.clone(),
        message: problem.message.clone(),
        reason: problem.reason.clone(),
        hint: problem.hint.clone(),
        snippet: problem.snippet.as_ref().map(|snippet| api::Snippet {
            text: snippet.text.clone(),
            from: snippet.from,
            length: snippet.length,
        }),
    }
}
