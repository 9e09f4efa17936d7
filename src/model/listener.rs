use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::{Name, PathNormalization, Pem, Route};

/// One socket and the listeners that share it, told apart by hostname (or SNI, when TLS is on).
#[derive(Clone, Debug)]
pub struct Bind {
    pub address: SocketAddr,
    /// TLS is terminated for those listeners that do not pass it through.
    pub tls: bool,
    /// What is not passed through is bytes all the same, not HTTP.
    pub opaque: bool,
    pub listeners: Vec<Arc<Listener>>,
}

#[derive(Clone, Debug)]
pub struct Listener {
    /// The `Gateway` that declares it.
    pub gateway: Name,
    pub name: Arc<str>,
    /// Absent matches every host.
    pub hostname: Option<HostPattern>,
    pub tls: Option<ListenerTls>,
    /// The routes attached to this listener, hostnames already intersected with the listener's.
    pub routes: Vec<Arc<Route>>,
    pub on_half_close: OnHalfClose,
    pub path: PathNormalization,
}

impl Listener {
    pub fn passes_through(&self) -> bool {
        self.tls
            .as_ref()
            .is_some_and(|tls| tls.mode == TlsMode::Passthrough)
    }
}

/// What a client's FIN means while its answer is pending, over HTTP/1, where it may be a half-close.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnHalfClose {
    /// The client may still be reading: it gets its answer.
    #[default]
    Answer,
    /// The client has left: its request is cancelled at once.
    Cancel,
}

impl OnHalfClose {
    /// As documents write it.
    pub fn as_str(self) -> &'static str {
        match self {
            OnHalfClose::Answer => "answer",
            OnHalfClose::Cancel => "cancel",
        }
    }
}

#[derive(Clone, Debug)]
pub struct ListenerTls {
    pub mode: TlsMode,
    pub certificates: Vec<Certificate>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsMode {
    Terminate,
    /// Bytes go on as they are, to where the name leads that the client asks for.
    Passthrough,
}

/// A certificate chain and its key.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Certificate {
    pub chain: Pem,
    pub key: Pem,
}

/// A host name as a route or listener writes it, in lower case, without a trailing dot.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum HostPattern {
    Exact(Arc<str>),
    /// `*.example.com`, kept as `example.com`: matches one or more labels before it, never the bare domain.
    Wildcard(Arc<str>),
}

/// As documents write it.
impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(host) => f.write_str(host),
            HostPattern::Wildcard(domain) => write!(f, "*.{domain}"),
        }
    }
}
