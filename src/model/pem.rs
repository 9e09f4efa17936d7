use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Certificates, or a private key, in PEM (RFC 7468).
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Pem {
    /// Read again when it changes.
    File(PathBuf),
    /// What a document says.
    Text {
        /// Which one, and under which key: `Secret shop/edge, tls.crt`.
        place: Arc<str>,
        text: Arc<[u8]>,
    },
}

impl Pem {
    pub fn file(&self) -> Option<&Path> {
        match self {
            Pem::File(path) => Some(path),
            Pem::Text { .. } => None,
        }
    }
}

/// Where it is, never what it says.
impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => path.display().fmt(f),
            Pem::Text { place, .. } => f.write_str(place),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({self})")
    }
}
