//! Certificates and keys from PEM files.

use std::path::Path;

use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

use super::{TlsError, provider};
use crate::model::Certificate;

/// A chain with its key, which are a pair.
pub fn certified_key(certificate: &Certificate) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(&certificate.chain)?;
    let key = private_key(&certificate.key)?;
    CertifiedKey::from_der(chain, key, provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::Mismatch {
            chain: certificate.chain.clone(),
            key: certificate.key.clone(),
        },
        rustls::Error::InvalidCertificate(reason) => TlsError::Certificate {
            path: certificate.chain.clone(),
            reason: reason.to_string(),
        },
        error => TlsError::Key {
            path: certificate.key.clone(),
            reason: error.to_string(),
        },
    })
}

/// The trust in all certificates of a bundle.
pub fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::Certificate {
                path: path.to_owned(),
                reason: error.to_string(),
            })?;
    }
    Ok(roots)
}

/// At least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let all = all.map_err(|error| invalid(path, &error))?;
    if all.is_empty() {
        return Err(TlsError::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(all)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read(path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        Error::NoItemsFound => TlsError::NoKey {
            path: path.to_owned(),
        },
        error => invalid(path, &error),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::Read {
        path: path.to_owned(),
        error,
    })
}

/// The reader's text would show a line of the file, which may be of the key: so only what kind of error it is.
fn invalid(path: &Path, error: &Error) -> TlsError {
    let reason = match error {
        Error::MissingSectionEnd { .. } => "a block has no END line",
        Error::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        Error::Base64Decode(_) => "a block is not Base64",
        _ => "it cannot be read",
    };
    TlsError::Pem {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}
