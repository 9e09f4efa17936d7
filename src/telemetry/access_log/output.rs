//! Where lines go, and finding out that a file was renamed under us.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::AccessLogError;

#[derive(Debug)]
pub enum Sink {
    Stdout,
    File { path: PathBuf, file: File },
}

impl Sink {
    pub fn open(output: super::Output) -> Result<Self, AccessLogError> {
        match output {
            super::Output::Stdout => Ok(Self::Stdout),
            super::Output::File(path) => match append_to(&path) {
                Ok(file) => Ok(Self::File { path, file }),
                Err(error) => Err(AccessLogError::Open { path, error }),
            },
        }
    }

    pub fn write_all(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines)?;
                stdout.flush()
            }
            Self::File { file, .. } => file.write_all(lines),
        }
    }

    /// Opens the path anew, where that gives another file than the open one. A path that cannot be opened keeps the old.
    pub fn follow_rename(&mut self) -> io::Result<()> {
        let Self::File { path, file } = self else {
            return Ok(());
        };
        let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        let named = std::fs::metadata(&*path).map(identity).ok();
        if named != Some(identity(file.metadata()?)) {
            *file = append_to(path)?;
        }
        Ok(())
    }
}

fn append_to(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}
