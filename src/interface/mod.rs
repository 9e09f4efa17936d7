//! What services offer: the operations that an OpenAPI or proto file declares, and whether one of them serves a request, or may serve
//! what a route matches. `check` and `explain` ask; a proxy sends on what the routes say, whatever an interface has.

mod openapi;
mod path;
mod proto;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use self::path::Template;
use crate::model::PathMatch;

/// Longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The operations of one service.
#[derive(Clone, Debug, Default)]
pub struct Interface {
    operations: Vec<Operation>,
}

#[derive(Clone, Debug)]
pub struct Operation {
    /// As the file calls it, where it does.
    pub name: Option<String>,
    /// Upper case; None is every method.
    method: Option<String>,
    path: Template,
}

/// Why a file declares nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unusable {
    pub file: PathBuf,
    pub message: String,
    pub hint: &'static str,
}

impl Interface {
    /// How its files are called.
    pub const FILES: &str =
        "an interface is `*.proto`, or OpenAPI in `*.yaml`, `*.yml` or `*.json`";

    pub fn is_one(file: &Path) -> bool {
        format(file).is_some()
    }

    /// The operations of some files together: `*.proto`, and OpenAPI in YAML or JSON. Those that are wrong are told, and left out.
    pub fn read(files: &[PathBuf]) -> (Self, Vec<Unusable>) {
        let mut all = Self::default();
        let mut unusable = Vec::new();
        for file in files {
            match operations(file) {
                Ok(operations) => all.operations.extend(operations),
                Err((message, hint)) => unusable.push(Unusable {
                    file: file.clone(),
                    message,
                    hint,
                }),
            }
        }
        (all, unusable)
    }

    /// The operation for a request: its path without the query, and its method. HEAD is served where GET is (RFC 9110, section 9.3.2).
    /// Of several, the one whose path has the fewest parameters, as OpenAPI says.
    pub fn serving(&self, method: &str, path: &[u8]) -> Option<&Operation> {
        let serving = self.operations.iter();
        let serving = serving.filter(|one| one.is_for(method) && one.path.matches(path));
        serving.max_by_key(|one| Reverse(one.path.parameters()))
    }

    /// Whether there is a request of these that an operation serves. A regular expression is asked about paths without parameters only;
    /// with one in its path, an operation is taken to serve it.
    pub fn may_serve(&self, method: Option<&str>, path: &PathMatch) -> bool {
        let mut operations = self.operations.iter();
        operations
            .any(|one| method.is_none_or(|method| one.is_for(method)) && one.path.has_one_of(path))
    }

    /// Those nearest to a path, which share most of their beginning with it, in words: `GET /carts, POST /carts and 3 more`.
    pub fn nearest(&self, path: &str, most: usize) -> String {
        let mut operations: Vec<&Operation> = self.operations.iter().collect();
        operations.sort_by_cached_key(|one| Reverse(one.path.shared_with(path)));
        let named = operations.iter().take(most).map(|one| one.to_string());
        let named = named.collect::<Vec<_>>().join(", ");
        match operations.len().saturating_sub(most) {
            0 => named,
            more => format!("{named} and {more} more"),
        }
    }
}

impl Operation {
    fn is_for(&self, method: &str) -> bool {
        let own = self.method.as_deref();
        own.is_none_or(|own| own == method || own == "GET" && method == "HEAD")
    }
}

/// `GET /carts/{id}`
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method.as_deref().unwrap_or("*"), self.path)
    }
}

/// `shop.proto: cannot be read: …`
impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.message)
    }
}

/// What is wrong, and what to do about it.
type Wrong = (String, &'static str);

/// What a file is in, by its name.
enum Format {
    Proto,
    OpenApi,
}

fn format(file: &Path) -> Option<Format> {
    match file.extension()?.to_str()? {
        "proto" => Some(Format::Proto),
        "yaml" | "yml" | "json" => Some(Format::OpenApi),
        _ => None,
    }
}

fn operations(file: &Path) -> Result<Vec<Operation>, Wrong> {
    let text = text(file)?;
    let operations = match format(file) {
        Some(Format::Proto) => proto::operations(&file.display().to_string(), &text)?,
        Some(Format::OpenApi) => openapi::operations(&text)?,
        None => return Err(("is no interface".to_owned(), Interface::FILES)),
    };
    match operations.is_empty() {
        true => Err((
            "declares no operation".to_owned(),
            "an interface has operations under `paths`, or a proto `service`",
        )),
        false => Ok(operations),
    }
}

fn text(file: &Path) -> Result<String, Wrong> {
    let unreadable = |error| {
        (
            format!("cannot be read: {error}"),
            "a relative path starts from the folder of the document's file",
        )
    };
    let length = fs::metadata(file).map_err(unreadable)?.len();
    if length > FILE_BYTES_MAX {
        let hint = "leave out what is no operation";
        return Err((
            format!("has {length} bytes, and at most {FILE_BYTES_MAX} are read"),
            hint,
        ));
    }
    fs::read_to_string(file).map_err(unreadable)
}
