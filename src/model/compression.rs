use std::sync::Arc;

/// Answers go to clients compressed, where they say that they take that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compression {
    /// The preferred first; never empty.
    pub codings: Vec<Coding>,
    /// Shorter answers go as they are, in bytes.
    pub min_length: u64,
    /// Media types in lower case, such as `text/html`; `text/*` is every type of text.
    pub content_types: Vec<Arc<str>>,
}

/// A content coding (RFC 9110, section 8.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coding {
    Gzip,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    pub const ALL: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

    /// As HTTP calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
        }
    }
}
