use std::net::IpAddr;
use std::sync::Arc;

use super::path;
use super::route::{BackendRef, service_ref};
use super::selector::{Selector, selector};
use crate::config::decode::{Cursor, Fields};
use crate::config::problem::Spot;
use crate::model::{
    Certificate, HostPattern, OnHalfClose, PathNormalization, Pem, RouteKind, TlsMode,
};

#[derive(Debug)]
pub struct GatewaySpec {
    /// Where to listen; empty is the default address.
    pub addresses: Vec<IpAddr>,
    pub listeners: Vec<ListenerSpec>,
}

#[derive(Debug)]
pub struct ListenerSpec {
    pub name: Arc<str>,
    pub port: u16,
    pub protocol: ListenerProtocol,
    pub hostname: Option<HostPattern>,
    pub tls: Option<TlsSpec>,
    pub allowed: AllowedRoutes,
    /// Where a TCP listener's bytes go.
    pub backend: Option<BackendRef>,
    pub on_half_close: OnHalfClose,
    pub path: PathNormalization,
    pub spot: Spot,
}

/// Certificates in files, and references to those in Secrets.
#[derive(Debug)]
pub struct TlsSpec {
    pub mode: TlsMode,
    pub certificates: Vec<Certificate>,
    pub refs: Vec<CertificateRef>,
}

/// A reference to a Secret, or to what cannot be one.
#[derive(Debug)]
pub struct CertificateRef {
    pub kind: Arc<str>,
    pub namespace: Option<Arc<str>>,
    pub name: Arc<str>,
    pub spot: Spot,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListenerProtocol {
    Http,
    Https,
    Tls,
    Tcp,
}

impl ListenerProtocol {
    pub fn as_str(self) -> &'static str {
        match self {
            ListenerProtocol::Http => "HTTP",
            ListenerProtocol::Https => "HTTPS",
            ListenerProtocol::Tls => "TLS",
            ListenerProtocol::Tcp => "TCP",
        }
    }
}

impl ListenerSpec {
    pub fn passes_through(&self) -> bool {
        let tls = self.tls.as_ref();
        tls.is_some_and(|tls| tls.mode == TlsMode::Passthrough)
    }

    /// The kinds of routes that go with its protocol.
    pub fn possible_kinds(&self) -> &'static [RouteKind] {
        match self.protocol {
            ListenerProtocol::Http | ListenerProtocol::Https => &[RouteKind::Http, RouteKind::Grpc],
            ListenerProtocol::Tls if self.passes_through() => &[RouteKind::Tls],
            ListenerProtocol::Tls => &[RouteKind::Tls, RouteKind::Tcp],
            // Its own `backend` has all connections already.
            ListenerProtocol::Tcp if self.backend.is_some() => &[],
            ListenerProtocol::Tcp => &[RouteKind::Tcp],
        }
    }

    /// Those of them that it says it takes.
    pub fn kinds(&self) -> Vec<RouteKind> {
        let possible = self.possible_kinds();
        let is_allowed = |kind: &&RouteKind| match &self.allowed.kinds {
            None => true,
            Some(allowed) => allowed.iter().any(|one| one.of(possible) == Some(**kind)),
        };
        possible.iter().filter(is_allowed).copied().collect()
    }

    pub fn takes(&self, kind: RouteKind) -> bool {
        self.kinds().contains(&kind)
    }
}

/// Which routes may attach to a listener.
#[derive(Debug, Default)]
pub struct AllowedRoutes {
    pub namespaces: AllowedNamespaces,
    /// None takes every kind that goes with the listener's protocol.
    pub kinds: Option<Vec<AllowedKind>>,
}

#[derive(Debug, Default)]
pub enum AllowedNamespaces {
    #[default]
    Same,
    All,
    None,
    /// By the labels of their `Namespace` documents.
    Selected(Selector),
}

/// A kind as it is written; it may be none that a listener can take.
#[derive(Debug)]
pub struct AllowedKind {
    pub group: Option<Arc<str>>,
    pub kind: Arc<str>,
    pub spot: Spot,
}

impl AllowedKind {
    /// The kind, where it is one of these.
    pub fn of(&self, possible: &[RouteKind]) -> Option<RouteKind> {
        let group = self.group.as_deref();
        let ours = group.is_none_or(|group| group == "gateway.networking.k8s.io");
        let mut kinds = possible.iter().copied();
        kinds.find(|kind| ours && kind.as_str() == &*self.kind)
    }
}

