//! Whether files have changed, by what the file system says of them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files and what they looked like at the last look. Symbolic links are followed, so a swapped link is a change.
#[derive(Debug)]
pub struct Files {
    seen: Vec<(PathBuf, Option<Stamp>)>,
}

/// Differs once another file is there or the file has been written.
#[derive(PartialEq, Eq, Debug)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Files {
    /// To be made before the files are read: a change in between is then seen at the first look.
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let look = |path: &Path| (path.to_owned(), stamp(path));
        Self {
            seen: paths.into_iter().map(look).collect(),
        }
    }

    /// Whether any differs from the last look.
    pub fn changed(&mut self) -> bool {
        let mut changed = false;
        for (path, seen) in &mut self.seen {
            let now = stamp(path);
            changed |= *seen != now;
            *seen = now;
        }
        changed
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    })
}
