//! Where mesh documents come from: files, and the registry.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::problem::Problem;

/// Longest file that is read.
pub const FILE_BYTES_MAX: u64 = 256 << 20;

/// A text of mesh documents, and where it comes from.
#[derive(Clone, Debug)]
pub struct Source {
    pub origin: Origin,
    pub text: Arc<str>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A file as it was named; relative paths in it start from its folder.
    File(PathBuf),
    /// One document of the registry, named as `HTTPRoute default/cart`.
    Registry { document: String, revision: u64 },
    /// A text that was handed over, such as the body of a request, under the name problems call it by.
    Text(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path) => path.display().fmt(f),
            Origin::Registry { document, .. } => write!(f, "registry {document}"),
            Origin::Text(name) => f.write_str(name),
        }
    }
}

impl Origin {
    pub(super) fn is_registry(&self) -> bool {
        matches!(self, Origin::Registry { .. })
    }

    /// The folder that relative paths in the text start from; empty is the process's own.
    pub(super) fn folder(&self) -> &Path {
        match self {
            Origin::File(path) => path.parent().unwrap_or(Path::new("")),
            Origin::Registry { .. } | Origin::Text(_) => Path::new(""),
        }
    }
}

impl Source {
    pub fn file(path: impl Into<PathBuf>, text: impl Into<Arc<str>>) -> Self {
        Self {
            origin: Origin::File(path.into()),
            text: text.into(),
        }
    }

    pub fn registry(
        kind: &str,
        namespace: &str,
        name: &str,
        revision: u64,
        text: impl Into<Arc<str>>,
    ) -> Self {
        let document = format!("{kind} {namespace}/{name}");
        Self {
            origin: Origin::Registry { document, revision },
            text: text.into(),
        }
    }

    pub fn text(name: impl Into<String>, text: impl Into<Arc<str>>) -> Self {
        Self {
            origin: Origin::Text(name.into()),
            text: text.into(),
        }
    }
}

/// Reads a file, or every `*.yaml` and `*.yml` of a folder (not of its folders), sorted by name.
pub fn read(path: &Path) -> Result<Vec<Source>, Vec<Problem>> {
    let files = files(path).map_err(|error| vec![unreadable(path, &error)])?;
    let mut sources = Vec::new();
    let mut problems = Vec::new();
    for file in files {
        match read_file(&file) {
            Ok(source) => sources.push(source),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        Ok(sources)
    } else {
        Err(problems)
    }
}

/// The files that [`read`] reads.
pub fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        // Hidden files are editors' and Kubernetes' own; a link that leads nowhere is told when it is read.
        let hidden = file
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let yaml = file
            .extension()
            .is_some_and(|end| end == "yaml" || end == "yml");
        if yaml && !hidden && !file.is_dir() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

#[expect(
    clippy::result_large_err,
    reason = "a problem is made once, and is for the user"
)]
fn read_file(path: &Path) -> Result<Source, Problem> {
    let length = fs::metadata(path)
        .map_err(|error| unreadable(path, &error))?
        .len();
    if length > FILE_BYTES_MAX {
        let message = format!("the file has {length} bytes");
        let hint = format!("split it; at most {FILE_BYTES_MAX} bytes are read");
        return Err(Problem::of_file(path.display().to_string(), message, &hint));
    }
    let bytes = fs::read(path).map_err(|error| unreadable(path, &error))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source::file(path, text)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let message = format!("not UTF-8 at byte {at}");
            Err(Problem::of_file(
                path.display().to_string(),
                message,
                "save it as UTF-8",
            ))
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => "let this user read it",
        _ => "",
    };
    Problem::of_file(
        path.display().to_string(),
        format!("cannot be read: {error}"),
        hint,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_its_yaml_files_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", "notes.txt", ".hidden.yaml"] {
            fs::write(folder.path().join(name), "kind: Service\nname: x\n").unwrap();
        }
        fs::create_dir(folder.path().join("inner.yaml")).unwrap();
        let sources = read(folder.path()).unwrap();
        let names: Vec<String> = sources
            .iter()
            .map(|source| source.origin.to_string())
            .collect();
        let expected =
            ["a.yml", "b.yaml"].map(|name| folder.path().join(name).display().to_string());
        assert_eq!(names, expected);
    }

    #[test]
    fn what_cannot_be_read_is_a_problem_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let missing = read(&folder.path().join("mesh.yaml")).unwrap_err();
        assert!(
            missing[0].message.starts_with("cannot be read"),
            "{missing:?}"
        );
        fs::write(folder.path().join("binary.yaml"), [b'a', 0xff]).unwrap();
        assert_eq!(
            read(folder.path()).unwrap_err()[0].message,
            "not UTF-8 at byte 1"
        );
    }
}
