//! All that knows YAML: text to a tree with places ([`parse()`]), a file to its documents ([`split()`]), values to text ([`emit()`]).
//!
//! The event parser below gives the place of every node, which a derived decoder would lose.

mod emit;
mod parse;
mod split;
mod tree;

pub use emit::emit;
pub use parse::parse;
pub use split::{DocumentText, split};
pub use tree::{Entry, Mark, Node, Value};

/// Longest document that is read.
pub const DOCUMENT_BYTES_MAX: usize = 16 << 20;
/// Deepest nesting of a document.
pub const DEPTH_MAX: usize = 64;
/// Most nodes of a document, those counted that aliases stand for.
pub const NODES_MAX: usize = 1_000_000;
