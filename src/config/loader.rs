//! Sources to a snapshot, again and again: only documents whose text changed are parsed again.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::sync::Arc;

use foldhash::quality::RandomState;

use super::compile::{Cache, Placed, compile, interfaces};
use super::list;
use super::problem::{Page, Problem, Severity};
use super::source::Source;
use super::spec::Document;
use crate::model::Snapshot;

/// Reads sources into snapshots and remembers what it read.
#[derive(Default)]
pub struct Loader {
    documents: HashMap<TextKey, Arc<Document>>,
    hashers: (RandomState, RandomState),
    compiled: Cache,
    revision: u64,
}

/// A snapshot, and what else there is to say about its documents: warnings, notes, and errors that do not stand against it.
#[derive(Debug)]
pub struct Loaded {
    pub snapshot: Snapshot,
    pub remarks: Vec<Problem>,
}

/// A document's text, told from any other by 128 bits of two seeded hashes.
type TextKey = (u64, u64);

impl Loader {
    pub fn new() -> Self {
        Self::default()
    }

    /// The snapshot of these sources, or every problem that stands against it; the order of sources does not matter.
    ///
    /// A document in a file (or text) takes the place of the registry's of the same kind, namespace and name.
    pub fn load(&mut self, sources: &[Source]) -> Result<Loaded, Vec<Problem>> {
        let (mut snapshot, problems) = self.judge(sources);
        if problems.iter().any(Problem::stands_against) {
            return Err(problems);
        }
        self.revision += 1;
        snapshot.revision = self.revision;
        Ok(Loaded {
            snapshot,
            remarks: problems,
        })
    }

    /// Every problem, warning and note of these sources taken together.
    pub fn problems(&mut self, sources: &[Source]) -> Vec<Problem> {
        self.judge(sources).1
    }

    /// What there is of a snapshot, whatever stands against it, and every problem.
    pub fn judge(&mut self, sources: &[Source]) -> (Snapshot, Vec<Problem>) {
        let placed = self.read(sources);
        let (snapshot, mut problems) = compile(&placed, &mut self.compiled);
        Problem::arrange(&mut problems);
        (snapshot, problems)
    }

    /// As [`Self::judge`], and what the interfaces of services say of the routes to them; their files are read for it.
    pub fn judge_by_interfaces(&mut self, sources: &[Source]) -> (Snapshot, Vec<Problem>) {
        let placed = self.read(sources);
        let (snapshot, mut problems) = compile(&placed, &mut self.compiled);
        problems.extend(interfaces(&placed, &snapshot));
        Problem::arrange(&mut problems);
        (snapshot, problems)
    }

    /// Every problem of `current` as it would be with `changed` in it, which takes the place of those of the same kind,
    /// namespace and name; leave out of `current` what is to be deleted. `current` is the registry's ([`Source::registry`]),
    /// `changed` is not.
    pub fn problems_of_change(&mut self, current: &[Source], changed: &[Source]) -> Vec<Problem> {
        let mut problems = self.problems(&[current, changed].concat());
        // That a changed document replaces the current one is the very point.
        problems.retain(|problem| problem.severity != Severity::Note);
        problems
    }

    fn read<'s>(&mut self, sources: &'s [Source]) -> Vec<Placed<'s>> {
        let mut placed = Vec::new();
        let mut kept = HashMap::with_capacity(self.documents.len());
        for source in sources {
            let file: Arc<str> = source.origin.to_string().into();
            for part in list::parts(&source.text) {
                let key = self.key(source.origin.folder(), &part.text);
                let known = kept.get(&key).or_else(|| self.documents.get(&key));
                let document = known
                    .cloned()
                    .unwrap_or_else(|| Arc::new(Document::read(&part.text)));
                kept.insert(key, Arc::clone(&document));
                placed.push(Placed {
                    origin: &source.origin,
                    page: Page::new(Arc::clone(&file), part.first_line, part.text),
                    document,
                });
            }
        }
        self.documents = kept;
        placed
    }

    /// The folder counts too, as relative paths in a document start from there.
    fn key(&self, folder: &Path, text: &str) -> TextKey {
        let hash = |state: &RandomState| {
            let mut hasher = state.build_hasher();
            hasher.write(folder.as_os_str().as_encoded_bytes());
            hasher.write(text.as_bytes());
            hasher.finish()
        };
        (hash(&self.hashers.0), hash(&self.hashers.1))
    }
}
