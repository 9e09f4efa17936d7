//! Certificates and keys from PEM.

use std::borrow::Cow;

use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

use super::{TlsError, provider};
use crate::model::{Certificate, Pem};

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
            pem: certificate.chain.clone(),
            reason: reason.to_string(),
        },
        error => TlsError::Key {
            pem: certificate.key.clone(),
            reason: error.to_string(),
        },
    })
}

/// The trust in all certificates of a bundle.
pub fn roots(pem: &Pem) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::Certificate {
                pem: pem.clone(),
                reason: error.to_string(),
            })?;
    }
    Ok(roots)
}

/// At least one.
fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(pem)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.map_err(|error| invalid(pem, &error))?;
    if all.is_empty() {
        return Err(TlsError::NoCertificate { pem: pem.clone() });
    }
    Ok(all)
}

fn private_key(pem: &Pem) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(pem)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        Error::NoItemsFound => TlsError::NoKey { pem: pem.clone() },
        error => invalid(pem, &error),
    })
}

fn read(pem: &Pem) -> Result<Cow<'_, [u8]>, TlsError> {
    match pem {
        Pem::Text { text, .. } => Ok(Cow::Borrowed(text)),
        Pem::File(path) => std::fs::read(path)
            .map(Cow::Owned)
            .map_err(|error| TlsError::Read {
                pem: pem.clone(),
                error,
            }),
    }
}

/// The reader's text would show a line of the file, which may be of the key: so only what kind of error it is.
fn invalid(pem: &Pem, error: &Error) -> TlsError {
    let reason = match error {
        Error::MissingSectionEnd { .. } => "a block has no END line",
        Error::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        Error::Base64Decode(_) => "a block is not Base64",
        _ => "it cannot be read",
    };
    TlsError::Pem {
        pem: pem.clone(),
        reason: reason.to_owned(),
    }
}
