//! Which rule a request meets: listener by host, then the Gateway API's precedence over all routes of that listener.
//!
//! A [`Table`] is compiled once per snapshot. Finding a rule walks host map, path index and the few rules that are left
//! in precedence order, so its cost does not grow with the number of routes; only regular expressions on one host and
//! rules of one host and path that differ in method, headers or queries are tried one after another.
//!
//! This module decides only. It sends nothing, applies no filter, and knows nothing of endpoints.

mod explain;
mod host;
mod listeners;
mod matcher;
mod mesh;
mod normalize;
mod path;
mod rule;
mod split;
mod table;
mod view;

#[cfg(test)]
mod oracle;

pub use explain::{Considered, Fate};
pub use host::HostMap;
pub use listeners::{ListenerRoutes, Listeners};
pub use matcher::Mismatch;
pub use mesh::MeshRoutes;
pub use normalize::{PathRefused, normalize};
pub use rule::{Backend, BackendChoice, CompiledRule, Mirror, Persistence};
pub use table::{Found, Table};
pub use view::{HeadView, NameView, without_port};

/// What routing looks at, of a request.
pub trait RequestView {
    /// Without a port; compared without case, and a trailing dot is ignored.
    fn host(&self) -> &[u8];
    /// Normalised (see [`normalize()`]), without the query.
    fn path(&self) -> &[u8];
    /// What follows the `?`.
    fn query(&self) -> Option<&[u8]>;
    fn method(&self) -> &[u8];
    /// The value of the first field of this lower-case name.
    fn header(&self, lower_name: &str) -> Option<&[u8]>;
}
