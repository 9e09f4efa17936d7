//! Message heads as the proxy holds them: one arena of bytes per head, reused from request to request.
//!
//! A head keeps what came: the case of names, the order of fields, repeated fields, every byte of values and of the
//! target. Fields the proxy looks at are classified once ([`Known`]), so that asking for one costs a bit test.
//! Every field lies in the arena as it goes onto an HTTP/1 wire (`name: value\r\n`), so that forwarding a run of
//! untouched fields is one copy. In steady state nothing here allocates.
//!
//! Left out: parsing and writing (`http1::codec`, and the `h2` crate through `http2`), and any policy.

mod authority;
mod fields;
mod known;
mod method;
mod request;
mod response;
pub(in crate::proxy) mod scan;

pub use authority::valid_authority;
pub use fields::{Field, Fields};
pub use known::{Known, collides_with_trusted};
pub use method::Method;
pub use request::{RequestHead, Scheme, TargetError, TargetForm};
pub use response::{ResponseHead, canonical_reason};
pub use scan::{valid_name, valid_value};

/// The protocol version a message came in. Every HTTP/1.x above 1.0 is treated as 1.1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Version {
    Http10,
    #[default]
    Http11,
    Http2,
}

impl Version {
    /// As logs write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2",
        }
    }
}
