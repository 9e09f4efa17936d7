//! What a bootstrap file says, in the words of the planes that go by it.

use crate::base::net::Liveness;
use crate::config::{SidecarBootstrap, bootstrap};
use crate::dns;
use crate::model::{Name, Sidecar};
use crate::proxy::http1::codec;
use crate::proxy::settings::Settings;

pub fn settings(bootstrap: &SidecarBootstrap) -> Settings {
    let limits = &bootstrap.limits;
    Settings {
        head_limits: codec::Limits {
            head_bytes_max: limits.header_bytes_max,
            fields_max: limits.headers_max as usize,
            ..codec::Limits::DEFAULT
        },
        connect_timeout: limits.connect_timeout,
        passthrough_connect_timeout: limits.passthrough_connect_timeout,
        header_timeout: limits.header_timeout,
        tls_handshake_timeout: limits.tls_handshake_timeout,
        detection_timeout: limits.detection_timeout,
        stream_idle_timeout: limits.stream_idle_timeout,
        downstream_idle_timeout: limits.idle_timeout,
        upstream_idle_timeout: limits.upstream_idle_timeout,
        liveness: Liveness::new(limits.dead_peer_timeout),
        downstream_connections_max: limits.downstream_connections_max as usize,
        trusted_networks: bootstrap.trusted_networks.clone(),
        ..Settings::default()
    }
}

pub fn upstreams(dns: &bootstrap::Dns) -> dns::Upstreams {
    match &dns.upstreams[..] {
        [] => dns::Upstreams::File(dns::RESOLV_CONF.into()),
        fixed => dns::Upstreams::Fixed(fixed.to_vec()),
    }
}

/// A sidecar shares its machine with the application it serves; a gateway has it to itself.
pub fn workers(bootstrap: &SidecarBootstrap) -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let default = if bootstrap.outbound.is_some() || bootstrap.inbound.is_some() {
        cpus.min(2)
    } else {
        cpus
    };
    bootstrap.workers.unwrap_or(default)
}

pub fn sidecar(bootstrap: &SidecarBootstrap) -> Option<Sidecar> {
    if bootstrap.outbound.is_none() && bootstrap.inbound.is_none() {
        return None;
    }
    Some(Sidecar {
        outbound: bootstrap.outbound.as_ref().map(|outbound| outbound.address),
        inbound: bootstrap.inbound.as_ref().map(|inbound| inbound.address),
        inbound_mode: bootstrap
            .inbound
            .as_ref()
            .map(|inbound| inbound.mode)
            .unwrap_or_default(),
        intercept: bootstrap.intercept,
        apps: bootstrap.apps.clone(),
        zone: bootstrap.zone.clone(),
        namespace: bootstrap.namespace.clone(),
        passthrough: bootstrap
            .outbound
            .as_ref()
            .is_none_or(|outbound| outbound.passthrough == bootstrap::Passthrough::Allow),
    })
}

/// The same after a restart, and another on every host and for every admin address on one host.
pub fn sidecar_name(bootstrap: &SidecarBootstrap) -> String {
    if let Some(instance) = &bootstrap.instance {
        return instance.to_string();
    }
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .to_ascii_lowercase();
    format!("{host}-{}", bootstrap.admin.port())
}

/// The host by which others reach this instance: as given, else the address of the first listener that is not a
/// wildcard, else the one this machine would use to reach others.
pub fn advertised(bootstrap: &SidecarBootstrap) -> String {
    if let Some(advertise) = &bootstrap.advertise {
        return advertise.to_string();
    }
    let listens = bootstrap.apps.iter().filter_map(|app| app.listen);
    if let Some(listen) = listens
        .into_iter()
        .find(|listen| !listen.ip().is_unspecified())
    {
        return listen.ip().to_string();
    }
    own_address().map_or_else(|| "127.0.0.1".to_owned(), |address| address.to_string())
}

/// Connecting a UDP socket sends nothing; it only asks the kernel for a route.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket
        .local_addr()
        .ok()
        .map(|address| address.ip())
        .filter(|address| !address.is_unspecified())
}

/// None is all: also where a pattern asks for more than single services.
pub fn wanted_services(patterns: &[String], namespace: &str) -> Option<Vec<Name>> {
    if patterns.is_empty() || patterns.iter().any(|pattern| pattern.contains('*')) {
        return None;
    }
    let name = |pattern: &String| match pattern.split_once('/') {
        Some((namespace, name)) => Name::new(namespace, name),
        None => Name::new(namespace, pattern),
    };
    Some(patterns.iter().map(name).collect())
}
