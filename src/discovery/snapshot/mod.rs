//! The last good snapshot on disk: what a sidecar starts from when no registry answers.
//!
//! One file: a header, then records, each with its length and checksum. A change appends its records and a commit, so
//! it costs what the change costs; when the appended part outgrows the rest, the file is written anew (temporary file,
//! fsync, rename, fsync of the folder) and the one before it is kept as `*.previous`. Reading takes everything up to
//! the last whole commit and says what it had to leave. Entries are opaque bytes here; `discovery` gives them meaning.

mod codec;
mod file;

pub use codec::{Batch, Damage, Decoded, Key, Saved, decode, encode, encode_whole};
pub use file::{Loaded, SnapshotFile, load};
