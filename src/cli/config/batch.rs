//! A change as the requests that carry it: whole where it fits one, else in several.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::super::client::Failure;
use crate::api::ClientError;
use crate::config::{self, DocumentId, Source, source};

/// Documents of one request, below what a registry takes; a larger change goes in several.
const TOGETHER: usize = 100;
const TOGETHER_BYTES: usize = 384 << 10;

/// Every document of files and folders; `-` is standard input.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(|error| Failure::Other(format!("standard input: {error}")))?;
            sources.push(Source::text("standard input", text));
        } else {
            sources.extend(source::read(path).map_err(Failure::Problems)?);
        }
    }
    Ok(sources)
}

/// The text of one request, and where its parts come from.
#[derive(Default)]
pub struct Batch {
    pub text: String,
    documents: usize,
    /// The first line of each part here, its file, and its first line there.
    parts: Vec<(u32, String, u32)>,
}

impl Batch {
    /// Whole files as they are where they fit one request, else documents in an order in which each finds what it refers to.
    pub fn of(sources: &[Source]) -> Result<Vec<Self>, Failure> {
        let mut documents: Vec<(&Source, DocumentId)> = Vec::new();
        let mut problems = Vec::new();
        for source in sources {
            match config::document_identities(&source.origin.to_string(), &source.text) {
                Ok(found) => documents.extend(found.into_iter().map(|document| (source, document))),
                Err(found) => problems.extend(found),
            }
        }
        if !problems.is_empty() {
            return Err(Failure::Problems(problems));
        }
        let bytes: usize = sources.iter().map(|source| source.text.len() + 8).sum();
        if documents.len() <= TOGETHER && bytes <= TOGETHER_BYTES {
            let mut batch = Batch::default();
            sources
                .iter()
                .for_each(|source| batch.add(&source.origin.to_string(), &source.text, 1));
            return Ok(if documents.is_empty() {
                Vec::new()
            } else {
                vec![batch]
            });
        }
        documents.sort_by_key(|(_, document)| rank(document.kind));
        let mut batches: Vec<Batch> = Vec::new();
        for (source, document) in documents {
            let fits = |batch: &&mut Batch| {
                batch.documents < TOGETHER
                    && batch.text.len() + document.text.len() < TOGETHER_BYTES
            };
            let origin = source.origin.to_string();
            match batches.last_mut().filter(fits) {
                Some(batch) => batch.add(&origin, &document.text, document.first_line),
                None => {
                    let mut batch = Batch::default();
                    batch.add(&origin, &document.text, document.first_line);
                    batches.push(batch);
                }
            }
        }
        Ok(batches)
    }

    fn add(&mut self, origin: &str, text: &str, first_line: u32) {
        if !self.text.is_empty() {
            if !self.text.ends_with('\n') {
                self.text.push('\n');
            }
            self.text.push_str("---\n");
        }
        let line = self.text.matches('\n').count() as u32 + 1;
        self.parts.push((line, origin.to_owned(), first_line));
        self.text.push_str(text);
        self.documents += 1;
    }

    /// Problems of the request become problems of the files it was made of.
    pub fn relocate(&self, failure: Failure) -> Failure {
        let Failure::Client(ClientError::Refused { status, mut error }) = failure else {
            return failure;
        };
        for problem in &mut error.problems {
            let Some(line) = problem
                .line
                .filter(|_| problem.file.as_deref() == Some("request"))
            else {
                continue;
            };
            if let Some((first, file, there)) =
                self.parts.iter().rev().find(|(first, ..)| *first <= line)
            {
                problem.file = Some(file.clone());
                problem.line = Some(line - first + there);
            }
        }
        Failure::Client(ClientError::Refused { status, error })
    }
}

/// What others refer to comes first.
fn rank(kind: &str) -> u8 {
    match kind {
        "Service" | "Service.v1" | "ReferenceGrant" | "GatewayClass" | "Namespace"
        | "ConfigMap" | "Secret" => 0,
        "Gateway" | "BackendTLSPolicy" | "EndpointSlice" => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_of_a_request_are_told_in_the_files_it_was_made_of() {
        let mut batch = Batch::default();
        batch.add("a.yaml", "kind: Service\nname: a", 1);
        batch.add("b.yaml", "kind: Service\nname: b\nports: x\n", 10);
        let problem = crate::api::Problem {
            file: Some("request".into()),
            line: Some(6),
            ..Default::default()
        };
        let error = crate::api::ErrorDetail {
            problems: vec![problem],
            ..Default::default()
        };
        let refused = ClientError::Refused {
            status: http::StatusCode::UNPROCESSABLE_ENTITY,
            error: Box::new(error),
        };
        let Failure::Client(ClientError::Refused { error, .. }) =
            batch.relocate(Failure::Client(refused))
        else {
            panic!("another failure");
        };
        assert_eq!(
            (error.problems[0].file.as_deref(), error.problems[0].line),
            (Some("b.yaml"), Some(12))
        );
    }

    #[test]
    fn a_large_mesh_goes_in_several_requests_services_first() {
        let route = |n| format!("kind: HTTPRoute\nname: r{n}\n---\n");
        let service = |n| format!("kind: Service\nname: s{n}\n---\n");
        let text: String = (0..80).map(route).chain((0..80).map(service)).collect();
        let batches = Batch::of(&[Source::text("mesh", text)]).unwrap();
        assert_eq!(
            batches
                .iter()
                .map(|batch| batch.documents)
                .collect::<Vec<_>>(),
            [100, 60]
        );
        assert!(batches[0].text.starts_with("kind: Service"));
        // The first service is the 81st document, and its name begins like those of others.
        assert_eq!(batches[0].parts[0], (1, "mesh".to_owned(), 241));
        assert!(batches[1].text.starts_with("kind: HTTPRoute"));
    }
}
