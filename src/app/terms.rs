//! What a bootstrap file says, in the words of the planes that go by it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

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

/// The host by which others reach this instance: as given, else the address of the first listener that is not a wildcard, else
/// the one this machine would use to reach the registry, or others where that is on this machine or called by a name.
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
    let registries = bootstrap.registry.iter();
    let hosts = registries.flat_map(|registry| registry.addresses.iter().map(|url| host(url)));
    let elsewhere: Vec<Host> = hosts.filter(|host| !host.is_here()).collect();
    let ways = elsewhere.iter().filter_map(Host::address);
    let own = ways.chain([ELSEWHERE]).find_map(own_address);
    if own.is_none() && !elsewhere.is_empty() && !bootstrap.apps.is_empty() {
        tracing::warn!(
            "This machine has no way to others and is registered as 127.0.0.1, where only itself finds it; set advertise"
        );
    }
    own.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)).to_string()
}

/// Nobody's (RFC 5737), so the way there is the default route.
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Where a registry is.
enum Host {
    Address(IpAddr),
    /// Looking it up could take longer than a start may.
    Name(String),
}

impl Host {
    fn is_here(&self) -> bool {
        match self {
            Host::Address(address) => address.is_loopback(),
            Host::Name(name) => name == "localhost",
        }
    }

    fn address(&self) -> Option<IpAddr> {
        match self {
            Host::Address(address) => Some(*address),
            Host::Name(_) => None,
        }
    }
}

/// The host in a URL.
fn host(url: &str) -> Host {
    let uri: http::Uri = url.parse().unwrap_or_default();
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse() {
        Ok(address) => Host::Address(address),
        Err(_) => Host::Name(host.to_owned()),
    }
}

/// From which this machine would reach this destination. Connecting a UDP socket sends nothing; it only asks the kernel for a route.
fn own_address(destination: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match destination {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((destination, 9)).ok()?;
    let own = socket.local_addr().ok()?.ip();
    (!own.is_unspecified() && !own.is_loopback()).then_some(own)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_on_this_machine_or_has_an_address_to_go_to_or_a_name() {
        for (url, is_here, address) in [
            ("http://127.0.0.1:15010", true, Some("127.0.0.1")),
            ("http://localhost:15010", true, None),
            ("https://[::1]:15010", true, Some("::1")),
            ("https://10.0.0.7:15010", false, Some("10.0.0.7")),
            ("https://[fd00::7]:15010", false, Some("fd00::7")),
            ("http://registry.mesh:15010", false, None),
        ] {
            let host = host(url);
            assert_eq!(host.is_here(), is_here, "{url}");
            let address = address.map(|address| address.parse().unwrap());
            assert_eq!(host.address(), address, "{url}");
        }
    }

    #[test]
    fn the_way_to_oneself_says_nothing_of_where_others_find_one() {
        assert_eq!(own_address(Ipv4Addr::LOCALHOST.into()), None);
    }
}
