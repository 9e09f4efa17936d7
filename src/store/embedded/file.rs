//! Opening the file: whose it is, which format it has, whether it is whole. A file that is there is never made anew.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError};

use super::read;
use super::tables::{LEASES, META, META_FORMAT, META_ID, Tables, number};
use crate::store::{LeaseId, Revision};

/// The layout this version reads and writes.
pub const FORMAT: u64 = 1;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{} is in use by another process; only one registry can have it", path.display())]
    InUse { path: PathBuf },
    #[error(
        "{} has the format {found} of a newer version; this one knows up to {FORMAT}: start the newer version, or restore a backup",
        path.display()
    )]
    Newer { path: PathBuf, found: u64 },
    #[error(
        "{} is damaged ({reason}) and was left as it is: restore a backup, or move it away to begin with an empty registry",
        path.display()
    )]
    Damaged { path: PathBuf, reason: String },
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
}

pub struct Opened {
    pub database: Database,
    pub id: String,
    pub revision: Revision,
    pub leases: HashMap<LeaseId, Duration>,
}

pub fn open(path: &Path, cache_bytes: usize) -> Result<Opened, OpenError> {
    let exists = path.try_exists().map_err(|error| OpenError::Io {
        path: path.to_owned(),
        error,
    })?;
    if !exists {
        create(path, cache_bytes)?;
    }
    let database = guarded(path, || builder(cache_bytes).open(path))?;
    read_meta(database).map_err(|wrong| match wrong {
        Wrong::Format(found) => OpenError::Newer {
            path: path.to_owned(),
            found,
        },
        Wrong::Content(reason) => OpenError::Damaged {
            path: path.to_owned(),
            reason,
        },
    })
}

fn builder(cache_bytes: usize) -> Builder {
    let mut builder = Database::builder();
    // The check reads the file once; without it a changed byte may be met much later, by a panic.
    builder
        .set_cache_size(cache_bytes)
        .set_check_integrity_on_open(true);
    builder
}

/// Makes the file under another name first, so that a half-made one is never met under its own.
fn create(path: &Path, cache_bytes: usize) -> Result<(), OpenError> {
    let io = |error| OpenError::Io {
        path: path.to_owned(),
        error,
    };
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let database = guarded(&draft, || builder(cache_bytes).create(&draft))?;
    initialize(&database).map_err(|error| io(io::Error::other(error)))?;
    drop(database);
    std::fs::rename(&draft, path).map_err(io)?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(io)
}

pub fn initialize(database: &Database) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut tables = Tables::open(&write)?;
        let id = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        tables.set_meta(META_ID, id.as_bytes())?;
        tables.set_meta(META_FORMAT, &FORMAT.to_be_bytes())?;
        tables.set_revision(0)?;
    }
    write.commit()?;
    Ok(())
}

/// Opens, and makes of every way it can fail, panics in the engine included, an error that says what to do.
fn guarded(
    path: &Path,
    open: impl FnOnce() -> Result<Database, DatabaseError>,
) -> Result<Database, OpenError> {
    let path = path.to_owned();
    // The database is not used when this unwinds.
    match std::panic::catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => Err(OpenError::InUse { path }),
        Ok(Err(DatabaseError::Storage(StorageError::Io(error)))) if is_environment(&error) => {
            Err(OpenError::Io { path, error })
        }
        Ok(Err(error)) => Err(OpenError::Damaged {
            path,
            reason: error.to_string(),
        }),
        Err(_) => Err(OpenError::Damaged {
            path,
            reason: "it contradicts itself".to_owned(),
        }),
    }
}

/// The file could not be reached, as opposed to: what is in it is wrong.
fn is_environment(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

pub enum Wrong {
    Format(u64),
    Content(String),
}

impl<E: Into<redb::Error>> From<E> for Wrong {
    fn from(error: E) -> Self {
        Wrong::Content(error.into().to_string())
    }
}

pub fn read_meta(database: Database) -> Result<Opened, Wrong> {
    let (id, revision, leases) = {
        let read = database.begin_read()?;
        let meta = read.open_table(META)?;
        let format = match meta.get(META_FORMAT)? {
            Some(stored) => number(stored.value())?.0,
            None => return Err(Wrong::Content("it has no format version".to_owned())),
        };
        if format > FORMAT {
            return Err(Wrong::Format(format));
        }
        let id = match meta.get(META_ID)? {
            Some(stored) => String::from_utf8_lossy(stored.value()).into_owned(),
            None => return Err(Wrong::Content("it has no id".to_owned())),
        };
        let mut leases = HashMap::new();
        for entry in read.open_table(LEASES)?.iter()? {
            let (lease, ttl) = entry?;
            leases.insert(lease.value(), Duration::from_millis(ttl.value()));
        }
        (id, read::revision(&meta)?, leases)
    };
    Ok(Opened {
        database,
        id,
        revision,
        leases,
    })
}