pub(super) fn read(fields: &mut Fields<'_, '_>) -> GatewaySpec {
    fields.not_built(&[
        ("infrastructure", ""),
        ("backendTLS", "; say `tls` in the Service"),
        ("tls", " for a whole Gateway; say it for each listener"),
        ("allowedListeners", ""),
    ]);
    fields.optional("gatewayClassName", |c| c.name());
    let one = fields.optional("address", |c| c.ip_address());
    let mut addresses = fields.list("addresses", gateway_address);
    addresses.extend(one);
    let listeners = fields.required("listeners", |cursor| {
        let listeners = cursor.list(|cursor| cursor.fields(listener))?;
        if listeners.is_empty() {
            cursor.warning("a Gateway without listeners does nothing", "");
        }
        Some(listeners)
    });
    GatewaySpec {
        addresses,
        listeners: listeners.unwrap_or_default(),
    }
}

fn gateway_address(cursor: Cursor<'_>) -> Option<IpAddr> {
    cursor.fields(|fields| {
        fields.optional("type", |cursor| cursor.choice(&[("IPAddress", ())]));
        fields.required("value", |c| c.ip_address())
    })
}

fn listener(fields: &mut Fields<'_, '_>) -> Option<ListenerSpec> {
    let name = fields.required("name", |c| c.name());
    let port = fields.required("port", |c| c.port());
    let protocol = fields.required("protocol", protocol);
    let hostname = fields.optional("hostname", |c| c.host_pattern());
    let tls = fields.optional("tls", |cursor| cursor.fields(tls));
    let allowed = fields.optional("allowedRoutes", |cursor| cursor.fields(allowed_routes));
    let backend = fields.optional("backend", |cursor| cursor.fields(service_ref));
    let on_half_close = fields.optional("on_half_close", on_half_close);
    let path = fields.optional("path", |cursor| cursor.fields(path::normalization));
    let listener = ListenerSpec {
        name: name?,
        port: port?,
        protocol: protocol?,
        hostname,
        tls,
        allowed: allowed.unwrap_or_default(),
        backend,
        on_half_close: on_half_close.unwrap_or_default(),
        path: path.unwrap_or_default(),
        spot: fields.cursor().spot(),
    };
    check_protocol(&listener, fields);
    Some(listener)
}

fn on_half_close(cursor: Cursor<'_>) -> Option<OnHalfClose> {
    cursor.choice(&[OnHalfClose::Answer, OnHalfClose::Cancel].map(|on| (on.as_str(), on)))
}

fn protocol(cursor: Cursor<'_>) -> Option<ListenerProtocol> {
    match cursor.text()? {
        "UDP" => cursor.error("this protocol is not built yet", "HTTP, HTTPS, TLS or TCP"),
        _ => cursor.choice(&[
            ("HTTP", ListenerProtocol::Http),
            ("HTTPS", ListenerProtocol::Https),
            ("TLS", ListenerProtocol::Tls),
            ("TCP", ListenerProtocol::Tcp),
        ]),
    }
}

/// What each protocol needs and excludes; a key with a wrong value was reported already, so its presence counts.
fn check_protocol(listener: &ListenerSpec, fields: &Fields<'_, '_>) {
    let here = fields.cursor();
    let (tls, backend) = (fields.has("tls"), fields.has("backend"));
    let name = listener.protocol.as_str();
    match listener.protocol {
        ListenerProtocol::Https | ListenerProtocol::Tls if !tls => {
            here.error::<()>(
                format!("a listener of {name} needs `tls`"),
                "tls: {certificateRefs: [{name: secret}]}, or {certificates: [{cert, key}]} for files",
            );
        }
        ListenerProtocol::Http | ListenerProtocol::Tcp if tls => {
            here.error::<()>(
                format!("a {name} listener has no `tls`"),
                "write `protocol: HTTPS`?",
            );
        }
        ListenerProtocol::Https if listener.passes_through() => {
            here.error::<()>(
                "HTTP in TLS that is passed through cannot be read",
                "write `protocol: TLS`, or leave `mode` out",
            );
        }
        ListenerProtocol::Tcp if fields.has("hostname") => {
            here.error::<()>(
                "a TCP listener has no `hostname`",
                "nothing in its bytes says one",
            );
        }
        ListenerProtocol::Tcp | ListenerProtocol::Tls if fields.has("path") => {
            here.error::<()>(
                format!("a {name} listener has no `path`"),
                "nothing in its bytes says one",
            );
        }
        ListenerProtocol::Tcp | ListenerProtocol::Tls if fields.has("on_half_close") => {
            here.error::<()>(
                format!("a {name} listener has no `on_half_close`"),
                "each direction ends by itself",
            );
        }
        ListenerProtocol::Http | ListenerProtocol::Https | ListenerProtocol::Tls if backend => {
            let message = format!("a {name} listener has no `backend`");
            here.error::<()>(message, "its routes say where it goes");
        }
        _ => {}
    }
}

