//! TLS towards clients.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

use super::files::Files;
use super::{Reload, TlsError, alpn_protocols, pem, provider};
use crate::model::{Certificate, Pem};

/// Terminates TLS 1.2 and 1.3 with one of several certificates, chosen by the name that the client asks for.
#[derive(Debug)]
pub struct ServerTls {
    certificates: Vec<Certificate>,
    config: Arc<ServerConfig>,
    resolver: Arc<Resolver>,
    files: Mutex<Files>,
}

impl ServerTls {
    /// The first certificate serves clients that ask for no name, or for one that no certificate has.
    pub fn new(certificates: &[Certificate], alpn: &[&[u8]]) -> Result<Self, TlsError> {
        let files = Files::new(paths(certificates));
        let resolver = Arc::new(Resolver {
            identities: ArcSwap::from_pointee(Identities::read(certificates)?),
        });
        let mut config = ServerConfig::builder_with_provider(provider().clone())
            .with_protocol_versions(rustls::ALL_VERSIONS)?
            .with_no_client_auth()
            .with_cert_resolver(resolver.clone());
        config.alpn_protocols = alpn_protocols(alpn);
        // Resumption by tickets costs no memory here.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        Ok(Self {
            certificates: certificates.to_vec(),
            config: Arc::new(config),
            resolver,
            files: Mutex::new(files),
        })
    }

    /// For new connections; the same over reloads, and its clients' tickets stay valid.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Reads the files again if any has changed. Handshakes that run meanwhile end with the certificate they began with.
    pub fn reload_if_changed(&self) -> Reload {
        // `Files` is whole after any panic: it only remembers what it saw.
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if !files.changed() {
            return Reload::Unchanged;
        }
        match Identities::read(&self.certificates) {
            Ok(identities) => {
                self.resolver.identities.store(Arc::new(identities));
                Reload::Reloaded
            }
            Err(error) => Reload::Kept(error),
        }
    }
}

fn paths(certificates: &[Certificate]) -> impl Iterator<Item = &Path> {
    certificates
        .iter()
        .flat_map(|certificate| [&certificate.chain, &certificate.key])
        .filter_map(Pem::file)
}

#[derive(Debug)]
struct Resolver {
    identities: ArcSwap<Identities>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.identities.load().choose(hello.server_name()).clone())
    }
}

/// Certificates by the DNS names inside them; of two for one name the first counts.
#[derive(Debug)]
struct Identities {
    first: Arc<CertifiedKey>,
    exact: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// By the name after `*.`.
    wildcard: HashMap<Box<str>, Arc<CertifiedKey>>,
}

impl Identities {
    fn read(certificates: &[Certificate]) -> Result<Self, TlsError> {
        let mut exact = HashMap::new();
        let mut wildcard = HashMap::new();
        let mut first = None;
        for certificate in certificates {
            let key = Arc::new(pem::certified_key(certificate)?);
            for name in dns_names(&key, &certificate.chain)? {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(rest) => (&mut wildcard, rest),
                    None => (&mut exact, &*name),
                };
                names.entry(name.into()).or_insert_with(|| key.clone());
            }
            first.get_or_insert(key);
        }
        Ok(Self {
            first: first.ok_or(TlsError::NoIdentity)?,
            exact,
            wildcard,
        })
    }

    fn choose(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let found = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let name = name.strip_suffix('.').unwrap_or(&name);
            // A wildcard in a certificate stands for one label.
            let wildcard = || self.wildcard.get(name.split_once('.')?.1);
            self.exact.get(name).or_else(wildcard)
        });
        found.unwrap_or(&self.first)
    }
}

/// In lower case.
fn dns_names(key: &CertifiedKey, pem: &Pem) -> Result<Vec<String>, TlsError> {
    let parsed = EndEntityCert::try_from(&key.cert[0]).map_err(|error| TlsError::Certificate {
        pem: pem.clone(),
        reason: error.to_string(),
    })?;
    Ok(parsed
        .valid_dns_names()
        .map(str::to_ascii_lowercase)
        .collect())
}
