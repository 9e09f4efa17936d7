//! The registry as a process: its settings, store, listener and TLS put together; run until told to stop.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::renewal::look_after;
use crate::config::RegistryBootstrap;
use crate::identity::{ALPN_HTTP, ServerTls, TlsError};
use crate::model::{Certificate, Pem};
use crate::registry::http::{Security, SecurityError, Token, serve};
use crate::registry::{Limits, Registry};
use crate::store::embedded::{Embedded, OpenError, Options};
use crate::store::{Store, StoreError};

/// The store's file in the data folder.
const STORE_FILE: &str = "registry.redb";

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("data folder {}: {error}", path.display())]
    Data { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("token file {}: {error}", path.display())]
    Token { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Security(#[from] SecurityError),
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    #[error("cannot listen on {address}: {error}")]
    Listen {
        address: SocketAddr,
        error: io::Error,
    },
}

/// A registry that is ready to serve.
pub struct RegistryProcess {
    registry: Arc<Registry>,
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<ServerTls>>,
    security: Security,
    data: PathBuf,
}

impl RegistryProcess {
    /// Opens everything; needs a runtime, one thread is enough.
    pub async fn open(bootstrap: &RegistryBootstrap) -> Result<Self, StartError> {
        let tls = bootstrap.tls.as_ref().map(|tls| {
            let certificate = Certificate {
                chain: Pem::File(tls.cert.clone()),
                key: Pem::File(tls.key.clone()),
            };
            ServerTls::new(&[certificate], ALPN_HTTP).map(Arc::new)
        });
        let tls = tls.transpose()?;
        let tokens = read_token(bootstrap)?;
        let security = Security::new(tokens, bootstrap.address, tls.is_some(), bootstrap.insecure)?;
        let data = bootstrap.data.clone();
        std::fs::create_dir_all(&data).map_err(|error| StartError::Data {
            path: data.clone(),
            error,
        })?;
        let store: Arc<dyn Store> = Arc::new(Embedded::open(&Options::new(data.join(STORE_FILE)))?);
        let registry = Registry::open(store, limits(bootstrap)).await?;
        let listen = |error| StartError::Listen {
            address: bootstrap.address,
            error,
        };
        let listener = TcpListener::bind(bootstrap.address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        Ok(Self {
            registry,
            listener,
            address,
            tls,
            security,
            data,
        })
    }

    /// Where it listens; the port is the real one when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// One line that says where it is and what it has.
    pub fn greeting(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let (address, data, revision) =
            (self.address, self.data.display(), self.registry.revision());
        format!("pillion registry on {scheme}://{address}, data in {data}, revision {revision}")
    }

    /// Serves until `stop` is over, then ends streams and lets requests finish. An error: the store has failed, and what was
    /// not answered is unknown; only a new process can go on.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), StoreError> {
        let (stopping, stopped) = watch::channel(false);
        let acceptor = self
            .tls
            .as_ref()
            .map(|tls| TlsAcceptor::from(tls.config().clone()));
        let serving = serve(
            self.listener,
            acceptor,
            self.registry.clone(),
            self.security,
            stopped,
        );
        tokio::pin!(serving);
        let failure = tokio::select! {
            error = self.registry.run() => Some(error),
            () = stop => None,
            () = look_after(self.tls) => None,
            () = &mut serving => None,
        };
        stopping.send_replace(true);
        match failure {
            // Nothing can be answered any more.
            Some(error) => Err(error),
            None => {
                // The view is needed to the end: answers wait for what they wrote to show.
                tokio::select! {
                    () = serving => Ok(()),
                    error = self.registry.run() => Err(error),
                }
            }
        }
    }
}

fn limits(bootstrap: &RegistryBootstrap) -> Limits {
    let seconds = |duration: Duration| u32::try_from(duration.as_secs().max(1)).unwrap_or(u32::MAX);
    Limits {
        history_max: u64::from(bootstrap.history),
        critical_after_seconds: seconds(bootstrap.instances.critical_after),
        removed_after_seconds: seconds(bootstrap.instances.remove_after),
        ..Limits::default()
    }
}

/// One token a line, `name: token` or the token alone; lines that begin with `#` are comments.
fn read_token(bootstrap: &RegistryBootstrap) -> Result<Vec<Token>, StartError> {
    let Some(path) = &bootstrap.token_file else {
        return Ok(Vec::new());
    };
    let failed = |error| StartError::Token {
        path: path.clone(),
        error,
    };
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let tokens = tokens(&text);
    match tokens.is_empty() {
        true => Err(failed(io::Error::other("there is no token in it"))),
        false => Ok(tokens),
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let token = |line: &str| {
        let (name, value) = line.split_once(':').unwrap_or(("token", line));
        Token {
            name: name.trim().to_owned(),
            value: value.trim().to_owned(),
        }
    };
    lines.map(token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_has_one_token_a_line_with_or_without_a_name() {
        let read = tokens("# ours\nci: 0123456789abcdef\n\nfedcba9876543210\n");
        let read: Vec<(&str, &str)> = read
            .iter()
            .map(|token| (&*token.name, &*token.value))
            .collect();
        assert_eq!(
            read,
            [("ci", "0123456789abcdef"), ("token", "fedcba9876543210")]
        );
    }
}
