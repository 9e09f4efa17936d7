//! Whom we trust and who we are on TLS connections: certificates from files, rustls configurations, reloading.
//!
//! [`ServerTls`] terminates TLS with the certificate that fits the name a client asks for; [`ClientTls`] originates it.
//! Both read their files again when [`ServerTls::reload_if_changed`] or [`ClientConfigs::reload_if_changed`] is called,
//! which the control thread does each second; a bad new file keeps the old one in use and is reported. Connections are
//! made elsewhere: nothing here does any IO but reading files.

mod client;
mod error;
mod files;
mod pem;
mod server;
mod subjects;

#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;

pub use client::{ClientConfigs, ClientTls, server_name};
pub use error::{TlsError, explain};
pub use server::ServerTls;

/// The protocols of HTTP in ALPN, preferred first.
pub const ALPN_HTTP: &[&[u8]] = &[b"h2", b"http/1.1"];
pub const ALPN_HTTP1: &[&[u8]] = &[b"http/1.1"];
pub const ALPN_HTTP2: &[&[u8]] = &[b"h2"];

/// What came of looking whether files changed.
#[derive(Debug)]
pub enum Reload {
    Unchanged,
    Reloaded,
    /// The files changed and cannot be used; the ones before stay in use.
    Kept(TlsError),
}

/// The one crypto provider of the process.
pub fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

fn alpn_protocols(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}
