use std::borrow::Cow;
use std::io;

use rustls::{AlertDescription, CertificateError, Error};

use crate::model::Pem;

/// What is wrong with a certificate, key or CA file, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{pem}: {error}; check the path and that this process may read it")]
    Read {
        pem: Pem,
        #[source]
        error: io::Error,
    },
    #[error("{pem}: no certificate in it; it must be PEM with a BEGIN CERTIFICATE block")]
    NoCertificate { pem: Pem },
    #[error(
        "{pem}: no private key in it; it must be PEM with a BEGIN PRIVATE KEY block (EC, RSA or PKCS#8, without a password)"
    )]
    NoKey { pem: Pem },
    #[error("{pem}: not valid PEM: {reason}")]
    Pem { pem: Pem, reason: String },
    #[error("{pem}: a certificate in it cannot be read: {reason}")]
    Certificate { pem: Pem, reason: String },
    #[error("{pem}: this private key cannot be used: {reason}")]
    Key { pem: Pem, reason: String },
    #[error(
        "{key}: this private key does not belong to the first certificate of {chain}; give both of one pair"
    )]
    Mismatch { chain: Pem, key: Pem },
    #[error("a TLS listener without a certificate; give it one in certificateRefs")]
    NoIdentity,
    #[error(
        "no root certificates on this system ({reason}); install ca-certificates or give tls.ca"
    )]
    NoRoots { reason: String },
    #[error("{name:?} is no host name that a certificate could be for; give tls.sni")]
    ServerName { name: String },
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] Error),
}

/// What a failed handshake means, for log and answers; None for errors that are not TLS's.
pub fn explain(error: &io::Error) -> Option<Cow<'static, str>> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::AlertReceived(alert) => alert_received(*alert),
        Error::NoApplicationProtocol => {
            "the peer speaks none of the offered protocols (ALPN)".into()
        }
        Error::InvalidMessage(_) => "the peer does not speak TLS on this port".into(),
        other => format!("TLS failed: {other}").into(),
    })
}

fn certificate(error: &CertificateError) -> Cow<'static, str> {
    use CertificateError::*;
    match error {
        UnknownIssuer => "the peer's certificate is signed by no CA that is trusted here".into(),
        Expired | ExpiredContext { .. } => "the peer's certificate has expired".into(),
        NotValidYet | NotValidYetContext { .. } => "the peer's certificate is not valid yet".into(),
        NotValidForName => "the peer's certificate is for another name".into(),
        NotValidForNameContext {
            expected,
            presented,
        } => {
            let expected = expected.to_str();
            let presented = presented.join(", ");
            format!("the peer's certificate is not for {expected} but for {presented}").into()
        }
        BadSignature => {
            "the peer's certificate is not signed by the CA of that name that is trusted here"
                .into()
        }
        InvalidPurpose | InvalidPurposeContext { .. } => {
            "the peer's certificate is not for this use".into()
        }
        other => format!("the peer's certificate is refused: {other}").into(),
    }
}

fn alert_received(alert: AlertDescription) -> Cow<'static, str> {
    match alert {
        AlertDescription::UnknownCA | AlertDescription::BadCertificate => {
            "the peer does not trust our certificate".into()
        }
        AlertDescription::CertificateRequired => "the peer asks for a client certificate".into(),
        AlertDescription::UnrecognisedName => "the peer does not know this server name".into(),
        AlertDescription::ProtocolVersion => "the peer speaks no TLS version in common".into(),
        AlertDescription::NoApplicationProtocol => {
            "the peer speaks none of the offered protocols (ALPN)".into()
        }
        alert => format!("the peer ended the TLS handshake: {alert:?}").into(),
    }
}