fn tls(fields: &mut Fields<'_, '_>) -> Option<TlsSpec> {
    // What options there are is every implementation's own.
    fields.ignore(&["options"]);
    fields.not_built(&[("frontendValidation", "")]);
    let mode = fields.optional("mode", |cursor| {
        cursor.choice(&[
            ("Terminate", TlsMode::Terminate),
            ("Passthrough", TlsMode::Passthrough),
        ])
    });
    let mode = mode.unwrap_or(TlsMode::Terminate);
    let certificates = fields.list("certificates", |cursor| cursor.fields(certificate));
    let refs = fields.list("certificateRefs", |cursor| cursor.fields(certificate_ref));
    if mode == TlsMode::Terminate && fields.lacks(&["certificates", "certificateRefs"]) {
        let hint = "certificateRefs: [{name: secret}], or certificates: [{cert: path, key: path}]";
        return fields
            .cursor()
            .error("at least one certificate is needed", hint);
    }
    Some(TlsSpec {
        mode,
        certificates,
        refs,
    })
}

fn certificate_ref(fields: &mut Fields<'_, '_>) -> Option<CertificateRef> {
    let kind = fields.optional("kind", |c| c.filled_text().map(Arc::from));
    let group = fields.optional("group", |c| c.owned_text());
    let namespace = fields.optional("namespace", |c| c.namespace());
    let named = fields.required("name", |cursor| Some((cursor.name()?, cursor.spot())));
    let (name, spot) = named?;
    let kind = kind.unwrap_or_else(|| "Secret".into());
    Some(CertificateRef {
        kind: match group.filter(|group| !group.is_empty()) {
            Some(group) => format!("{kind}.{group}").into(),
            None => kind,
        },
        namespace,
        name,
        spot,
    })
}

/// A certificate chain and its key, as paths of PEM files.
pub(super) fn certificate(fields: &mut Fields<'_, '_>) -> Option<Certificate> {
    let chain = fields.required("cert", |c| c.path());
    let key = fields.required("key", |c| c.path());
    Some(Certificate {
        chain: Pem::File(chain?),
        key: Pem::File(key?),
    })
}

fn allowed_routes(fields: &mut Fields<'_, '_>) -> Option<AllowedRoutes> {
    let kinds = fields.optional("kinds", |c| c.list(|cursor| cursor.fields(allowed_kind)));
    let namespaces = fields.optional("namespaces", |c| c.fields(allowed_namespaces));
    Some(AllowedRoutes {
        namespaces: namespaces.unwrap_or_default(),
        kinds: kinds.filter(|kinds| !kinds.is_empty()),
    })
}

fn allowed_kind(fields: &mut Fields<'_, '_>) -> Option<AllowedKind> {
    let group = fields.optional("group", |c| c.owned_text());
    let kind = fields.required("kind", |cursor| {
        Some((cursor.filled_text()?.into(), cursor.spot()))
    });
    let (kind, spot) = kind?;
    Some(AllowedKind { group, kind, spot })
}

#[derive(Clone, Copy)]
enum NamespacesFrom {
    Same,
    All,
    Selector,
    None,
}

fn allowed_namespaces(fields: &mut Fields<'_, '_>) -> Option<AllowedNamespaces> {
    let from = fields.optional("from", |cursor| {
        cursor.choice(&[
            ("Same", NamespacesFrom::Same),
            ("All", NamespacesFrom::All),
            ("Selector", NamespacesFrom::Selector),
            ("None", NamespacesFrom::None),
        ])
    });
    let selector = fields.optional("selector", |cursor| cursor.fields(selector));
    let here = fields.cursor();
    match (from.unwrap_or(NamespacesFrom::Same), selector) {
        (NamespacesFrom::Selector, Some(selector)) => Some(AllowedNamespaces::Selected(selector)),
        (NamespacesFrom::Selector, None) if !fields.has("selector") => here.error(
            "`from: Selector` needs `selector`",
            "selector: {matchLabels: {team: shop}}",
        ),
        (NamespacesFrom::Selector, None) => None,
        (_, Some(_)) => here.error(
            "`selector` goes with `from: Selector`",
            "leave one of both out",
        ),
        (NamespacesFrom::Same, None) => Some(AllowedNamespaces::Same),
        (NamespacesFrom::All, None) => Some(AllowedNamespaces::All),
        (NamespacesFrom::None, None) => Some(AllowedNamespaces::None),
    }
}
