//! Certificates and keys that documents hold: `Secret`s for listeners, `ConfigMap`s for whom to trust.

use std::collections::HashMap;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::references::Unresolved;
use super::{Placed, parts};
use crate::config::spec::{AuthorityRef, ConfigMapSpec, Kind, SecretSpec, Spec};
use crate::model::{Certificate, Name, Pem};

/// Every `Secret` and `ConfigMap`.
pub struct Secrets<'p> {
    secrets: HashMap<&'p Name, &'p SecretSpec>,
    config_maps: HashMap<&'p Name, &'p ConfigMapSpec>,
}

impl<'p> Secrets<'p> {
    pub fn of(chosen: &[&'p Placed<'p>]) -> Self {
        let secrets = parts(chosen, Kind::Secret, |spec| match spec {
            Spec::Secret(spec) => Some(spec),
            _ => None,
        });
        let config_maps = parts(chosen, Kind::ConfigMap, |spec| match spec {
            Spec::ConfigMap(spec) => Some(spec),
            _ => None,
        });
        let named = |head: &'p crate::config::spec::Head| &head.identity.name;
        Self {
            secrets: secrets
                .iter()
                .map(|part| (named(part.head), part.spec))
                .collect(),
            config_maps: config_maps
                .iter()
                .map(|part| (named(part.head), part.spec))
                .collect(),
        }
    }

    /// The pair of a Secret of type `kubernetes.io/tls`.
    pub fn certificate(&self, name: &Name) -> Result<Certificate, Unresolved> {
        let wrong = |message: String, hint: &str| {
            Err(Unresolved::new("InvalidCertificateRef", message, hint))
        };
        let Some(secret) = self.secrets.get(name) else {
            let hint = "add a document `kind: Secret` of that name";
            return wrong(format!("there is no Secret {name}"), hint);
        };
        let pem = |key: &str| {
            let text = secret.data.get(key)?;
            Some(Pem::Text {
                place: format!("Secret {name}, {key}").into(),
                text: Arc::clone(text),
            })
        };
        let (Some(chain), Some(key)) = (pem("tls.crt"), pem("tls.key")) else {
            let hint =
                "it needs `tls.crt` and `tls.key`, as `kubectl create secret tls` makes them";
            return wrong(
                format!("Secret {name} holds no certificate with its key"),
                hint,
            );
        };
        let usable = is_certificates(&secret.data["tls.crt"])
            && PrivateKeyDer::from_pem_slice(&secret.data["tls.key"]).is_ok();
        if !usable {
            let hint = "a chain of BEGIN CERTIFICATE blocks and a BEGIN PRIVATE KEY block, in Base64 under `data`";
            return wrong(format!("Secret {name} is not PEM"), hint);
        }
        Ok(Certificate { chain, key })
    }

    /// The bundles of some ConfigMaps as one. Those that are wrong are told and left out; where all are, nobody is trusted.
    pub fn authorities(
        &self,
        namespace: &Arc<str>,
        refs: &'p [AuthorityRef],
        mut tell: impl FnMut(&'p AuthorityRef, Unresolved),
    ) -> Pem {
        let mut bundle = Vec::new();
        let mut places = Vec::new();
        for reference in refs {
            match self.bundle(namespace, reference) {
                Ok(text) => {
                    bundle.extend_from_slice(text.as_bytes());
                    bundle.push(b'\n');
                    places.push(format!("ConfigMap {namespace}/{}, ca.crt", reference.name));
                }
                Err(why) => tell(reference, why),
            }
        }
        let place = match places.is_empty() {
            true => "no valid caCertificateRefs".to_owned(),
            false => places.join(" and "),
        };
        Pem::Text {
            place: place.into(),
            text: bundle.into(),
        }
    }

    fn bundle(&self, namespace: &Arc<str>, to: &AuthorityRef) -> Result<&'p str, Unresolved> {
        if *to.kind != *"ConfigMap" {
            let message = format!("certificates are not taken from a {}", to.kind);
            return Err(Unresolved::new(
                "InvalidKind",
                message,
                "refer to a ConfigMap",
            ));
        }
        let name = Name {
            namespace: Arc::clone(namespace),
            name: Arc::clone(&to.name),
        };
        let wrong = |message: String| {
            let hint = "it needs certificates in PEM under the key `ca.crt`";
            Unresolved::new("InvalidCACertificateRef", message, hint)
        };
        let found = self.config_maps.get(&name);
        let found = found.ok_or_else(|| wrong(format!("there is no ConfigMap {name}")))?;
        let text = found
            .data
            .get("ca.crt")
            .filter(|text| is_certificates(text.as_bytes()));
        match text {
            Some(text) => Ok(text),
            None => Err(wrong(format!("ConfigMap {name} holds no certificates"))),
        }
    }
}

fn is_certificates(pem: &[u8]) -> bool {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.is_ok_and(|all| !all.is_empty())
}
