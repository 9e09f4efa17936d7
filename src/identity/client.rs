//! TLS towards endpoints.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};

use super::files::Files;
use super::subjects::BySubject;
use super::{Reload, TlsError, alpn_protocols, pem, provider};
use crate::model::{Address, Certificate, Name, Pem, SubjectName, UpstreamTls};

/// Server names whose sessions one configuration remembers.
const RESUMED_NAMES_MAX: usize = 64;

/// Originates TLS 1.2 and 1.3 with one trust, client certificate and list of protocols.
#[derive(Debug)]
pub struct ClientTls {
    key: Key,
    config: ArcSwap<ClientConfig>,
    files: Mutex<Files>,
}

/// All client configurations of a process: services that ask for the same share one, and its resumed sessions.
#[derive(Debug, Default)]
pub struct ClientConfigs {
    configs: Mutex<HashMap<Key, Arc<ClientTls>>>,
    /// Read at the first use; the system's roots are not looked at again.
    system: Mutex<Option<Arc<RootCertStore>>>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Key {
    ca: Option<Pem>,
    subjects: Vec<SubjectName>,
    certificate: Option<Certificate>,
    alpn: Vec<Vec<u8>>,
}

impl ClientConfigs {
    /// The configuration for this, made now if there is none yet.
    pub fn get(&self, tls: &UpstreamTls, alpn: &[&[u8]]) -> Result<Arc<ClientTls>, TlsError> {
        let key = Key {
            ca: tls.ca.clone(),
            subjects: tls.subjects.clone(),
            certificate: tls.certificate.clone(),
            alpn: alpn_protocols(alpn),
        };
        let mut configs = lock(&self.configs);
        if let Some(found) = configs.get(&key) {
            return Ok(found.clone());
        }
        let files = key.files();
        let roots = match &key.ca {
            Some(ca) => Arc::new(pem::roots(ca)?),
            None => self.system_roots()?,
        };
        let made = Arc::new(ClientTls {
            config: ArcSwap::from_pointee(config(&key, roots)?),
            files: Mutex::new(files),
            key: key.clone(),
        });
        configs.insert(key, made.clone());
        Ok(made)
    }

    /// Reads again what has changed, forgets what nobody uses any more, and says what could not be reloaded.
    pub fn reload_if_changed(&self) -> Vec<TlsError> {
        let mut configs = lock(&self.configs);
        configs.retain(|_, tls| Arc::strong_count(tls) > 1);
        configs
            .values()
            .filter_map(|tls| match tls.reload_if_changed() {
                Reload::Kept(error) => Some(error),
                Reload::Unchanged | Reload::Reloaded => None,
            })
            .collect()
    }

    fn system_roots(&self) -> Result<Arc<RootCertStore>, TlsError> {
        let mut system = lock(&self.system);
        match &*system {
            Some(roots) => Ok(roots.clone()),
            None => Ok(system.insert(Arc::new(read_system_roots()?)).clone()),
        }
    }
}

impl Key {
    fn files(&self) -> Files {
        let pairs = self.certificate.iter();
        let all = pairs.flat_map(|pair| [&pair.chain, &pair.key]);
        Files::new(all.chain(&self.ca).filter_map(Pem::file))
    }
}

impl ClientTls {
    /// For a new connection.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.load_full()
    }

    fn reload_if_changed(&self) -> Reload {
        if !lock(&self.files).changed() {
            return Reload::Unchanged;
        }
        match self.renewed() {
            Ok(config) => {
                self.config.store(Arc::new(config));
                Reload::Reloaded
            }
            Err(error) => Reload::Kept(error),
        }
    }

    /// The trust in the system's roots stays as it was.
    fn renewed(&self) -> Result<ClientConfig, TlsError> {
        if let Some(ca) = &self.key.ca {
            return config(&self.key, Arc::new(pem::roots(ca)?));
        }
        let mut renewed = (**self.config.load()).clone();
        if let Some(certificate) = &self.key.certificate {
            let certified = pem::certified_key(certificate)?;
            renewed.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
            renewed.resumption = resumption();
        }
        Ok(renewed)
    }
}

fn config(key: &Key, roots: Arc<RootCertStore>) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(rustls::ALL_VERSIONS)?;
    let builder = match key.subjects.is_empty() {
        true => builder.with_root_certificates(roots),
        false => {
            let verifier = BySubject::new(key.subjects.clone(), roots)?;
            let builder = builder.dangerous();
            builder.with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    let mut config = match &key.certificate {
        Some(certificate) => {
            let certified = pem::certified_key(certificate)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = key.alpn.clone();
    config.resumption = resumption();
    Ok(config)
}

fn resumption() -> Resumption {
    Resumption::in_memory_sessions(RESUMED_NAMES_MAX)
}

/// Those that cannot be parsed are left out, as every TLS client does.
fn read_system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reasons: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        let reason = match reasons.is_empty() {
            true => "none found".to_owned(),
            false => reasons.join("; "),
        };
        return Err(TlsError::NoRoots { reason });
    }
    Ok(roots)
}

/// The name to send and to verify: as configured, else the endpoint's host name, else the service's name.
pub fn server_name(
    tls: &UpstreamTls,
    address: &Address,
    service: &Name,
) -> Result<ServerName<'static>, TlsError> {
    let name = match (&tls.sni, address) {
        (Some(sni), _) => sni,
        (None, Address::Name { host, .. }) => host,
        (None, Address::Socket(_)) => &service.name,
    };
    ServerName::try_from(name.to_string()).map_err(|_| TlsError::ServerName {
        name: name.to_string(),
    })
}

/// What these locks guard is replaced whole, never changed by halves.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
