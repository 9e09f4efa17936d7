//! Kubernetes' own `Service`: of it the ports count, as its endpoints come from elsewhere.

use crate::config::decode::Fields;
use crate::model::{Port, Protocol};

#[derive(Debug)]
pub struct KubernetesServiceSpec {
    pub ports: Vec<Port>,
}

/// Keys of a Kubernetes Service that say nothing to a mesh.
const IGNORED: [&str; 19] = [
    "allocateLoadBalancerNodePorts",
    "clusterIP",
    "clusterIPs",
    "externalIPs",
    "externalName",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "internalTrafficPolicy",
    "ipFamilies",
    "ipFamilyPolicy",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "publishNotReadyAddresses",
    "selector",
    "sessionAffinity",
    "sessionAffinityConfig",
    "trafficDistribution",
    "type",
];

pub(super) fn read(fields: &mut Fields<'_, '_>) -> KubernetesServiceSpec {
    fields.ignore(&IGNORED);
    let ports = fields.list("ports", |cursor| cursor.fields(port));
    KubernetesServiceSpec {
        ports: ports.into_iter().flatten().collect(),
    }
}

/// Some(None) is a port that carries no TCP, and so is none of ours.
fn port(fields: &mut Fields<'_, '_>) -> Option<Option<Port>> {
    fields.ignore(&["targetPort", "nodePort"]);
    let port = fields.required("port", |c| c.port());
    let name = fields.optional("name", |c| c.owned_text());
    let by_protocol = fields.optional("appProtocol", |c| c.owned_text());
    let transport = fields.optional("protocol", |cursor| {
        cursor.choice(&[("TCP", true), ("UDP", false), ("SCTP", false)])
    });
    let protocol = match by_protocol {
        Some(protocol) => protocol_of(&protocol),
        None => name.as_deref().and_then(protocol_of_name),
    };
    let port = Port {
        port: port?,
        name,
        protocol,
        tls: None,
    };
    Some(Some(port).filter(|_| transport.unwrap_or(true)))
}

fn protocol_of(app_protocol: &str) -> Option<Protocol> {
    match app_protocol.to_ascii_lowercase().as_str() {
        "http" | "http/1.1" | "kubernetes.io/ws" => Some(Protocol::Http),
        "http2" | "h2c" | "kubernetes.io/h2c" => Some(Protocol::Http2),
        "grpc" => Some(Protocol::Grpc),
        // Encrypted by the application: bytes to us.
        "tcp" | "https" | "tls" | "kubernetes.io/wss" => Some(Protocol::Tcp),
        _ => None,
    }
}

/// The custom of naming ports by protocol: `http`, `grpc-api`.
fn protocol_of_name(name: &str) -> Option<Protocol> {
    protocol_of(name.split('-').next().unwrap_or(name))
}
