//! Certificates of servers that are known by their subject alternative names, not by the name that is sent to them
//! (`subjectAltNames` of a `BackendTLSPolicy`).

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use webpki::EndEntityCert;

use super::{TlsError, provider};
use crate::model::SubjectName;

/// Trusts what [`WebPkiServerVerifier`] does, for other names.
#[derive(Debug)]
pub struct BySubject {
    subjects: Vec<SubjectName>,
    roots: Arc<RootCertStore>,
    signatures: Arc<WebPkiServerVerifier>,
}

impl BySubject {
    /// One of `subjects` has to be in the certificate.
    pub fn new(subjects: Vec<SubjectName>, roots: Arc<RootCertStore>) -> Result<Self, TlsError> {
        let builder =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider().clone());
        let signatures = builder.build().map_err(|error| TlsError::NoRoots {
            reason: error.to_string(),
        })?;
        Ok(Self {
            subjects,
            roots,
            signatures,
        })
    }
}

impl ServerCertVerifier for BySubject {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            now,
            provider().signature_verification_algorithms.all,
        )?;
        let wrong = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
        let certificate = EndEntityCert::try_from(end_entity).map_err(wrong)?;
        match self
            .subjects
            .iter()
            .any(|subject| has(&certificate, subject))
        {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.supported_verify_schemes()
    }
}

/// A wildcard of ours is there where the certificate has the same.
fn has(certificate: &EndEntityCert<'_>, subject: &SubjectName) -> bool {
    match subject {
        SubjectName::Hostname(name) if name.starts_with("*.") => certificate
            .valid_dns_names()
            .any(|own| own.eq_ignore_ascii_case(name)),
        SubjectName::Hostname(name) => ServerName::try_from(&**name)
            .is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok()),
        SubjectName::Uri(uri) => certificate.valid_uri_names().any(|own| *own == **uri),
    }
}
